"""What sections of the configuration are made of: frozen dataclasses and bounded numbers."""

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, Field))
def section(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass that refuses unknown keys; docstrings describe its fields."""
    rules = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    decorate = cast(
        "Callable[[type[T]], type[T]]", dataclass(frozen=True, kw_only=True, config=rules)
    )
    return decorate(cls)


def one_line(text: str) -> str:
    """Return `text`.

    Raises `ValueError` if it is empty, has several lines, or has whitespace at either end.
    """
    if text.strip() != text or len(text.splitlines()) != 1 or "\0" in text:
        raise ValueError("must be one line of text without whitespace at either end")
    return text


Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Line = Annotated[str, AfterValidator(one_line)]


def exactly_one(owner: object, *names: str) -> None:
    """Raises `ValueError` unless exactly one of the named fields of `owner` is set."""
    given = [name for name in names if getattr(owner, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"give exactly one of {' or '.join(names)} (found {found})")


def at_most_one(owner: object, *names: str) -> None:
    """Raises `ValueError` if more than one of the named fields of `owner` is set."""
    given = [name for name in names if getattr(owner, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give {' or '.join(names)}, not both")


def without_nulls(entries: Any) -> Any:
    """Return a mapping without its null values: null in an override removes an entry."""
    if not isinstance(entries, dict):
        return entries
    mapping = cast("dict[str, Any]", entries)
    return {key: value for key, value in mapping.items() if value is not None}
