"""BeanHealth's rows for the demo: the same at every run, whole, and of nobody."""

from __future__ import annotations

from itertools import islice
from uuid import UUID

from versions import demo

SITE = UUID(int=1)


def test_they_are_as_many_as_they_say_and_refer_to_each_other() -> None:
    patients, queues = demo.tables(SITE)
    rows = {
        table.name: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in (patients, queues)
    }
    assert (len(rows["hospital_patients"]), len(rows["hospital_queues"])) == (patients.count, queues.count)
    assert (patients.count, queues.count) == (20_000, 80_000)
    registered = {row["id"]: row["created_at"] for row in rows["hospital_patients"]}
    assert len(registered) == patients.count
    assert all(registered[row["patient_id"]] <= row["created_at"] for row in rows["hospital_queues"])
    assert len({row["beanhealth_id"] for row in rows["hospital_patients"]}) == patients.count


def test_they_are_the_same_at_every_run() -> None:
    for one, other in zip(demo.tables(SITE), demo.tables(SITE), strict=True):
        assert list(islice(one.rows, 500)) == list(islice(other.rows, 500))


def test_no_telephone_number_is_anybodys() -> None:
    patients, _ = demo.tables(SITE)
    column = patients.columns.index("phone")
    assert all(str(row[column]).startswith("00000") for row in islice(patients.rows, 1000))
