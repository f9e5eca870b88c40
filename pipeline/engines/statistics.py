"""Batch norm's running statistics when a rank's batch is cut into micro batches."""

from torch import nn

BatchNorm = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]


class RunningStatistics:
    """Lets k micro batches move the running statistics just as far as one batch, or k ranks."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [
            (module, module.momentum)
            for module in network.modules()
            if isinstance(module, BatchNorm) and module.momentum is not None
        ]

    def take_share(self, number: int, count: int) -> None:
        """Prepare for micro batch `number` of `count`.

        With the momentum m / (count (1 - m) + number m), one update after another comes to a
        single update with momentum m by the mean over the micro batches.
        """
        if count > 1:
            for module, momentum in self._norms:
                module.momentum = momentum / (count * (1 - momentum) + number * momentum)
