"""What the command line changed in a recipe, in short, for a run's name: `resnet18_lr=0.2`."""

import re
from collections.abc import Mapping, Sequence

Flat = Mapping[str, str | int | float | bool]
"""Dotted keys and their values."""

UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
PATHS = ("data.dir",)
LONGEST = 48
"""Characters of a variant; further changes are only counted."""
LONGEST_VALUE = 24


def describe_variant(before: Flat, after: Flat, keys: Sequence[str], former: str | None) -> str:
    """Return the changes from `before` to `after` in `keys`, after those of a `former` variant.

    Both have only what decides the result. Without a change it is the former one, or empty.
    """
    changed = [key for key in keys if key in after and _shown(key, before) != _shown(key, after)]
    parts = [
        value if key.endswith(".name") else f"{word}={value}"
        for key, word in zip(changed, short_keys(changed), strict=True)
        if (value := UNSAFE.sub("-", _shown(key, after)).strip("-.")[:LONGEST_VALUE])
    ]
    if not parts:
        return former or ""
    return _joined([part[:LONGEST] for part in (former or "", *parts) if part])


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the last word of each key, or the whole key if several end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    short = (word if last.count(word) == 1 else key for word, key in zip(last, keys, strict=True))
    return [re.sub(r"[^A-Za-z0-9_.-]", "-", word) for word in short]


def _shown(key: str, settings: Flat) -> str:
    """Return a value as text; of a path, only the last folder, so that moving it is no change."""
    match settings.get(key):
        case None:
            return ""
        case bool() as truth:
            return str(truth).lower()
        case float() as number:
            return f"{number:.6g}"
        case value if key in PATHS:
            return str(value).rstrip("/").rpartition("/")[2]
        case value:
            return str(value)


def _joined(parts: Sequence[str]) -> str:
    """Join as many parts as fit, and count the others: `resnet18_lr=0.2_+3`."""
    kept = [
        part for place, part in enumerate(parts) if len("_".join(parts[: place + 1])) <= LONGEST
    ]
    more = len(parts) - len(kept)
    return "_".join([*kept, *([f"+{more}"] if more else [])])
