"""The local environment of Alembic."""

from federation.environments.runtime import run

run("local")
