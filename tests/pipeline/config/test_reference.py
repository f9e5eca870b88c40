"""docs/configuration.md describes each field of the schema."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag, TypeAdapter

from pipeline.config import reference
from pipeline.config.json_schema import json_schema
from pipeline.config.schema.section import section

DOCUMENT = Path(__file__).parents[3] / "docs/configuration.md"


def test_committed_reference_is_current() -> None:
    remedy = "python -m pipeline.config.reference > docs/configuration.md"
    assert DOCUMENT.read_text() == reference.text(), f"write it again: {remedy}"


@pytest.mark.slow
def test_every_field_has_a_row_and_a_meaning() -> None:
    schema = json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        for name, field in definition["properties"].items():
            assert "description" in field or "const" in field or "$ref" in field, name
            assert f"`{name}`" in reference.text() or f".{name}`" in reference.text()
    for row in re.findall(r"^\| `.*$", reference.text(), flags=re.MULTILINE):
        field, _, default, meaning = (cell.strip() for cell in row.strip("|").split(" | "))
        assert default, field
        assert meaning.endswith("."), field


def test_every_link_leads_to_a_heading_or_a_file() -> None:
    text = reference.text()
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    for target in re.findall(r"\]\(([^)]*)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (DOCUMENT.parent / target).is_file()


@section
class Small:
    """A small one."""

    name: Literal["small_1", "small_2"]
    size: Annotated[int, Field(gt=0)] = 3
    """Its size."""


@section
class Large:
    """A large one."""

    name: Literal["large"] = "large"
    share: Annotated[float, Field(ge=0, lt=1)]
    """Its share."""


def family(value: Any) -> str:
    return str(value["name"] if isinstance(value, dict) else value.name).split("_")[0]


@section
class ByFamily:
    """A union whose members are chosen by a function."""

    one: Annotated[Annotated[Small, Tag("small")] | Annotated[Large, Tag("large")],
                   Discriminator(family)]  # fmt: skip
    """One of two."""


@section
class ByName:
    """A union whose members are chosen by name."""

    one: Annotated[Small | Large, Field(discriminator="name")]
    """One of two."""


@pytest.mark.parametrize("kind", [ByFamily, ByName])
def test_members_of_a_union_have_a_table_each_however_they_are_chosen(kind: type) -> None:
    schema = TypeAdapter(kind).json_schema()
    text = "\n".join(reference.Reference(schema).blocks())
    small, large = text.split("### `one: {name: large}`")
    assert "One of two.\n### `one`: Small\nA small one." in small
    assert "| `one.name` | `small_1` or `small_2` | required |" in small
    assert "| `one.size` | whole number ≥ 1 | `3` | Its size. |" in small
    assert "| `one.share` | number ≥ 0 and < 1 | required | Its share. |" in large
    assert "`one.name`" not in large, "it can have one value only"
