"""From a file and overrides to a valid `Config` or all its faults, and back to YAML.

`dump` writes a resolved configuration that `load` reads to an equal one; it is saved with each run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.config.identity import result_identity
from pipeline.config.kinds import drop_unfitting
from pipeline.config.messages import explain
from pipeline.config.schema import Config, Dali, Ddp, RandomResizedCrop, Shuffled
from pipeline.config.secrets import secret_faults
from pipeline.config.variant import describe_variant
from pipeline.config.yaml_document import FLOAT, INTEGER, TAG, Document, Fault, Place, show

ADAPTER = TypeAdapter(Config)
DEFAULT_KINDS = {
    "data": {
        "train": RandomResizedCrop().name,
        "order": Shuffled().name,
        "loader": Dali().name,
    },
    "engine": Ddp().name,
}
"""Unions whose settings may be given without a name, and the kind that is then used."""
BESIDE_TRAINING = ("tracking", "launch", "slurm", "env")
"""Sections that change neither the weights nor how a checkpoint is read."""


class ConfigError(ValueError):
    """All faults of a configuration, one per line: first the file's in order, then overrides'."""


def load(
    path: Path, overrides: Sequence[str] = (), note: Callable[[str], None] = lambda _: None
) -> Config:
    """Read a configuration, with `a.b=YAML` overrides.

    Types are strict: a quoted number is text, and 1.0 is not an integer. `note` gets a sentence for
    each override that drops settings of the file. Raises `ConfigError` with all faults if it is not
    valid.
    """
    document = Document(_read(path), str(path))
    faults = document.faults
    if not faults and not isinstance(document.data, dict):
        remedy = "write one `key: value` on each line, as in configs/quickstart.yaml"
        document.fault(document.values[()], (), f"is not a mapping of keys to values; {remedy}")
    if isinstance(document.data, dict):
        recipe = _validate(document) if overrides else []
        for argument in overrides:
            document.override(argument)
        dropped = drop_unfitting(document)
        faults += secret_faults(document)
        reported = {fault.place for fault in faults}
        config = _validate(document)
        if isinstance(config, Config) and not faults:
            for each in dropped:
                note(str(each))
            return _with_variant(config, recipe, document)
        if not isinstance(config, Config):
            faults += [fault for fault in config if fault.place not in reported]
    faults.sort(key=lambda fault: (fault.place.line == 0, fault.place.line, fault.place.column))
    raise ConfigError("\n".join(map(str, faults)))


def load_saved(path: Path) -> Config:
    """Read the configuration of a run or checkpoint, which an earlier version may have written.

    If it is no longer valid, sections that do not affect training get their defaults. Raises
    `ConfigError` if the rest is not valid.
    """
    try:
        return load(path)
    except ConfigError:
        return load(path, [f"{section}={{}}" for section in BESIDE_TRAINING])


def dump(config: Config) -> str:
    """Return the resolved configuration as YAML: each field, in the order of the schema."""
    return _as_yaml(_plain(config))


def dump_changes(config: Config) -> str:
    """Return what differs from the defaults as YAML, which `load` reads to an equal config."""
    changed = ADAPTER.dump_python(config, mode="json", exclude_defaults=True)
    return _as_yaml(_named(changed, _plain(config)))


def flatten(config: Config) -> dict[str, str | int | float | bool]:
    """Return {"train.epochs": 90.0, ...} for tracking; null and lists are JSON text."""
    flat: dict[str, str | int | float | bool] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in cast("dict[str, Any]", value).items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value if isinstance(value, str | int | float) else json.dumps(value)

    visit("", _plain(config))
    return flat


def _with_variant(config: Config, recipe: Config | list[Fault], document: Document) -> Config:
    """Set `variant` to what the command line changed in the recipe, unless it sets a name."""
    if not document.overridden or {("name",), ("variant",)} & document.overridden.keys():
        return config
    keys = document.keys_from_command_line()
    after = flatten(result_identity(config))
    if isinstance(recipe, Config):
        before = flatten(result_identity(recipe))
    else:  # it is not valid by itself; a key that the identity keeps decides the result
        given = flatten(config)
        before = {key: after[key] for key in after if after[key] != given.get(key)}
    variant = describe_variant(before, after, keys, config.variant)
    return replace(config, variant=variant or None)


def _validate(document: Document) -> Config | list[Fault]:
    # From JSON, pydantic's strict mode still accepts lists for tuples and text for paths.
    try:
        return ADAPTER.validate_json(json.dumps(_with_names(document.data)), strict=True)
    except ValidationError as error:
        return [explain(detail, document) for detail in error.errors(include_url=False)]


def _with_names(data: Any, kinds: str | Mapping[str, Any] = DEFAULT_KINDS) -> Any:
    """Add the default name where a union's settings have none, as in data.loader.threads=8."""
    if not isinstance(data, dict):
        return data
    settings = cast("dict[str, Any]", data)
    if isinstance(kinds, str):
        return {"name": kinds, **settings}
    named = {key: _with_names(settings[key], kinds[key]) for key in kinds if key in settings}
    return settings | named


def _named(changed: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Add the names that choose a kind, which may be the default of that kind."""
    name = {"name": whole["name"]} if "name" in whole else {}
    inner = {
        key: _named(cast("dict[str, Any]", value), whole[key]) if isinstance(value, dict) else value
        for key, value in changed.items()
    }
    return name | inner


def _as_yaml(plain: Any) -> str:
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _plain(config: Config) -> Any:
    return ADAPTER.dump_python(config, mode="json")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig")
        place = Place(str(path), before.count("\n") + 1, len(before) - before.rfind("\n"))
        byte = error.object[error.start]
        raise ConfigError(f"{place}: byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {_recipes(path.parent, path.stem)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, give a file; {_recipes(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{show(str(path))}: cannot be read: {reason}") from None


def _recipes(folder: Path, wanted: str = "") -> str:
    """List the recipes in `folder`, or else in its `configs`, with the nearest name first."""
    recipes = sorted(folder.glob("*.yaml")) or sorted((folder / "configs").glob("*.yaml"))
    if not recipes:
        missing = "has no .yaml file" if folder.is_dir() else "is not a folder"
        return f"{folder} {missing}"
    names = [recipe.name for recipe in recipes]
    near = get_close_matches(f"{wanted}.yaml", names, n=1)
    hint = f"did you mean {recipes[0].parent / near[0]}? " if wanted and near else ""
    return f"{hint}{recipes[0].parent} has: {', '.join(names)}"


class _Dumper(yaml.SafeDumper):
    """Lists on one line, and quotes around text that YAML 1.1 or 1.2 reads as something else."""


def _represent_list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(f"{TAG}seq", values, flow_style=True)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_implicit_resolver(f"{TAG}int", INTEGER, [*"-+0123456789"])
_Dumper.add_implicit_resolver(f"{TAG}float", FLOAT, [*"-+.0123456789"])
