"""An exponential moving average of the weights, evaluated in their place."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from pipeline.distributed.world import World


class WeightAverage:
    """Keeps `average <- decay * average + (1 - decay) * value` of all floating-point state."""

    def __init__(self, network: nn.Module, *, decay: float, every_steps: int) -> None:
        self._decay, self._every_steps = decay, every_steps
        self._live = {
            name: value
            for name, value in network.state_dict(keep_vars=True).items()
            if value.is_floating_point()
        }
        self._buffers = [
            name for name, value in self._live.items() if not isinstance(value, nn.Parameter)
        ]
        self.average = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights, every `every_steps` steps.

        The decay of update n is min(decay, (1 + n) / (10 + n)), as in TensorFlow's moving average:
        the initial weights would otherwise dominate for 1 / (1 - decay) updates.
        """
        updates, rest = divmod(step, self._every_steps)
        if rest == 0:
            decay = min(self._decay, (1 + updates) / (10 + updates))
            live = [value.detach() for value in self._live.values()]
            torch._foreach_lerp_(list(self.average.values()), live, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Generator[None]:
        """Put the average into the network, in the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def synchronize(self, world: World) -> None:
        """Average the running statistics of the average over the ranks. A collective."""
        world.all_reduce_mean_([self.average[name] for name in self._buffers])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            held = value.detach().clone()
            value.copy_(self.average[name])
            self.average[name].copy_(held)

    @torch.no_grad()
    def load(self, average: dict[str, torch.Tensor]) -> None:
        """Load a saved average, which has the same names."""
        for name, value in self.average.items():
            value.copy_(average[name])
