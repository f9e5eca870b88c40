"""Keys of the configuration that were renamed; files and overrides may still use the former name.

A key that is renamed keeps its section.
"""

RENAMED = {
    "evaluate.rank_batch": "evaluate.batch_per_rank",
}
"""Former name -> present name, as dotted keys."""

Section = tuple[str | int, ...]
"""The keys that lead to a mapping."""


def present_name(section: Section, key: str) -> str:
    """Return the present name of a key."""
    return next((new for old, new in _renamed_in(section) if old == key), key)


def former_name(section: Section, key: str) -> str | None:
    """Return the former name of a key, or None if it was never renamed."""
    return next((old for old, new in _renamed_in(section) if new == key), None)


def _renamed_in(section: Section) -> list[tuple[str, str]]:
    split = ((old.rpartition("."), new.rpartition(".")) for old, new in RENAMED.items())
    return [(old[2], new[2]) for old, new in split if old[0] == ".".join(map(str, section))]
