"""The ends of logs."""

from pathlib import Path

TAIL_BYTES = 64_000


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log; nothing if it cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
