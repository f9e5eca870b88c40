"""Which machines have a wrong clock, judged by the others."""

from collections.abc import Mapping
from statistics import median

MOST_SECONDS = 2.0
"""Clocks further apart make the times of files and reports misleading."""


def wrong_clocks(ahead: Mapping[str, float]) -> list[str]:
    """Return a sentence for each wrong clock; `ahead` is how far each node's is ahead, in seconds.

    The first node of `ahead` is the one that the others were compared with.
    """
    # With two nodes, nothing says which of them is right.
    first, usual = next(iter(ahead), ""), median(ahead.values()) if len(ahead) > 2 else 0.0
    others = "the other nodes" if len(ahead) > 2 else f"that of {first}"
    off = {node: seconds - usual for node, seconds in ahead.items()}
    return [
        f"the clock of {node} is {abs(seconds):,.1f} s {'ahead of' if seconds > 0 else 'behind'}"
        f" {others}: the times of its files and reports are misleading; synchronize it (NTP)"
        for node, seconds in off.items()
        if abs(seconds) > MOST_SECONDS
    ]
