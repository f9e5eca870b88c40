"""Names of networks: FAMILY and depth, as in resnet50. Imports no torch, so it loads fast."""

import re
from difflib import get_close_matches
from typing import Literal, get_args

Family = Literal["resnet", "preact_resnet", "cifar_resnet", "cifar_plain"]
FAMILIES: tuple[Family, ...] = get_args(Family)

IMAGENET_DEPTHS: dict[Family, tuple[int, ...]] = {
    "resnet": (18, 34, 50, 101, 152),
    "preact_resnet": (18, 34, 50, 101, 152, 200),
}
"""He et al. 2015 (arXiv 1512.03385), table 1; 200 layers: He et al. 2016 (1603.05027), table 5."""
CIFAR_PAPER_DEPTHS = (20, 32, 44, 56, 110, 1202)
"""He et al. 2015, table 6. Every other depth of the form 6n+2 is accepted, too (sec. 4.2)."""


def family_of(name: str) -> Family | None:
    """Return the family whose name stands before the depth in `name`, or None."""
    word = name.rstrip("0123456789")
    return next((family for family in FAMILIES if family == word), None)


def depth_of(name: str) -> int:
    """Return the depth of a network in weighted layers.

    Raises `ValueError` with the nearest names if no network is called `name`.
    """
    family = family_of(name)
    number = re.fullmatch(r"[a-z_]+([1-9][0-9]{0,5})", name)
    if family is None or number is None:
        raise ValueError(_unknown(name, []))
    depth = int(number[1])
    if family in IMAGENET_DEPTHS:
        fitting = IMAGENET_DEPTHS[family]
        if depth not in fitting:
            nearest = min(fitting, key=lambda other: abs(other - depth))
            raise ValueError(_unknown(name, [f"{family}{nearest}"]))
    elif depth < 8 or depth % 6 != 2:
        nearest = 6 * max(1, round((depth - 2) / 6)) + 2
        raise ValueError(f"depth {depth} is not 6n+2; did you mean {family}{nearest}?")
    return depth


def published_names(*families: Family) -> list[str]:
    """Every name, of these or all families, for which a paper or torchvision has results."""
    return [
        f"{family}{depth}"
        for family in families or FAMILIES
        for depth in IMAGENET_DEPTHS.get(family, CIFAR_PAPER_DEPTHS)
    ]


def _unknown(name: str, near: list[str]) -> str:
    names = published_names()
    near += [known for known in _elsewhere(name) if known in names and known not in near]
    near += [known for known in get_close_matches(name, names, n=3) if known not in near]
    near += [known for known in names if known.endswith(f"_{name}") and known not in near]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"no network is called {name!r}; {hint}"


def _elsewhere(name: str) -> list[str]:
    """Return what a name may mean that other libraries use: ResNet-50, resnetv2_50, preresnet50."""
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    match = re.fullmatch(r"(?P<pre>pre(act)?)?resnet(v2)?(?P<depth>\d{2,4}?)(?P<v2>v2)?", word)
    if match is None:
        return []
    is_preact = match["pre"] or "v2" in word
    return [f"{'preact_' if is_preact else ''}resnet{match['depth']}"]
