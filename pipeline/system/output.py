"""Standard output and error that survive a full disk.

Where they are files, as the logs of a job are, a full disk neither ends the program nor silences
it: lines that do not fit are left out, and the next one that fits follows a note of what is
missing.
"""

import io
import os
import stat
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class LastingFile(io.RawIOBase):
    """Writes lines to an open file, and leaves out those that do not fit; it never raises.

    An incomplete line is completed as soon as there is room. The descriptor is never closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()
        self._rest = b""
        """What is missing of an incomplete line."""
        self._lost_lines = 0
        self._failed_at: float | None = None
        """When the disk began to fail, in Unix time; None if it does not."""
        self._reason = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: "ReadableBuffer", /) -> int:
        """Write `content`, or leave out what does not fit; return its size."""
        data = bytes(content)
        with self._lock:
            if self._catch_up():
                self._write_lines(data)
            else:
                self._lost_lines += _count_lines(data)
        return len(data)

    def catch_up(self) -> None:
        """Complete an incomplete line, and write the note of what is missing, if there is room."""
        with self._lock:
            self._catch_up()

    def _catch_up(self) -> bool:
        self._rest = self._put(self._rest)
        if self._lost_lines and not self._rest:
            note = self._note()
            rest = self._put(note)
            if len(rest) < len(note):
                self._rest, self._lost_lines = rest, 0
        complete = not self._rest and not self._lost_lines
        if complete:
            self._failed_at = None
        return complete

    def _write_lines(self, data: bytes) -> None:
        """Write what fits, up to the end of a line; the rest of that line waits."""
        rest = self._put(data)
        written = data[: len(data) - len(rest)]
        if written and not written.endswith(b"\n"):
            line, end, rest = rest.partition(b"\n")
            self._rest = line + end
        self._lost_lines += _count_lines(rest)

    def _put(self, data: bytes) -> bytes:
        """Write `data`; return what does not fit."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                self._failed_at = self._failed_at or time.time()
                self._reason = error.strerror
                break
        return data

    def _note(self) -> bytes:
        lines = "1 line is" if self._lost_lines == 1 else f"{self._lost_lines:,} lines are"
        began, ended = (
            time.strftime("%H:%M:%S", time.localtime(at)) for at in (self._failed_at, time.time())
        )
        return f"[{lines} missing here, from {began} to {ended}: {self._reason}]\n".encode()


@contextmanager
def lasting_output() -> Generator[None]:
    """Let standard output and error survive a full disk during the block, if they are files."""
    before = sys.stdout, sys.stderr
    out = _file_of(sys.stdout)
    error = _file_of(sys.stderr)
    if out and error and os.path.sameopenfile(out.fileno(), error.fileno()):
        error = out  # one log: what is missing is reported once
    sys.stdout, sys.stderr = _through(out, sys.stdout), _through(error, sys.stderr)
    try:
        yield
    finally:
        for stream, file in ((sys.stdout, out), (sys.stderr, error)):
            if file:
                stream.flush()
                file.catch_up()
        sys.stdout, sys.stderr = before


def print_warning(message: str) -> None:
    """Print a warning on standard error, if that is possible."""
    with suppress(OSError, ValueError):  # the terminal was closed
        print(f"warning: {message}", file=sys.stderr, flush=True)


def _file_of(stream: TextIO) -> LastingFile | None:
    """Return a lasting file for a stream to a regular file; None for a terminal or a pipe."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or not a file at all
        return None
    return LastingFile(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _through(file: LastingFile | None, stream: TextIO) -> TextIO:
    """Return `stream`, or if it has a lasting file, a stream like it that writes there."""
    if file is None:
        return stream
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )


def _count_lines(data: bytes) -> int:
    return data.count(b"\n") + (data[-1:] not in (b"", b"\n"))
