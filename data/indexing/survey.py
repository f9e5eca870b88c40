"""Surveys carried out: read all units, hold the result against what was promised."""

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data.indexing.source import Promise, Survey
from data.indexing.units import BadImage, Found, keys_digest, read_units
from pipeline.dataset.samples import Samples, concatenate
from pipeline.dataset.writing import Dataset

SHOWN = 10
LABEL_LIMIT = 1_000_000
"""A network has an output for each label: higher ones are mistakes, where no classes are named."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is accepted, and how it is read."""

    workers: int
    skip_bad: bool
    partial: bool

    @staticmethod
    def of(arguments: Namespace) -> "Rules":
        """Take the rules from what `add_reading_arguments` added."""
        return Rules(arguments.workers, arguments.skip_bad, arguments.partial)


def request_of(survey: Survey, rules: Rules) -> dict[str, Any]:
    """Say what is asked for: of the same request comes the same dataset."""
    return {
        "source": survey.name,
        "root": survey.root,
        "units": {split: keys_digest(units) for split, units in survey.splits.items()},
        "classes": survey.classes and list(survey.classes),
        "class_names": list(survey.class_names),
        "skip_bad": rules.skip_bad,
        "partial": rules.partial,
    }


def carry_out(survey: Survey, rules: Rules, *, out: Path) -> Dataset:
    """Read everything and return the dataset.

    Raise `ValueError` for bad images, all at once, unless they are to be left out; for a split
    without images; for classes without a training image and for counts that are not those promised,
    unless a part will do.
    """
    units = [unit for units in survey.splits.values() for unit in units]
    results = iter(read_units(units, out=out, workers=rules.workers))
    found = {split: list(islice(results, len(units))) for split, units in survey.splits.items()}
    bad = [image for parts in found.values() for part in parts for image in part.bad]
    splits = {split: _joined(parts) for split, parts in found.items()}
    if bad and not rules.skip_bad:
        raise ValueError(_refusal(bad, total=len(bad) + sum(map(len, splits.values()))))
    _require_images(survey.name, splits)
    classes = survey.classes or _numbered(splits)
    notes = [*survey.notes, *([_left_out(bad)] if bad else [])]
    differences = [*_empty_classes(splits, classes), *_broken(survey.promise, splits, classes)]
    if differences and not rules.partial:
        raise ValueError(f"{'; '.join(differences)}; accept a part with --partial")
    notes += differences
    return Dataset(
        name=survey.name,
        classes=classes,
        root=survey.root,
        splits=splits,
        class_names=survey.class_names,
        notes=tuple(notes),
        request=request_of(survey, rules),
    )


def shown(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(map(_printable, names[:SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def _printable(name: str) -> str:
    """Return a name that cannot break lines or steer a terminal."""
    return name if name.isprintable() else ascii(name)


def _joined(parts: Iterable[Found]) -> Samples:
    return concatenate([part.samples for part in parts])


def _require_images(name: str, splits: Mapping[str, Samples]) -> None:
    empty = [split for split, samples in splits.items() if not len(samples)]
    if empty:
        raise ValueError(f"{name}: {' and '.join(empty)} without an image; check what was given")


def _numbered(splits: Mapping[str, Samples]) -> tuple[str, ...]:
    highest = max(int(samples.labels.max()) for samples in splits.values())
    if highest >= LABEL_LIMIT:
        raise ValueError(f"label {highest} is not below {LABEL_LIMIT:,}; name the classes")
    return tuple(str(label) for label in range(highest + 1))


def _empty_classes(splits: Mapping[str, Samples], classes: Sequence[str]) -> list[str]:
    held: set[int] = set(np.unique(splits["train"].labels).tolist()) if "train" in splits else set()
    empty = [name for label, name in enumerate(classes) if label not in held]
    return [f"{len(empty):,} classes have no training image: {shown(empty)}"] if empty else []


def _broken(
    promise: Promise | None, splits: Mapping[str, Samples], classes: Sequence[str]
) -> list[str]:
    if promise is None:
        return []
    found = {f"{split} images": len(samples) for split, samples in splits.items()}
    wanted = {f"{split} images": promise.images[split] for split in splits}
    found["classes"], wanted["classes"] = len(classes), promise.classes
    return [
        f"{found[what]:,} {what}, where {promise.name} has {wanted[what]:,}"
        for what in found
        if found[what] != wanted[what]
    ]


def _refusal(bad: Sequence[BadImage], *, total: int) -> str:
    return (
        f"{len(bad):,} of {total:,} images cannot be used:\n{_listed(bad)}\n"
        "repair or remove them, or leave them out with --skip-bad"
    )


def _left_out(bad: Sequence[BadImage]) -> str:
    return f"{len(bad):,} bad images left out:\n{_listed(bad)}"


def _listed(bad: Sequence[BadImage]) -> str:
    lines = [f"  {_printable(image.path)}: {_printable(image.reason)}" for image in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN:,} more")
    return "\n".join(lines)
