"""One error of pydantic's, in words for the person who wrote the YAML and at the place in it."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.config.schema import Config
from pipeline.config.yaml_document import FLOAT, Document, Fault, Loc, Place, dotted, show


def explain(error: ErrorDetails, document: Document) -> Fault:
    """Say what is wrong, where, and the remedy."""
    spot = _Spot(error["loc"])
    value = error["input"]
    loc = spot.loc
    if error["type"] == "union_tag_invalid":
        loc, value = (*loc, "name"), value["name"]
    place = document.key(loc) if spot.is_key else _place(error, document, loc)
    return Fault(place, loc, _text(error, document, spot, value))


def _place(error: ErrorDetails, document: Document, loc: Loc) -> Place:
    match error["type"]:
        case "missing" if isinstance(loc[-1], int):
            return document.values[loc[:-1]]
        case "missing":
            return document.key(loc[:-1])
        case "unexpected_keyword_argument" | "union_tag_not_found":
            return document.key(loc)
        case "value_error" if isinstance(error["input"], dict):
            return document.key(loc)
        case _:
            return document.values[loc]


def _text(error: ErrorDetails, document: Document, spot: "_Spot", value: Any) -> str:
    match error["type"]:
        case "unexpected_keyword_argument":
            text = _unknown_key(spot)
        case "missing":
            text = _missing(spot)
        case "union_tag_not_found":
            text = f"has no key name; {_listed('choices for it', spot.kinds)}"
        case "union_tag_invalid":
            text = _no_choice(value, spot.kinds)
        case "literal_error":
            text = _no_choice(value, spot.literals())
        case "dict_type" | "dataclass_type":
            text = f"must be a mapping, found {_shown(value)}; {_keys_within(spot)}"
        case "value_error" if isinstance(value, dict):
            text = _reason(error) + _overridden(document.overrides_within(spot.loc))
        case "value_error":
            reason, found = _reason(error), _shown(value)
            text = reason if found in reason else f"{reason}, found {found}"
        case kind:
            must = re.sub(r"^\w+ should ", "must ", error["msg"])
            text = f"{must}, found {_shown(value)}{_remedy(kind, value)}"
    return text


class _Spot:
    """Where in the document, and in the schema, an error of pydantic's lies.

    Between the keys of its `loc` pydantic puts the name of the choice that was made (`step`,
    `pad_crop`), and after a key of the user's own choosing `[key]` if that is the fault, not its
    value; neither stands in any document.
    """

    def __init__(self, loc: Loc) -> None:
        self.loc: Loc = ()
        self.owner: type | None = None
        """The class that has the last key of `loc`, or would have it."""
        self.rivals: dict[str, type] = {}
        """What might have been chosen in place of `owner`, by name."""
        self.kinds: dict[str, type] = {"": Config}
        """The classes that can stand at `loc`, by name."""
        self.is_key = False
        """Whether the key itself is at fault."""
        everything = self.kinds
        for element in loc:
            if isinstance(element, int):
                self.loc = (*self.loc, element)
            elif element == "[key]" and self.loc and self.owner is None:
                self.is_key = True
            elif len(self.kinds) > 1:
                everything = self.kinds
                self.kinds = {element: self.kinds[element]}
            else:
                self.loc = (*self.loc, element)
                self.rivals = everything
                self.owner = next(iter(self.kinds.values()), None)
                field = self.field()
                everything = self.kinds = _classes(field.annotation if field else None)

    def field(self) -> FieldInfo | None:
        return _fields(self.owner).get(str(self.loc[-1]))

    def literals(self) -> list[str]:
        """The closed choices of the field."""
        field = self.field()
        parts = [field.annotation, *get_args(field.annotation)] if field else []
        found = [get_args(part) for part in parts if get_origin(part) is Literal]
        return [str(choice) for choices in found for choice in choices]


def _fields(owner: type | None) -> dict[str, FieldInfo]:
    return cast("Any", owner).__pydantic_fields__ if owner else {}


def _classes(annotation: Any) -> dict[str, type]:
    """The dataclasses in a field's type, by the name that chooses among them."""
    kinds = list(_dataclasses_in(annotation))
    if len(kinds) == 1:
        return {"": kinds[0]}
    return {getattr(kind, "family", _fields(kind)["name"].default): kind for kind in kinds}


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and is_dataclass(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _dataclasses_in(part)


def _unknown_key(spot: _Spot) -> str:
    key, valid = str(spot.loc[-1]), list(_fields(spot.owner))
    near = get_close_matches(key, valid, n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    for name, rival in spot.rivals.items():
        if key in _fields(rival):
            whole = dotted(spot.loc[:-1])
            remedy = f"remove it, or set the whole of {whole}: {{name: ...}}"
            return f"is a key of {name} only; {remedy}"
    return f"unknown key; {_listed('valid keys', valid)}"


def _missing(spot: _Spot) -> str:
    if isinstance(spot.loc[-1], int):
        return "is missing, the list is too short"
    field = spot.field()
    meaning = field.description if field else None
    if not meaning and len(spot.kinds) == 1:
        meaning = next(iter(spot.kinds.values())).__doc__
    return (
        f"missing; add it ({' '.join(meaning.split()).rstrip('.')})"
        if meaning
        else "missing; add it"
    )


def _no_choice(value: Any, choices: Iterable[str]) -> str:
    near = get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{_shown(value)} is not a choice; {hint}{_listed('choices', choices)}"


def _keys_within(spot: _Spot) -> str:
    if not spot.kinds:
        return "write {NAME: value}"
    if len(spot.kinds) > 1:
        return _listed("give it a name, one of", spot.kinds)
    return _listed("valid keys", _fields(next(iter(spot.kinds.values()))))


def _listed(title: str, words: Iterable[str]) -> str:
    return f"{title}: {', '.join(words)}"


def _reason(error: ErrorDetails) -> str:
    return str(error.get("ctx", {})["error"])


def _overridden(overrides: list[str]) -> str:
    given = " ".join(overrides)
    return f"; the command line has {given} (KEY=null unsets a key)" if given else ""


def _remedy(kind: str, value: Any) -> str:
    match kind, value:
        case "bool_type", _:
            return "; write true or false"
        case "string_type", bool() | int() | float():
            return "; put it in quotes"
        case "int_type", float() if value.is_integer():
            return f"; write {int(value)}"
        case "int_type" | "float_type", str() if FLOAT.match(value.replace("_", "")):
            return f"; write {value.replace('_', '')} without quotes"
        case _:
            return ""


def _shown(value: Any) -> str:
    return show(repr(value) if isinstance(value, str) else json.dumps(value), longest=60)
