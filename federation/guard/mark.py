"""The mark: the cloud's release as the hospital's guard row has it, between what the cloud was and what it is.

A step after which the cloud needs more of the hospital raises it inside its own transaction; one after which the cloud
needs less leaves it, and it is set after the COMMIT. A mark that was left is never lower than what the cloud needs.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from federation.databases import asked


def mark(local: Connection) -> str | None:
    """The mark at the hospital, ``""`` for base, or None where there is no guard yet. Reads only."""
    found = None
    if local.exec_driver_sql("SELECT to_regclass('federation.guard') IS NOT NULL").scalar_one():
        found = local.exec_driver_sql("SELECT cloud_release FROM federation.guard").scalar_one_or_none()
    local.rollback()
    return found


def settle_over_link(cloud: Connection) -> None:
    """Set the mark to the cloud's release from the cloud alone; a hospital that does not answer is a warning."""
    cloud.exec_driver_sql("SELECT federation.settle()")
    cloud.commit()


def settle(local: Connection, cloud: Connection) -> None:
    """Set the mark to the cloud's release, using direct sessions to both databases instead of the link.

    The locks wait for a step that is under way on either side: its release is neither until it has ended. Raises
    LockHeld when it does not end in time.
    """
    with asked(local, "local"):
        guarded = mark(local) is not None
    if not guarded:
        return
    with asked(cloud, "cloud"):
        release = ""
        if cloud.exec_driver_sql("SELECT to_regclass('federation.alembic_version') IS NOT NULL").scalar_one():
            cloud.exec_driver_sql("LOCK TABLE federation.alembic_version IN SHARE MODE")
            newest = "SELECT coalesce(max(version_num), '') FROM federation.alembic_version"
            release = cloud.exec_driver_sql(newest).scalar_one()
        with asked(local, "local"):
            local.exec_driver_sql("LOCK TABLE federation.alembic_version IN SHARE MODE")
            local.exec_driver_sql(
                "UPDATE federation.guard SET cloud_release = %(release)s WHERE cloud_release <> %(release)s",
                {"release": release},
            )
            local.commit()
