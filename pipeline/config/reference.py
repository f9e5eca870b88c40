"""The configuration as a document: a table of fields for each section, written from the schema.

`python -m pipeline.config.reference > docs/configuration.md` writes the committed copy.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from pipeline.config.renamed import RENAMED
from pipeline.config.schema import Config

Node = dict[str, Any]
"""A node of a JSON schema."""

INTRODUCTION = """\
# Configuration

<!-- Written by python -m pipeline.config.reference from the docstrings of the schema. -->

A recipe is a YAML file. The command line overrides any of its fields:

```
python launch/submit.py configs/resnet50.yaml train.epochs=100 data.loader.threads=8
python launch/submit.py configs/resnet50.yaml 'schedule={name: polynomial, power: 1}'
```

`schedule.name=cosine` switches a section to another kind. Settings of the recipe that both kinds
have are kept; those that only the old kind has are dropped, with a note.

A run is named after its recipe and what the command line changed (`resnet50-cosine_lr=0.2-3f9c1a`).
Changes that cannot alter the result (folders, loading, nodes) are left out of the name, and
`name=...` sets another one.

`launch/submit.py --dry-run` shows what differs from the defaults (with `--full`, every field). It
warns of likely mistakes: a warm-up or milestones beyond the end, a batch larger than the dataset,
lengths below one step, a precision that is slow on the processor.

Fields are written as on the command line: `train.epochs` is the key `epochs` in the section
`train`. Units are part of the names. A field without a default is required, and `null` unsets a
field that can be null. If a section has several kinds, its `name` chooses one of them.

