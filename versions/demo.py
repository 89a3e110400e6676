"""What `federation demo` shows of BeanHealth: 20,000 patients, 80,000 queue rows, and what the app asks of them.

Nobody in it exists, and it is the same at every run: names are drawn from two lists, no telephone number begins with
five zeros, and every id follows from its row's number.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from federation.demo import Read, Table

PATIENTS, QUEUES = 20_000, 80_000
DAYS = 400
NEW_A_DAY, QUEUE_A_DAY = PATIENTS // DAYS, QUEUES // DAYS
"""Each day's first rows of the queue are patients who come for the first time, the others have been there before."""
LAST_DAY = datetime(2026, 1, 30, tzinfo=UTC)
WAITING = 64
"""Of the last day's queue, those who have not been called yet."""


def _words(text: str) -> list[str]:
    return text.split()


DOCTORS = ("Dr. Kavitha Raman", "Dr. Arjun Bhat", "Dr. Farida Merchant", "Dr. Joseph Kurian", "Dr. Neha Deshpande")
WOMEN = _words("""
    Aarti Ananya Anjali Asha Bhavna Chitra Deepa Divya Farzana Fatima Gauri Geeta Harini Indira Isha Jaya Jyoti
    Kavya Kiran Lakshmi Lata Madhuri Mamta Meena Meera Mumtaz Nandini Neha Nisha Padma Pooja Pratibha Priya Radha
    Rekha Ritu Rohini Sadhana Sangeeta Sarita Savita Shabana Shalini Shanti Smita Sunita Swati Tara Uma Usha
    Vandana Vidya Yamini Zainab
""")
MEN = _words("""
    Abdul Aditya Ajay Amit Anand Anil Arun Ashok Balaji Chandan Deepak Devendra Dinesh Farhan Ganesh Gopal Harish
    Imran Irfan Jagdish Kailash Karthik Kishore Mahesh Manoj Mohan Mukesh Nagesh Naveen Nikhil Omprakash Pankaj
    Prakash Pramod Rahul Rajesh Rakesh Ramesh Ravi Rohit Sachin Salim Sandeep Sanjay Satish Shankar Srinivas Sunil
    Suresh Tarun Uday Vijay Vikram Vinod Yusuf
""")
SURNAMES = _words("""
    Agarwal Ansari Banerjee Bhatt Chauhan Chopra Das Desai Dutta Fernandes Ghosh Gowda Gupta Hegde Iyer Jain Joshi
    Kamble Khan Kulkarni Kumar Mehta Menon Mishra Nair Naidu Pandey Patel Patil Pawar Pillai Pujari Qureshi Rao
    Rathore Reddy Saxena Sen Shaikh Sharma Shetty Shinde Singh Sinha Solanki Subramanian Thakur Trivedi Varma
    Verma Yadav
""")
PLACES = _words("""
    Anantapur Bagalkot Ballari Bidar Chitradurga Davanagere Dharwad Gadag Gokak Hassan Haveri Hospet Hubballi
    Kalaburagi Karwar Kolhapur Koppal Mandya Miraj Nanded Raichur Ranebennur Sangli Satara Shivamogga Sirsi
    Solapur Tumakuru Udupi Vijayapura
""")


def tables(site: UUID) -> Iterable[Table]:
    """Patients first: the queue refers to them."""
    patients = (
        "id",
        "hospital_id",
        "name",
        "age",
        "token_number",
        "created_at",
        "father_husband_name",
        "place",
        "phone",
        "mr_number",
        "beanhealth_id",
    )
    queues = (
        "id",
        "hospital_id",
        "patient_id",
        "doctor_id",
        "queue_number",
        "status",
        "created_at",
        "updated_at",
        "completed_by_actor_type",
        "completed_by_name",
    )
    yield Table("hospital_patients", patients, _patients(site), PATIENTS)
    yield Table("hospital_queues", queues, _queues(site), QUEUES)


def _patients(site: UUID) -> Iterator[tuple[object, ...]]:
    draw = random.Random("patients")  # noqa: S311  the same rows at every run
    for number in range(PATIENTS):
        day, token = divmod(number, NEW_A_DAY)
        surname = draw.choice(SURNAMES)
        yield (
            _id("patient", number),
            site,
            f"{draw.choice(draw.choice((WOMEN, MEN)))} {surname}",
            int(draw.triangular(1, 90, 38)),
            str(token + 1),
            _at(day, token + 1),
            f"{draw.choice(MEN)} {surname}",
            draw.choice(PLACES),
            f"00000{number:05}",
            f"MR-{number + 1:06}",
            f"BH-{_id('card', number).hex[:10].upper()}",
        )


def _queues(site: UUID) -> Iterator[tuple[object, ...]]:
    draw = random.Random("queues")  # noqa: S311
    for number in range(QUEUES):
        day, place = divmod(number, QUEUE_A_DAY)
        known = day * NEW_A_DAY
        patient = known + place if place < NEW_A_DAY else draw.randrange(known or NEW_A_DAY)
        arrived, doctor = _at(day, place + 1), draw.randrange(len(DOCTORS))
        if number >= QUEUES - WAITING:
            status = "in_progress" if number == QUEUES - WAITING else "pending"
        else:
            status = "cancelled" if draw.random() < 0.06 else "completed"
        completed = status == "completed"
        yield (
            _id("queue", number),
            site,
            _id("patient", patient),
            _id("doctor", doctor),
            place + 1,
            status,
            arrived,
            arrived + timedelta(minutes=draw.randint(5, 90)) if status in {"completed", "cancelled"} else arrived,
            "chief" if completed else None,
            DOCTORS[doctor] if completed else None,
        )


def _id(kind: str, number: int) -> UUID:
    return uuid5(NAMESPACE_URL, f"demo/{kind}/{number}")


def _at(day: int, place: int) -> datetime:
    """When the ``place``-th of a day arrives: one every three minutes from 02:30 UTC, which is eight in India."""
    return LAST_DAY - timedelta(days=DAYS - 1 - day) + timedelta(hours=2, minutes=30 + 3 * place)


reads = (
    Read("all patients", "SELECT count(*) FROM hospital_patients", PATIENTS, counts=True),
    Read("the whole queue", "SELECT count(*) FROM hospital_queues", QUEUES, counts=True),
    Read(
        "latest 5 in the queue",
        "SELECT q.queue_number, p.name, p.age, q.status, q.created_at FROM hospital_queues q "
        "JOIN hospital_patients p ON p.id = q.patient_id ORDER BY q.created_at DESC LIMIT 5",
        5,
        explained=True,
    ),
    Read(
        "waiting on the last day",
        "SELECT q.queue_number, p.name FROM hospital_queues q JOIN hospital_patients p ON p.id = q.patient_id "
        "WHERE q.created_at >= '2026-01-30' AND q.status = 'pending' ORDER BY q.queue_number",
        WAITING - 1,
    ),
    Read("name like %sharma%", "SELECT id, name, age FROM hospital_patients WHERE name ILIKE '%sharma%' ORDER BY name"),
    Read(
        "call the next one",
        "UPDATE hospital_queues SET status = 'in_progress', updated_at = now() "  # noqa: S608
        f"WHERE id = '{_id('queue', QUEUES - WAITING + 1)}' RETURNING queue_number, status",
        1,
        writes=True,
    ),
)
