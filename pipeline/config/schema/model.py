"""The section `model`: which network, and how it starts."""

from typing import Annotated

from pydantic import AfterValidator

from pipeline.config.catalogue import Architecture
from pipeline.config.schema.section import Count, section


@section
class Model:
    """Which network, and how it starts."""

    name: Annotated[str, AfterValidator(lambda name: Architecture.parse(name).name)]
    """A name of the catalogue: resnet50, preact_resnet152, cifar_resnet20, cifar_plain56 ..."""
    zero_init_last: bool = True
    """Each residual branch starts at zero (Goyal et al. 2017, sec. 5.1): its last batch norm, or
    its last convolution in a pre-activation network."""
    batch_norm_group: Count | None = None
    """Images that share batch-norm statistics; by default all of a rank's micro batch. Fix it where
    results must not depend on the number of ranks."""

    @property
    def architecture(self) -> Architecture:
        return Architecture.parse(self.name)
