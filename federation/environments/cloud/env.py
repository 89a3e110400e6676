"""The cloud environment of Alembic."""

from federation.environments.runtime import run

run("cloud")
