"""A finding: what a setting means for training here, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar


class Severity(StrEnum):
    """The consequence if nothing is done."""

    WORK = "costs work"
    """A run does not start, ends for good, or loses the work since its last checkpoint."""
    TIME = "costs time"
    """A run continues by itself, but later than it could."""
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting and what it means."""

    severity: Severity
    setting: str
    value: str
    meaning: str
    """One sentence for the user."""
    remedy: str = ""
    """Empty if nothing needs to be done."""


Facts = TypeVar("Facts")


def apply(rules: Iterable[Callable[[Facts], Finding | None]], facts: Facts) -> list[Finding]:
    """Return the findings of the rules."""
    return [finding for rule in rules if (finding := rule(facts))]


def costs_work(setting: str, value: object, meaning: str, remedy: str) -> Finding:
    return Finding(Severity.WORK, setting, str(value), meaning, remedy)


def costs_time(setting: str, value: object, meaning: str, remedy: str) -> Finding:
    return Finding(Severity.TIME, setting, str(value), meaning, remedy)


def fine(setting: str, value: object, meaning: str) -> Finding:
    return Finding(Severity.FINE, setting, str(value), meaning)
