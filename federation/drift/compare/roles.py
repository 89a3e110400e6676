"""The roles of the link: what they may do, who may become them, and the settings that they have."""

from __future__ import annotations

from collections.abc import Iterator

from federation import roles
from federation.drift.finding import Finding
from federation.drift.survey import Survey


def compare(survey: Survey) -> Iterator[Finding]:
    """Report roles that may do too much, and settings that `federation bootstrap` did not give them."""
    found = [fault for fault in roles.faults(survey.connection, survey.config, survey.side) if fault.refused]
    if survey.side == "local":
        found += roles.foreign_settings(survey.connection, survey.config)
    for fault in found:
        yield Finding("role", fault.role, fault.fault, fault.remedy)
