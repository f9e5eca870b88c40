"""Text for people: what may go to a terminal, and numbers at any scale."""

UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3))


def printable(text: str) -> str:
    r"""Return `text` with its control characters visible, as in \x1b; newlines and tabs stay.

    Logs, file names and error messages may contain anything; a terminal would obey it.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it: 1.5 KB, 144.0 GB."""
    unit, scale = _unit(count)
    return f"{count / scale:,.1f} {unit}"


def share(done: float, total: float) -> str:
    """Return how many of `total` bytes are done, in the unit that suits the total."""
    unit, scale = _unit(total)
    return f"{done / scale:,.1f} of {total / scale:,.1f} {unit}"


def _unit(count: float) -> tuple[str, float]:
    return next((each for each in UNITS if count >= each[1]), UNITS[-1])


def rate(value: float) -> str:
    """Return a speed, such as images per second: 1,234 or 12, but 9.87 and 0.35."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2f}"
