"""Listings read into datasets: every unit is read once, then the result is checked."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from data.indexing.journal import JOURNAL, Journal, keys_digest
from data.indexing.listing import ExpectedCounts, Listing
from data.indexing.paths import SHOWN, printable, shown
from data.indexing.unit import BadImage, ReadingUnit, UnitContent
from data.indexing.workers import work_off
from pipeline.dataset.hold_out import held_out
from pipeline.dataset.samples import Samples, concatenate
from pipeline.dataset.writing import Dataset
from pipeline.system.command import plural
from pipeline.system.progress import byte_progress

FEW_BYTES = 32_000_000
"""Reading at most this takes less time than starting other processes, and needs no journal."""
LABEL_LIMIT = 1_000_000
"""Higher labels are mistakes: a network has an output for each label."""
VALIDATION = "validation"
"""The salt that decides which images become validation images."""


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """Which sources are accepted, and how they are read."""

    workers: int
    skip_bad: bool
    partial: bool
    decode: bool = False

    @staticmethod
    def of(arguments: Namespace) -> "ReadingOptions":
        """Return the values of what `add_reading_arguments` added."""
        return ReadingOptions(
            arguments.workers, arguments.skip_bad, arguments.partial, arguments.decode
        )


def request_of(listing: Listing, options: ReadingOptions) -> dict[str, Any]:
    """Return the request as data: the same request gives the same dataset."""
    return {
        "source": listing.name,
        "root": listing.root,
        "units": {split: keys_digest(units) for split, units in listing.splits.items()},
        "classes": listing.classes and list(listing.classes),
        "class_names": list(listing.class_names),
        "skip_bad": options.skip_bad,
        "partial": options.partial,
        **({"val_fraction": listing.val_fraction} if listing.val_fraction else {}),
        **({"decode": True} if options.decode else {}),
    }


def read_listing(listing: Listing, options: ReadingOptions, *, out: Path) -> Dataset:
    """Read everything and return the dataset.

    Raises `ValueError` for all bad images together, unless they are to be left out; for a split
    without images; and, unless `partial` is set, for classes without a training image and for
    unexpected counts.
    """
    units = [unit for units in listing.splits.values() for unit in units]
    contents = iter(read_units(units, out=out, workers=options.workers))
    parts = {split: list(islice(contents, len(units))) for split, units in listing.splits.items()}
    bad = [image for part in chain.from_iterable(parts.values()) for image in part.bad]
    splits = {split: _joined(each) for split, each in parts.items()}
    if bad and not options.skip_bad:
        raise ValueError(refusal(bad, total=len(bad) + sum(map(len, splits.values()))))
    if listing.val_fraction:
        splits = _divided(splits["train"], listing.val_fraction)
    _require_images(listing.name, splits)
    classes = listing.classes or _numbered(splits)
    ignored = Counter[str]()
    for part in chain.from_iterable(parts.values()):
        ignored.update(part.ignored)
    notes = [*listing.notes, *_ignored(ignored), *([left_out(bad)] if bad else [])]
    differences = empty_classes(splits, classes)
    differences += _other_counts(listing.expected, splits, classes)
    if differences and not options.partial:
        raise ValueError(f"{'; '.join(differences)}; accept this with --partial")
    return Dataset(
        name=listing.name,
        classes=classes,
        root=listing.root,
        splits=splits,
        class_names=listing.class_names,
        notes=(*notes, *differences),
        request=request_of(listing, options),
    )


def read_units(units: Sequence[ReadingUnit], *, out: Path, workers: int) -> list[UnitContent]:
    """Return the content of each unit, in their order; an earlier attempt is continued.

    The journal stays in `out` until `forget_journal`.
    """
    total = sum(unit.size for unit in units)
    if total <= FEW_BYTES:
        return [unit.read() for unit in units]
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / JOURNAL) as journal:
        contents = {at: known for at, unit in enumerate(units) if (known := journal.find(unit))}
        already = sum(units[at].size for at in contents)
        todo = [at for at in range(len(units)) if at not in contents]
        workers = min(workers, len(todo))
        # Units larger than a worker's share come first: otherwise all would wait for them.
        todo.sort(key=lambda at: units[at].size * workers < total - already)
        results = work_off(_read, [units[at] for at in todo], workers=workers)
        with (
            byte_progress("reading", total=total, already=already) as advance,
            closing(results),
        ):
            for place, content in results:
                at = todo[place]
                journal.keep(units[at], content)
                contents[at] = content
                advance(units[at].size)
    return [contents[at] for at in range(len(units))]


def _read(unit: ReadingUnit) -> UnitContent:
    return unit.read()


def _joined(parts: Iterable[UnitContent]) -> Samples:
    return concatenate([part.samples for part in parts])


def _divided(samples: Samples, fraction: float) -> dict[str, Samples]:
    is_val = held_out(samples.labels, samples.digests, fraction=fraction, salt=VALIDATION)
    if len(samples) and not is_val.any():
        raise ValueError(
            "no class has two different images, so none can be held out; give validation images"
        )
    return {"train": samples.only(~is_val), "val": samples.only(is_val)}


def _require_images(name: str, splits: Mapping[str, Samples]) -> None:
    empty = [split for split, samples in splits.items() if not len(samples)]
    if empty:
        raise ValueError(f"{name}: no images for {' and '.join(empty)}; check what was given")


def _numbered(splits: Mapping[str, Samples]) -> tuple[str, ...]:
    highest = max(int(samples.labels.max()) for samples in splits.values())
    if highest >= LABEL_LIMIT:
        raise ValueError(f"label {highest} is not below {LABEL_LIMIT:,}; name the classes")
    return tuple(str(label) for label in range(highest + 1))


def empty_classes(splits: Mapping[str, Samples], classes: Sequence[str]) -> list[str]:
    """Return a sentence about the classes without a training image, if there are any."""
    used: set[int] = set(np.unique(splits["train"].labels).tolist()) if "train" in splits else set()
    empty = [name for label, name in enumerate(classes) if label not in used]
    if not empty:
        return []
    verb = "has" if len(empty) == 1 else "have"
    return [f"{plural(len(empty), 'class', 'classes')} {verb} no training image: {shown(empty)}"]


def _other_counts(
    expected: ExpectedCounts | None, splits: Mapping[str, Samples], classes: Sequence[str]
) -> list[str]:
    if expected is None:
        return []
    differences = [
        f"{split} has {plural(len(samples), 'image')}, but {expected.name} has {wanted:,}"
        for split, samples in splits.items()
        if len(samples) != (wanted := expected.images[split])
    ]
    if len(classes) != expected.classes:
        found = plural(len(classes), "class", "classes")
        differences.append(f"{found}, but {expected.name} has {expected.classes:,}")
    return differences


def refusal(bad: Sequence[BadImage], *, total: int) -> str:
    """Return the message that refuses bad images."""
    return (
        f"{len(bad):,} of {plural(total, 'image')} cannot be used:\n{_listed(bad)}\n"
        "repair or remove them, or leave them out with --skip-bad"
    )


def _ignored(endings: Counter[str]) -> Iterator[str]:
    if endings:
        kinds = [f"{count:,} {ending}" for ending, count in endings.most_common()]
        files = plural(endings.total(), "file")
        yield f"{files} ignored, neither images nor labels: {shown(kinds)}"


def left_out(bad: Sequence[BadImage]) -> str:
    """Return the note about bad images that were left out."""
    return f"{plural(len(bad), 'bad image')} left out:\n{_listed(bad)}"


def _listed(bad: Sequence[BadImage]) -> str:
    lines = [f"  {printable(image.path)}: {printable(image.reason)}" for image in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN:,} more")
    return "\n".join(lines)
