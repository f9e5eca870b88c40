"""What each family of networks is made of, by depth."""

from pipeline.config.schema import CifarPlain, CifarResNet, Model, PreactResNet, ResNet
from pipeline.models.blocks import Branch
from pipeline.models.initial_weights import DrawOrder
from pipeline.models.network import Layout
from pipeline.models.shortcuts import Shortcut

IMAGENET_WIDTHS = (64, 128, 256, 512)
"""He et al. 2015 (arXiv 1512.03385), table 1."""
IMAGENET_BLOCKS: dict[int, tuple[Branch, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
"""Branch and blocks of each stage, by depth: He et al. 2015, table 1; 200 layers are those of He et
al. 2016 (arXiv 1603.05027), table 5, as in the authors' code."""
CIFAR_WIDTHS = (16, 32, 64)
"""He et al. 2015, sec. 4.2."""


def layout_of(model: Model) -> Layout:
    """Return what the network of `model` is made of."""
    match model:
        case ResNet():
            branch, blocks = IMAGENET_BLOCKS[model.depth]
            return Layout("imagenet", IMAGENET_WIDTHS, blocks, branch, "post", "projection")
        case PreactResNet():
            branch, blocks = IMAGENET_BLOCKS[model.depth]
            return Layout("imagenet", IMAGENET_WIDTHS, blocks, branch, "pre", "projection")
        case CifarResNet():
            return _cifar(model.depth, "padding")
        case CifarPlain():
            return _cifar(model.depth, "none")


def draw_order_of(model: Model) -> DrawOrder:
    """Return the order in which the first weights of `model` are drawn."""
    match model:
        case ResNet():
            return "torchvision"
        case PreactResNet():
            return "stem_last"
        case CifarResNet() | CifarPlain():
            return "in_turn"


def starts_at_zero(model: Model) -> bool:
    """Whether the residual blocks of `model` start as their shortcuts; plain blocks have none."""
    return not isinstance(model, CifarPlain) and model.zero_init_last


def _cifar(depth: int, shortcut: Shortcut) -> Layout:
    """He et al. 2015, sec. 4.2: three stages of n blocks of two convolutions are 6n+2 layers."""
    blocks = ((depth - 2) // 6,) * len(CIFAR_WIDTHS)
    return Layout("cifar", CIFAR_WIDTHS, blocks, "basic", "post", shortcut)
