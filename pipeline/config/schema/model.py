"""The section `model`: which network, and how it starts. Its name chooses one of the families."""

from dataclasses import InitVar
from typing import Annotated, Any, ClassVar, TypeAlias, cast

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator

from pipeline.config.catalogue import Family, depth_of, family_of, published_names
from pipeline.config.schema.section import Count, section

ZeroInitLast = Annotated[
    bool,
    Field(
        description="Each residual branch starts at zero (Goyal et al. 2017, arXiv 1706.02677, "
        "sec. 5.1): its last batch norm, or its last convolution in a pre-activation network."
    ),
]
BatchNormGroup = Annotated[
    Count | None,
    Field(
        description="Images that share batch-norm statistics; by default all of a rank's micro "
        "batch. Set it where results must not depend on the number of ranks."
    ),
]


def _listed(family: Family) -> WithJsonSchema:
    """Let an editor complete the names of `family`, and refuse all others."""
    return WithJsonSchema({"type": "string", "enum": published_names(family)})


def _of_any_depth(family: Family) -> WithJsonSchema:
    """Let an editor complete the published names of `family`, and accept every depth."""
    choices = [{"enum": published_names(family)}, {"pattern": f"^{family}[1-9][0-9]*$"}]
    return WithJsonSchema({"type": "string", "anyOf": choices})


@section
class _Network:
    family: ClassVar[Family]
    name: str

    @field_validator("name")
    @classmethod
    def _is_in_family(cls, name: str) -> str:
        depth_of(name)  # first, because it reports the nearest names
        if family_of(name) != cls.family:
            raise ValueError(f"{name} is not a {cls.family}")
        return name

    @property
    def depth(self) -> int:
        """Weighted layers: convolutions outside shortcuts, and the linear layer."""
        return depth_of(self.name)


@section
class ResNet(_Network):
    """A residual network for ImageNet (He et al. 2015, arXiv 1512.03385, table 1)."""

    family: ClassVar[Family] = "resnet"
    name: Annotated[str, _listed("resnet")]
    """resnet18, 34, 50, 101 or 152; other families: preact_resnet50, cifar_resnet20 ..."""
    zero_init_last: ZeroInitLast = True
    batch_norm_group: BatchNormGroup = None


@section
class PreactResNet(_Network):
    """A pre-activation residual network for ImageNet (He et al. 2016, arXiv 1603.05027)."""

    family: ClassVar[Family] = "preact_resnet"
    name: Annotated[str, _listed("preact_resnet")]
    """preact_resnet18, 34, 50, 101, 152 or 200."""
    zero_init_last: ZeroInitLast = True
    batch_norm_group: BatchNormGroup = None


@section
class CifarResNet(_Network):
    """A residual network for small images, with shortcuts A (He et al. 2015, sec. 4.2)."""

    family: ClassVar[Family] = "cifar_resnet"
    name: Annotated[str, _of_any_depth("cifar_resnet")]
    """cifar_resnet and a depth of 6n+2: cifar_resnet20, 32, 44, 56, 110 and 1202 in the paper."""
    zero_init_last: ZeroInitLast = True
    batch_norm_group: BatchNormGroup = None


@section
class CifarPlain(_Network):
    """A plain network for small images: a CifarResNet without shortcuts (sec. 4.2)."""

    family: ClassVar[Family] = "cifar_plain"
    name: Annotated[str, _of_any_depth("cifar_plain")]
    """cifar_plain and a depth of 6n+2: cifar_plain20, 32, 44 and 56 in the paper."""
    zero_init_last: InitVar[bool] = True
    """Accepted without effect, and not saved, so that a recipe can switch between cifar_resnet and
    cifar_plain: without a shortcut, a branch that starts at zero lets nothing through."""
    batch_norm_group: BatchNormGroup = None


def _choose(value: Any) -> Family:
    """Return the family that a `model` belongs to; its validation reports what is wrong."""
    if isinstance(value, _Network):
        return value.family
    name = cast("dict[str, Any]", value).get("name") if isinstance(value, dict) else None
    return (family_of(name) if isinstance(name, str) else None) or ResNet.family


Model: TypeAlias = Annotated[
    Annotated[ResNet, Tag(ResNet.family)]
    | Annotated[PreactResNet, Tag(PreactResNet.family)]
    | Annotated[CifarResNet, Tag(CifarResNet.family)]
    | Annotated[CifarPlain, Tag(CifarPlain.family)],
    Discriminator(_choose),
]
"""One of the families, chosen by its name."""

_KINDS: dict[Family, type[ResNet | PreactResNet | CifarResNet | CifarPlain]] = {
    kind.family: kind for kind in (ResNet, PreactResNet, CifarResNet, CifarPlain)
}


def model_named(name: str, **settings: Any) -> Model:
    """Return the section `model` of a network: `model_named("resnet50", zero_init_last=False)`.

    Raises `ValueError` with the nearest names if no network is called `name`.
    """
    return _KINDS[_choose({"name": name})](name=name, **settings)