More about some of them: [the order of the images](order.md), [engines](engines.md),
[stopping](stopping.md), [checkpoints](checkpoints.md), [clusters](cluster.md) and
[containers](containers.md).
"""
TABLE = "| field | type | default | meaning |\n|---|---|---|---|"


def text() -> str:
    """Return the contents of docs/configuration.md."""
    schema = TypeAdapter(Config).json_schema(schema_generator=_WithDefaults)
    former = [f"- `{old}` is now `{new}`." for old, new in RENAMED.items()]
    ending = ["## Former names", "These names still work:", "\n".join(former)]
    return "\n\n".join([INTRODUCTION.strip(), *Reference(schema).blocks(), *ending]) + "\n"


class Reference:
    """Writes the JSON schema of a configuration as Markdown."""

    def __init__(self, schema: Node) -> None:
        self._schema = schema

    def blocks(self) -> Iterator[str]:
        """Yield the contents, the fields outside sections, and each section."""
        fields: Node = self._schema["properties"]
        sections = {name: kinds for name, node in fields.items() if (kinds := self._kinds(node))}
        meanings = {
            name: _meaning(fields[name]) or _meaning(sections[name][0]) for name in sections
        }
        yield "\n".join(f"- [`{name}`](#{name}): {text}" for name, text in meanings.items())
        yield "## Outside any section"
        yield self._table(self._schema, "", leave_out=list(sections))
        for name in sections:
            yield from self._section(name, fields[name], "##")

    def _section(self, key: str, node: Node, marks: str) -> Iterator[str]:
        kinds = self._kinds(node)
        yield f"{marks} `{key}`"
        if len(kinds) > 1:
            yield _meaning(node)
        for kind in kinds:
            if len(kinds) > 1:
                yield f"{marks}# {_title(key, kind)}"
            yield _meaning(kind)
            yield self._table(kind, f"{key}.")
            for name, inner in kind["properties"].items():
                if self._kinds(inner):
                    yield from self._section(f"{key}.{name}", inner, f"{marks}#")

    def _table(self, section: Node, prefix: str, leave_out: Sequence[str] = ()) -> str:
        """Return a table of fields, without those that can have one value only."""
        rows = [
            f"| `{prefix}{name}` | {self._type(node, prefix + name)} |"
            f" {self._default(node)} | {_meaning(node)} |"
            for name, node in section["properties"].items()
            if "const" not in node and name not in leave_out
        ]
        return "\n".join([TABLE, *rows]) if rows else "It has no other fields."

    def _type(self, node: Node, key: str) -> str:
        kinds = self._kinds(node)
        if not kinds:
            return _or(_alternatives(node))
        names = [f"`{_name_of(kind)}`" for kind in kinds] if len(kinds) > 1 else ["section"]
        nullable = ["`null`"] if {"type": "null"} in node.get("anyOf", []) else []
        return _or([f"[{_or(names)}](#{_anchor(key)})", *nullable])

    def _default(self, node: Node) -> str:
        if "default" not in node:
            return "required"
        kinds, value = self._kinds(node), node["default"]
        if kinds and value:
            value = {"name": value["name"]} if len(kinds) > 1 else {}
        return f"`{_yaml(value)}`"

    def _kinds(self, node: Node) -> list[Node]:
        """Return the sections that can stand at a node: none, one, or the members of a union."""
        if "$ref" in node:
            return [self._schema["$defs"][node["$ref"].rpartition("/")[2]]]
        return [kind for part in _members(node) for kind in self._kinds(part)]


class _WithDefaults(GenerateJsonSchema):
    """A JSON schema that also has the defaults made by a factory."""

    def get_default_value(self, schema: Any) -> Any:
        factory = schema.get("default_factory")
        return factory() if factory else super().get_default_value(schema)


def _members(node: Node) -> list[Node]:
    return [*node.get("oneOf", []), *node.get("anyOf", []), *node.get("allOf", [])]


def _alternatives(node: Node) -> list[str]:
    """Return in words what a value can be: types with their bounds, or values."""
    if members := _members(node):
        return [words for member in members for words in _alternatives(member)]
    if "enum" in node:
        return [f"`{_yaml(value)}`" for value in node["enum"]]
    match node.get("type"):
        case "integer" | "number" as kind:
            words = [f"{'whole ' if kind == 'integer' else ''}number{_bounds(node)}"]
        case "boolean":
            words = ["`true`", "`false`"]
        case "null":
            words = ["`null`"]
        case "array":
            items: list[Node] = node.get("prefixItems", [node.get("items")])
            count = f"{len(items)} " if "prefixItems" in node else ""
            words = [f"list of {count}{_or(_alternatives(items[0])).replace('number', 'numbers')}"]
        case "object":
            words = [f"mapping of names to {_or(_alternatives(node['additionalProperties']))}"]
        case _ if "pattern" in node:
            words = [f"text that matches `{node['pattern']}`"]
        case _:
            words = ["path" if node.get("format") == "path" else "text"]
    return words


def _bounds(node: Node) -> str:
    """Return the bounds of a number, such as " ≥ 0 and < 1"."""
    bounds = {"≥": "minimum", ">": "exclusiveMinimum", "≤": "maximum", "<": "exclusiveMaximum"}
    given = {sign: node[key] for sign, key in bounds.items() if key in node}
    if node["type"] == "integer" and ">" in given:
        given = {"≥": given.pop(">") + 1, **given}
    if given.get("<") == 2**63:
        given["<"] = "2**63"
    return " " + " and ".join(f"{sign} {bound}" for sign, bound in given.items()) if given else ""


def _name_of(kind: Node) -> str:
    """Return the `name` that chooses a member of a union, or its title if several names do."""
    return kind["properties"].get("name", {}).get("const", kind["title"])


def _title(key: str, kind: Node) -> str:
    name = _name_of(kind)
    return f"`{key}`: {name}" if name == kind["title"] else f"`{key}: {{name: {name}}}`"


def _meaning(node: Node) -> str:
    return " ".join(node.get("description", "").split()).replace("|", r"\|")


def _or(words: Sequence[str]) -> str:
    return " or ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


def _anchor(key: str) -> str:
    """Return the anchor of a key's heading on GitHub."""
    return re.sub(r"[^\w-]", "", key)


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str) and value:
        return value
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return written.removesuffix("...\n").strip()


if __name__ == "__main__":
    print(text(), end="")
