"""The result of verifying, for machines (JSON) and for people (a short table)."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from data.checking.flaws import FAULTS, FINDINGS, Flaw
from data.checking.verification import Verdict
from pipeline.dataset.index import Index, Manifest
from pipeline.storage.errors import describe_fault
from pipeline.system.command import plural
from pipeline.system.text import size

FORMAT = 1
LIBRARIES = ("numpy", "nvidia-dali-cuda130", "pillow", "pyarrow", "xxhash")
SHOWN = 10


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The verdicts on all splits of a dataset."""

    folder: Path
    manifest: Manifest
    verdicts: Sequence[Verdict]
    decoded: bool
    started: datetime
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether no image and no file has a fault."""
        return all(verdict.is_sound for verdict in self.verdicts)

    @property
    def faulty_images(self) -> int:
        """Images with a fault, in all splits."""
        return sum(verdict.faulty_images for verdict in self.verdicts)

    def to_json(self) -> bytes:
        """Return all faults and findings as one JSON object."""
        content = {
            "format": FORMAT,
            "dataset": str(self.folder.absolute()),
            "name": self.manifest.name,
            "fingerprint": self.manifest.fingerprint,
            "checked": "bytes and decoding" if self.decoded else "bytes",
            "sound": self.is_sound,
            "started": self.started.astimezone(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "versions": _versions(),
            "splits": {verdict.index.split: _counts(verdict) for verdict in self.verdicts},
            "files": [
                {"split": verdict.index.split, **asdict(fault), "reason": fault.reason}
                for verdict in self.verdicts
                for fault in verdict.files
            ],
            "faults": self._by_kind(FAULTS),
            "findings": self._by_kind(FINDINGS),
        }
        return json.dumps(content, indent=1, ensure_ascii=False).encode(errors="replace") + b"\n"

    def to_text(self) -> str:
        """Return the counts, the first few faults, and the conclusion."""
        total = sum(int(verdict.index.sizes.sum()) for verdict in self.verdicts)
        images = sum(self.manifest.samples.values())
        how = "read and decoded" if self.decoded else "read"
        lines = [
            f"{self.manifest.name}, fingerprint {self.manifest.fingerprint}",
            f"{images:,} images ({size(total)}) {how} in {self.seconds:,.1f} s",
            *self._table(),
            *_first_few(self._file_lines()),
            *_first_few(self._image_lines()),
            self._conclusion(),
        ]
        return "\n".join(lines)

    def _by_kind(self, kinds: Mapping[Any, str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for verdict in self.verdicts:
            for flaw in verdict.flaws:
                if flaw.kind in found:
                    found[flaw.kind].append(_entry(verdict.index, flaw))
        return found

    def _table(self) -> Iterator[str]:
        counted = [_counts(verdict) for verdict in self.verdicts]
        heads = "".join(f"{verdict.index.split:>12}" for verdict in self.verdicts)
        yield f"{'':<12}{heads}"
        for name in ("images", "sound"):
            yield f"{name:<12}" + "".join(f"{counts[name]:>12,}" for counts in counted)
        for group, meanings in (("faults", FAULTS), ("findings", FINDINGS)):
            for kind, meaning in meanings.items():
                row = [counts[group][kind] for counts in counted]
                if any(row):
                    yield f"{kind:<12}" + "".join(f"{n:>12,}" for n in row) + f"   {meaning}"

    def _file_lines(self) -> Iterator[str]:
        for verdict in self.verdicts:
            for fault in verdict.files:
                yield f"{verdict.index.root / fault.file}: {fault.reason}"

    def _image_lines(self) -> Iterator[str]:
        for verdict in self.verdicts:
            listed = {fault.file for fault in verdict.files}
            for flaw in verdict.flaws:
                file = verdict.index.files[int(verdict.index.file_ids[flaw.sample])].as_py()
                by_file = flaw.kind in ("missing", "truncated", "replaced") and file in listed
                if flaw.is_fault and not by_file:
                    line = describe_fault(verdict.index, flaw.sample, flaw.reason)
                    yield f"{flaw.kind}: {line}"

    def _conclusion(self) -> str:
        if self.is_sound:
            return (
                "sound" if self.decoded else "sound (not decoded; add --decode to also check that)"
            )
        files = sum(len(verdict.files) for verdict in self.verdicts)
        what = [
            plural(number, noun)
            for number, noun in ((self.faulty_images, "faulty image"), (files, "damaged archive"))
            if number
        ]
        remedy = "fetch the files again"
        faults = [flaw.kind for each in self.verdicts for flaw in each.flaws if flaw.is_fault]
        if not files and set(faults) == {"wrong-size"}:
            remedy = "prepare the dataset again, with --replace"
        return (
            f"not sound: {' and '.join(what)}; {remedy}, or leave the images out with"
            " --exclude OUT (--report FILE lists all faults)"
        )


def _counts(verdict: Verdict) -> dict[str, Any]:
    index = verdict.index
    kinds = [flaw.kind for flaw in verdict.flaws]
    return {
        "root": str(index.root.absolute()),
        "files": len(index.files),
        "images": len(index),
        "bytes": int(index.sizes.sum()),
        "sound": len(index) - verdict.faulty_images,
        "faults": {kind: kinds.count(kind) for kind in FAULTS},
        "findings": {kind: kinds.count(kind) for kind in FINDINGS},
        "formats": dict(verdict.kinds.most_common()),
    }


def _entry(index: Index, flaw: Flaw) -> dict[str, Any]:
    sample = flaw.sample
    label = int(index.labels[sample])
    return {
        "split": index.split,
        "sample": sample,
        "file": index.files[int(index.file_ids[sample])].as_py(),
        "offset": int(index.offsets[sample]),
        "size": int(index.sizes[sample]),
        "label": label,
        "class": index.manifest.classes[label],
        "reason": flaw.reason,
    }


def _first_few(lines: Iterator[str]) -> list[str]:
    first = list(islice(lines, SHOWN))
    more = sum(1 for _ in lines)
    return [*first, *([f"... and {more:,} more"] if more else [])]


def _versions() -> dict[str, str]:
    libraries = {library: version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), **libraries}
