"""The event file of a run: one line of JSON per event, appended as it happens.

It is the primary and permanent record of a run; everything else that shows the run reads this file.
"""

import dataclasses
import json
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from pipeline.system import patience
from pipeline.system.output import print_warning
from pipeline.system.patience import may_pass
from pipeline.system.secrets import hide_secrets
from pipeline.tracking.events import Event

METRICS = "metrics.jsonl"
PENDING_LINES = 100_000
"""Lines kept in memory while the disk is full: about 30 MB, or days of training."""
READ_BYTES = 1 << 20

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


_FLOAT_FIELDS: dict[str, tuple[str, ...]] = {
    event.kind: tuple(f.name for f in dataclasses.fields(event) if f.type is float)
    for event in Event.__args__
}


class Jsonl:
    """Appends every event to a file, each as one line in one write.

    Neither `on_event` nor closing raises. While the disk fails, lines wait in memory; the first
    write that succeeds writes them, in order. Closing waits for that, unless the disk has been
    failing for PATIENCE_SECONDS. NaN and infinities are written as the strings "NaN",
    "Infinity" and "-Infinity", because JSON numbers cannot express them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._pending: deque[bytes] = deque()
        self._failure: OSError | None = None
        """The first error since the last successful write."""
        self._failed_at = 0.0

    def __enter__(self) -> Self:
        self._flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        deadline = self._failed_at + patience.PATIENCE_SECONDS
        while self._failure and may_pass(self._failure) and time.monotonic() < deadline:
            time.sleep(patience.RETRY_SECONDS)
            self._flush()
        if self._pending:
            print_warning(f"{len(self._pending)} events could not be written to {self._path}")
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def on_event(self, event: Event) -> None:
        """Append `event` with the current time."""
        self._pending.append(_line(event, time.time()))
        if len(self._pending) > PENDING_LINES:
            del self._pending[1]  # not [0]: part of it may be in the file already
        self._flush()

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = self._open()
            while self._pending:
                written = os.write(self._file, self._pending[0])
                if written == len(self._pending[0]):
                    self._pending.popleft()
                else:  # a disk that fills up takes only the beginning; the rest follows later
                    self._pending[0] = self._pending[0][written:]
            self._failure = None
        except OSError as error:
            if self._failure is None:
                self._failure, self._failed_at = error, time.monotonic()
                print_warning(
                    f"{self._path}: {error}; events are kept in memory until it can be written"
                )

    def _open(self) -> int:
        """Open for appending; end an incomplete last line, so that it cannot damage the next."""
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            self._pending.appendleft(b"\n")
        return file


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Yield, for each line after byte `offset`, its event, None if incomplete, and its end.

    A last line without a newline is still being written and is not yielded.
    """
    with path.open("rb", buffering=READ_BYTES) as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _parse(line), offset


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of the file as dicts, in order; incomplete lines are skipped."""
    for event, _ in read_lines(path):
        if event is not None:
            yield event


def _line(event: Event, now: float) -> bytes:
    record = {"event": event.kind, "time": round(now, 6)}
    record |= {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    return json.dumps(_json_value(record), allow_nan=False, default=str).encode() + b"\n"


def _json_value(value: object) -> object:
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        return {str(key): _json_value(entry) for key, entry in entries.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in cast("list[object]", value)]
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or "event" not in record or "time" not in record:
        return None
    event = cast("dict[str, Any]", record)
    for name in _FLOAT_FIELDS.get(str(event["event"]), ()):
        if event.get(name) in _NOT_FINITE:
            event[name] = float(event[name])
    return event
