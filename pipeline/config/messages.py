"""Turns an error of pydantic into a message with its place in the YAML, and a remedy."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

from pydantic_core import ErrorDetails

from pipeline.config.foreign import choice_hint, setting_named
from pipeline.config.kinds import fields_of, kinds_in
from pipeline.config.schema import Config
from pipeline.config.yaml_document import FLOAT, Document, Fault, Loc, dotted, show


def explain(error: ErrorDetails, document: Document) -> Fault:
    """Return the fault behind an error: what is wrong, where, and the remedy."""
    spot, value, kind = _find(error["loc"]), error["input"], error["type"]
    loc = (*spot.loc, "name") if kind == "union_tag_invalid" else spot.loc
    text = _text(error, spot, value)
    of_mapping = isinstance(value, dict)
    if of_mapping and kind == "value_error" and (overrides := document.overrides_within(loc)):
        text += f"; the command line has {' '.join(overrides)} (KEY=null unsets a key)"
    of_mapping &= kind in {"missing", "union_tag_not_found", "value_error"}
    at_key = of_mapping or spot.is_key or kind == "unexpected_keyword_argument"
    places = document.keys if at_key else document.values
    where = loc[:-1] if kind == "missing" else loc
    return Fault(places[where], loc, text)


def _text(error: ErrorDetails, spot: "_Spot", value: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "unexpected_keyword_argument":
            text = _unknown_key(spot, value)
        case "missing" if isinstance(spot.loc[-1], int):
            text = "is missing; the list is too short"
        case "missing":
            field = fields_of(spot.owner)[str(spot.loc[-1])]
            text = f"missing; add it ({' '.join((field.description or '').split()).rstrip('.')})"
        case "union_tag_not_found":
            text = f"needs a name; choices: {', '.join(spot.choices)}"
        case "union_tag_invalid":
            text = _not_a_choice(f"{dotted(spot.loc)}.name", value["name"], list(spot.choices))
        case "literal_error":
            expected = re.split(", | or ", context["expected"])
            choices = [choice.strip("'") for choice in expected]
            text = _not_a_choice(dotted(spot.loc), value, choices)
        case "dict_type" | "dataclass_type":
            text = f"must be a mapping, found {_shown(value)}; {_keys_within(spot.choices)}"
        case "value_error":
            text, found = str(context["error"]), _shown(value)
            if not isinstance(value, dict) and found not in text:
                text += f", found {found}"
        case kind:
            must = re.sub(r"^\w+ should ", "must ", error["msg"])
            text = f"{must}, found {_shown(value)}{_remedy(kind, value)}"
    return text


class _Spot(NamedTuple):
    """Where an error of pydantic is, in the document and in the schema."""

    loc: Loc
    is_key: bool  # the key itself is wrong, not its value
    rivals: dict[str, type]  # the classes that can hold the last key of `loc`, by name ...
    owner: type | None  # ... and the one that does
    choices: dict[str, type]  # the classes that can stand at `loc`, by name


def _find(error_loc: Loc) -> _Spot:
    """Follow the `loc` of an error through the schema.

    Between the keys pydantic puts the name of the choice that was made (`step`, `pad_crop`), and
    `[key]` after a key of a dictionary that is itself wrong; neither is in the document.
    """
    loc: Loc = ()
    is_key, owner = False, None
    rivals, choices = dict[str, type](), {"": Config}
    chosen: type | None = Config
    for element in error_loc:
        if isinstance(element, int):
            loc = (*loc, element)
        elif element == "[key]" and owner is None and loc:
            is_key = True
        elif chosen is None and choices:
            chosen = choices[element]
        else:
            loc, rivals, owner = (*loc, element), choices, chosen
            field = fields_of(owner).get(element)
            choices = kinds_in(field.annotation) if field else {}
            chosen = next(iter(choices.values())) if len(choices) == 1 else None
    return _Spot(loc, is_key, rivals, owner, choices)


def _unknown_key(spot: _Spot, value: Any) -> str:
    key, valid = str(spot.loc[-1]), list(fields_of(spot.owner))
    if near := get_close_matches(key, valid, n=1):
        return f"unknown key; did you mean {near[0]}?"
    for name, rival in spot.rivals.items():
        if key in fields_of(rival):
            whole = dotted(spot.loc[:-1])
            return f"is a key of {name} only; remove it, or choose {whole}.name={name}"
    if ours := setting_named(key):
        return f"unknown key; here it is {ours}"
    if isinstance(value, dict):
        inner = [str(each) for each in cast("dict[str, Any]", value)]
        known = [f"{key}.{each} is {ours} here" for each in inner if (ours := setting_named(each))]
        if known:
            return f"unknown key; {', '.join(known)}"
    return f"unknown key; valid keys: {', '.join(valid)}"


def _not_a_choice(key: str, value: Any, choices: Sequence[str]) -> str:
    near = get_close_matches(str(value), choices, n=1)
    elsewhere = choice_hint(key, value, choices)
    hint = f"{elsewhere}; " if elsewhere else f"did you mean {near[0]}? " if near else ""
    return f"{_shown(value)} is not a choice; {hint}choices: {', '.join(choices)}"


def _keys_within(choices: dict[str, type]) -> str:
    kinds = list(choices.values())
    if not kinds:
        return "write {NAME: value}"
    if len(kinds) > 1 and not fields_of(kinds[0])["name"].is_required():
        return f"give it a name; choices: {', '.join(choices)}"
    return f"valid keys: {', '.join(fields_of(kinds[0]))}"


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
