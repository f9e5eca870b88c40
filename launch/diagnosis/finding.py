"""A finding: what a setting means for whoever trains here, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar


class Severity(StrEnum):
    """What it comes to if nothing is done."""

    WORK = "costs work"
    """A run does not start, ends for good, or loses what it did since its last checkpoint."""
    TIME = "costs time"
    """A run goes on by itself, but later than it could."""
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting, judged."""

    severity: Severity
    setting: str
    value: str
    meaning: str
    """For you, in a sentence."""
    remedy: str = ""
    """Empty if there is nothing to do."""


Facts = TypeVar("Facts")


def apply(rules: Iterable[Callable[[Facts], Finding | None]], facts: Facts) -> list[Finding]:
    """Return what the rules find."""
    return [finding for rule in rules if (finding := rule(facts))]


def costs_work(setting: str, value: object, meaning: str, remedy: str) -> Finding:
    return Finding(Severity.WORK, setting, str(value), meaning, remedy)


def costs_time(setting: str, value: object, meaning: str, remedy: str) -> Finding:
    return Finding(Severity.TIME, setting, str(value), meaning, remedy)


def fine(setting: str, value: object, meaning: str) -> Finding:
    return Finding(Severity.FINE, setting, str(value), meaning)
