"""A group of parameters laid end to end, padded, and cut into equal parts, one for each rank.

That is how ZeRO stages 1 and 2 keep the optimiser's state; here it is put together and cut again.
"""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.distributed.world import World


class ParameterPartition:
    """This rank's part of what is laid out like `parameters`."""

    def __init__(self, parameters: Sequence[torch.Tensor], own: nn.Parameter, world: World) -> None:
        """`own` is this rank's part (flat) of the parameters that the optimiser works on."""
        self.own = own
        self._shapes = [parameter.shape for parameter in parameters]
        self._sizes = [parameter.numel() for parameter in parameters]
        self._world = world
        self._padding = own.numel() * world.size - sum(self._sizes)
        assert self._padding >= 0, "the parts are too small for the whole"

    def gather(self, part: torch.Tensor) -> list[torch.Tensor]:
        """Put the ranks' parts together, each like `own`, to tensors like the parameters.

        A collective; every rank gets all of them.
        """
        parts = part.new_zeros(self._world.size, part.numel())
        parts[self._world.rank] = part
        whole = self._world.all_reduce_sum_(parts).flatten()
        pieces = torch.split(whole, [*self._sizes, self._padding])
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=False)]

    def cut(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return this rank's part of `tensors`, which are like the parameters."""
        assert [tensor.shape for tensor in tensors] == self._shapes, "these are other parameters"
        padding = self.own.new_zeros(self._padding)
        whole = torch.cat([*(tensor.to(padding).flatten() for tensor in tensors), padding])
        return whole.chunk(self._world.size)[self._world.rank]
