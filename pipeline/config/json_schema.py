"""The configuration as JSON Schema, with which editors complete, explain and check recipes.

`python -m pipeline.config.json_schema > configs/schema.json` writes the committed copy.
"""

import json
from typing import Any, cast

from pydantic import TypeAdapter

from pipeline.config.schema import Config


def json_schema() -> dict[str, Any]:
    """Return JSON Schema (draft 2020-12) of a configuration file, described by docstrings."""
    schema: dict[str, Any] = TypeAdapter(Config).json_schema()
    for choice in _choices(schema):
        # Without a name, an editor cannot know which of the choices it is looking at.
        definition = schema["$defs"][choice]
        definition["required"] = ["name", *definition.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def text() -> str:
    """Return the contents of configs/schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _choices(node: Any) -> set[str]:
    """Return the definitions that a `name` chooses among, anywhere in the schema."""
    if isinstance(node, list):
        return {name for item in cast("list[Any]", node) for name in _choices(item)}
    if not isinstance(node, dict):
        return set()
    mapping = cast("dict[str, Any]", node)
    found = {name for item in mapping.values() for name in _choices(item)}
    targets = mapping.get("discriminator", {}).get("mapping", {}).values()
    return found | {target.rsplit("/", 1)[-1] for target in targets}


if __name__ == "__main__":
    print(text(), end="")
