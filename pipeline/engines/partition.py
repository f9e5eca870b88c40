"""A group of parameters laid end to end, padded, and cut into equal parts, one for each rank.

ZeRO stages 1 and 2 keep an optimiser's state that way; this file cuts and reassembles it.
"""

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.distributed.world import World

Named = Mapping[str, torch.Tensor]
"""Parameter name to tensor."""


class ParameterPartition:
    """This rank's part of a group of parameters, and of the optimiser's slots for them."""

    def __init__(self, parameters: Named, own: nn.Parameter, world: World) -> None:
        """`own` (flat) is this rank's part of `parameters`, which the optimiser updates."""
        self.own = own
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._sizes = [parameter.numel() for parameter in parameters.values()]
        self._world = world
        self._padding = own.numel() * world.size - sum(self._sizes)
        assert self._padding >= 0, "the parts are too small for the whole"

    def gather(self, part: torch.Tensor) -> dict[str, torch.Tensor]:
        """Reassemble the ranks' parts, each like `own`, into tensors like the parameters.

        A collective; every rank gets all of them.
        """
        parts = part.new_zeros(self._world.size, part.numel())
        parts[self._world.rank] = part
        whole = self._world.all_reduce_sum_(parts).flatten()
        pieces = torch.split(whole, [*self._sizes, self._padding])
        named = zip(self._shapes.items(), pieces, strict=False)
        return {name: piece.view(shape) for (name, shape), piece in named}

    def cut(self, tensors: Named) -> torch.Tensor:
        """Return this rank's part of `tensors`, which are like the parameters."""
        assert self._fits(tensors), "these tensors belong to other parameters"
        padding = self.own.new_zeros(self._padding)
        flat = [tensors[name].to(padding).flatten() for name in self._shapes]
        whole = torch.cat([*flat, padding])
        return whole.chunk(self._world.size)[self._world.rank]

    def gather_slot(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return one slot for whole parameters; a scalar goes to each of them. A collective."""
        if value.ndim == 0:
            return {name: value.clone() for name in self._shapes}
        return self.gather(value)

    def cut_slot(self, tensors: Named) -> torch.Tensor:
        """Return this rank's part of one slot, or the scalar that all parameters have in it."""
        if self._fits(tensors):
            return self.cut(tensors)
        scalars = torch.stack([tensors[name] for name in self._shapes])
        assert scalars.ndim == 1, "this slot belongs to other parameters"
        assert (scalars == scalars[0]).all(), "parameters of one group step together"
        return scalars[0]

    def _fits(self, tensors: Named) -> bool:
        return all(tensors[name].shape == shape for name, shape in self._shapes.items())
