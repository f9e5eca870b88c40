"""Names of networks and what they mean, free of torch so that a config loads in milliseconds."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Family = Literal["resnet", "preact_resnet", "cifar_resnet", "cifar_plain"]

IMAGENET_DEPTHS: dict[Family, tuple[int, ...]] = {
    "resnet": (18, 34, 50, 101, 152),
    "preact_resnet": (18, 34, 50, 101, 152, 200),
}
CIFAR_FAMILIES: tuple[Family, ...] = ("cifar_resnet", "cifar_plain")
CIFAR_PAPER_DEPTHS = (20, 32, 44, 56, 110, 1202)
"""He et al. 2015, table 6; any other depth of the form 6n+2 is accepted too."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family of networks and a depth in weighted layers."""

    family: Family
    depth: int

    @property
    def name(self) -> str:
        return f"{self.family}{self.depth}"

    @staticmethod
    def parse(name: str) -> "Architecture":
        """Return the architecture called `name`; raise `ValueError` with the nearest names."""
        match = re.fullmatch(r"([a-z_]+?)([1-9]\d*)", name)
        family, depth = (match[1], int(match[2])) if match else ("", 0)
        for imagenet, depths in IMAGENET_DEPTHS.items():
            if family == imagenet and depth in depths:
                return Architecture(imagenet, depth)
        for cifar in CIFAR_FAMILIES:
            if family == cifar and depth >= 8 and depth % 6 == 2:
                return Architecture(cifar, depth)
            if family == cifar:
                nearest = 6 * max(1, round((depth - 2) / 6)) + 2
                raise ValueError(f"depth {depth} is not 6n+2; did you mean {cifar}{nearest}?")
        raise ValueError(_unknown(name))


def published_names() -> list[str]:
    """Every name that a paper or torchvision reports a result for."""
    imagenet = [
        f"{family}{depth}" for family, depths in IMAGENET_DEPTHS.items() for depth in depths
    ]
    cifar = [f"{family}{depth}" for family in CIFAR_FAMILIES for depth in CIFAR_PAPER_DEPTHS]
    return imagenet + cifar


def _unknown(name: str) -> str:
    names = published_names()
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    near += [known for known in names if known.endswith(f"_{name}") and known not in near]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"no network is called {name!r}; {hint}"
