"""The kinds of a section, of which its `name` chooses one, and switching between them.

`schedule.name=cosine` keeps what both kinds have; settings of the file that only its former kind
takes are dropped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, NamedTuple, cast, get_args

from pydantic import Tag, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.catalogue import family_of
from pipeline.config.schema import Config
from pipeline.config.yaml_document import Data, Document, Loc, dotted, show

Settings = dict[str, Data]
SHOWN = 60


class Dropped(NamedTuple):
    """Settings of the file that another kind does not take."""

    section: Loc
    name: str
    """The name of the new kind."""
    settings: Settings

    def __str__(self) -> str:
        given = ", ".join(f"{key}={_shown(value)}" for key, value in self.settings.items())
        return f"{dotted(self.section)}.name={self.name} drops what {self.name} lacks: {given}"


def fields_of(kind: type | None) -> dict[str, FieldInfo]:
    """Return the fields of a section by name."""
    return cast("Any", kind).__pydantic_fields__ if kind else {}


def kinds_in(annotation: Any, tag: str = "") -> dict[str, type]:
    """Return the sections in a field's type, by the name that chooses among them."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        name = fields_of(annotation).get("name")
        return {tag or (name.default if name else ""): annotation}
    parts = get_args(annotation)
    tag = next((part.tag for part in parts if isinstance(part, Tag)), tag)
    return {name: found for part in parts for name, found in kinds_in(part, tag).items()}


def drop_unfitting(document: Document) -> list[Dropped]:
    """Remove what no longer fits where an override chose another kind by its name alone.

    Only settings of the file are removed, and only those that fit another kind of the section: a
    mistake in it, or a setting on the command line, is left for validation to report.
    """
    dropped: list[Dropped] = []
    for section in [loc[:-1] for loc in document.overridden if loc[-1] == "name"]:
        settings, kinds = document.mapping_at(section), _kinds_at(section)
        name = settings.get("name")
        kind = _kind_named(kinds, name)
        if kind is None or len(kinds) == 1:
            continue
        from_file = [key for key in settings if document.is_from_file((*section, key))]
        unfitting = _unfitting(kind, settings, from_file, list(kinds.values()))
        if unfitting:
            dropped.append(Dropped(section, str(name), {key: settings[key] for key in unfitting}))
        for key in unfitting:
            document.remove((*section, key))
    return dropped


def _unfitting(
    kind: type, settings: Settings, from_file: Sequence[str], kinds: Sequence[type]
) -> list[str]:
    """Return the keys among `from_file` that `kind` does not take, but another of `kinds` does."""
    wrong = _wrong_keys(kind, settings)
    unfitting = [
        key
        for key in from_file
        if key in wrong and any(_takes(other, key, settings[key]) for other in kinds)
    ]
    rest = {key: value for key, value in settings.items() if key not in unfitting}
    if _wrong_keys(kind, rest) == {""}:  # each is valid, but not all of them together
        for key in from_file:
            if key in rest and not _wrong_keys(kind, {k: v for k, v in rest.items() if k != key}):
                return [*unfitting, key]
    return unfitting


def _takes(kind: type, key: str, value: Data) -> bool:
    return key in fields_of(kind) and key not in _wrong_keys(kind, {key: value})


def _wrong_keys(kind: type, settings: Mapping[str, Data]) -> set[str]:
    """Return the keys that `kind` refuses; "" stands for their combination."""
    try:
        TypeAdapter(kind).validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        places = [each["loc"] for each in error.errors()]
        return {str(place[0]) if place else "" for place in places}
    return set()


def _kinds_at(section: Loc) -> dict[str, type]:
    """Return the kinds of a section; of a section inside one, those of its first kind with it."""
    kinds: dict[str, type] = {"": Config}
    for key in section:
        fields = (fields_of(kind).get(str(key)) for kind in kinds.values())
        kinds = next((kinds_in(field.annotation) for field in fields if field), dict[str, type]())
    return kinds


def _kind_named(kinds: Mapping[str, type], name: Data) -> type | None:
    """Return the kind that `name` chooses: its own name, or a network of its family."""
    if not isinstance(name, str):
        return None
    return kinds.get(name) or kinds.get(family_of(name) or "")


def _shown(value: Data) -> str:
    return show(json.dumps(value, ensure_ascii=False), longest=SHOWN)
