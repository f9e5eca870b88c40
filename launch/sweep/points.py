"""The points of a sweep: one training for each combination of some settings.

RUNS_DIR/NAME-sweep-ID contains a run folder for each point, and sweep.json. NAME ends with what the
command line changed for all points, as a run's does. ID is a hash of the settings that decide the
results, so the same command finds the same sweep again.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.config.identity import result_identity
from pipeline.config.load import ConfigError, dump, load
from pipeline.config.schema import Config
from pipeline.config.variant import short_keys
from pipeline.runs.find import SWEEP
from pipeline.runs.folder import RESULT
from pipeline.system.durable import write_whole
from pipeline.system.secrets import hide_secret

OURS = ("name", "runs_dir", "run_dir", "tracking.group")
"""Settings that the sweep sets itself, or that are the same for all points."""
UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
VALUE_LENGTH = 40
NAME_LENGTH = 200
BRACKETS = {"[": "]", "{": "}", "(": ")"}
SETTINGS = TypeAdapter(dict[str, dict[str, str]])


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and its values, as they were written."""

    key: str
    values: list[str]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One training of a sweep."""

    name: str
    """The name of its folder: lr=0.1_seed=0."""
    settings: dict[str, str]
    config: Config

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.settings.items()]

    @property
    def run_dir(self) -> Path:
        assert self.config.run_dir is not None, "a point has a folder"
        return self.config.run_dir

    @property
    def is_finished(self) -> bool:
        return (self.run_dir / RESULT).exists()


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points, in the order of the command; the last setting changes fastest."""

    folder: Path
    points: list[SweepPoint]

    @property
    def unfinished(self) -> list[SweepPoint]:
        return [point for point in self.points if not point.is_finished]

    def save(self) -> None:
        """Write sweep.json: which folder has which settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {point.name: point.settings for point in self.points}
        write_whole(self.folder / SWEEP, SETTINGS.dump_json(settings, indent=2) + b"\n")


def plan_sweep(
    config: Path,
    overrides: Sequence[str],
    sweeps: Sequence[str],
    note: Callable[[str], None] = lambda _: None,
) -> Sweep:
    """Return the sweep of `sweeps`, each KEY=VALUE,VALUE,...; writes nothing.

    `note` gets what `load` notes, once for all points.

    Raises `ValueError` with the name of the first wrong point.
    """
    axes = read_axes(sweeps)
    expect_once([axis.key for axis in axes], overrides)
    notes = list[str]()
    points = [
        SweepPoint(name, settings, load_point(config, overrides, name, settings, notes.append))
        for name, settings in name_points(axes)
    ]
    for text in dict.fromkeys(notes):
        note(text)
    expect_different(points)
    first = points[0].config
    identity = [text for each in points for text in (each.name, dump(result_identity(each.config)))]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:6]
    folder = (first.runs_dir / f"{_title(config, overrides, first)}-sweep-{digest}").resolve()
    return Sweep(folder, [_place(point, folder) for point in points])


def read_axes(sweeps: Sequence[str]) -> list[Axis]:
    """Parse each KEY=VALUE,VALUE,...; raise `ValueError` for a malformed one."""
    axes: list[Axis] = []
    for text in sweeps:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise ValueError(f"--sweep {text}: write KEY=VALUE,VALUE,... as in optim.lr=0.1,0.2")
        split = split_values(values)
        if not all(split):
            raise ValueError(
                f"--sweep {text}: a value is empty; write one on each side of every comma"
            )
        if key in OURS:
            raise ValueError(
                f"--sweep {text}: {key} is the same for all points; sweep another setting"
            )
        axes.append(Axis(key, split))
    return axes


def split_values(text: str) -> list[str]:
    """Split at the commas that are not inside brackets or quotes."""
    parts, closing, quote = [""], list[str](), ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and (closing or not parts[-1].strip()):
            quote = character
        elif character in BRACKETS:
            closing.append(BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            parts.append("")
            continue
        parts[-1] += character
    if quote or closing:
        raise ValueError(f"--sweep {text}: {quote or closing[-1]} is missing")
    return [part.strip() for part in parts]


def expect_once(keys: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise `ValueError` if a setting is swept twice, or both swept and set."""
    set_once = [override.partition("=")[0].strip() for override in overrides]
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise ValueError(f"--sweep {key} is given twice; list all of its values at once")
        if key in set_once:
            raise ValueError(f"{key} is both set and swept; remove one")
    for key in ("run_dir", "tracking.group"):
        if key in set_once:
            raise ValueError(f"{key} cannot be set: the sweep sets it itself; remove it")


def name_points(axes: Sequence[Axis]) -> list[tuple[str, dict[str, str]]]:
    """Return the name of each point, which is unique and safe for a folder, and its settings."""
    words = short_keys([axis.key for axis in axes])
    labelled = [list(zip(_labels(axis), axis.values, strict=True)) for axis in axes]
    points: list[tuple[str, dict[str, str]]] = []
    for chosen in product(*labelled):
        pairs = zip(words, chosen, strict=True)
        name = "_".join(f"{word}={label}" for word, (label, _) in pairs)
        if len(name) > NAME_LENGTH:
            raise ValueError(f"{name} is too long for a folder name; sweep fewer settings")
        values = (value for _, value in chosen)
        points.append((name, dict(zip((axis.key for axis in axes), values, strict=True))))
    return points


def load_point(
    config: Path,
    overrides: Sequence[str],
    name: str,
    settings: dict[str, str],
    note: Callable[[str], None],
) -> Config:
    """Return the configuration of a point; raise `ValueError` with its name if it is invalid."""
    try:
        swept = [f"{key}={value}" for key, value in settings.items()]
        return load(config, [*overrides, *swept], note)
    except ConfigError as error:
        raise ValueError(f"{name}: {error}") from error


def expect_different(points: Sequence[SweepPoint]) -> None:
    """Raise `ValueError` if two points have the same configuration."""
    known: dict[str, str] = {}
    for point in points:
        before = known.setdefault(dump(point.config), point.name)
        if before != point.name:
            raise ValueError(f"{point.name} is the same training as {before}; remove one value")


def read_settings(folder: Path) -> dict[str, dict[str, str]]:
    """Return the settings of each point of the sweep in `folder`, by name."""
    return SETTINGS.validate_json((folder / SWEEP).read_bytes())


def _place(point: SweepPoint, folder: Path) -> SweepPoint:
    tracking = replace(point.config.tracking, group=folder.name)
    config = replace(point.config, run_dir=folder / point.name, tracking=tracking)
    return replace(point, config=config)


def _title(config: Path, overrides: Sequence[str], first: Config) -> str:
    """Return the name of a sweep: what its settings have in common, without the swept ones."""
    try:
        return load(config, overrides).title
    except ConfigError:  # it needs a swept setting
        return first.name


def _labels(axis: Axis) -> list[str]:
    """Return a different word for each value."""
    words = [_word(hide_secret(axis.key, value)) for value in axis.values]
    return [
        word if word and words.count(word) == 1 else f"{word}-{place}"
        for place, word in enumerate(words)
    ]


def _word(value: str) -> str:
    sign = "-" if value.startswith("-") else ""
    return sign + UNSAFE.sub("-", value).strip("-.")[:VALUE_LENGTH]
