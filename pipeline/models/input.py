"""Where pixels are normalised: in front of the network, which takes the loader's uint8 images."""

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """Wraps `network`: uint8 images (n, h, w, 3) to float32 logits (n, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        channels_last: bool = True,
    ) -> None:
        """`mean` and `std` have a value for each channel, on a scale of 0 to 1.

        `channels_last` keeps the loader's memory layout; otherwise images are copied to contiguous
        (n, 3, h, w).
        """
        super().__init__()
        self.network = network
        self.channels_last = channels_last
        # Times 255, so that bytes need no division. Not saved: the configuration has them.
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8, f"images are {images.dtype}"
        assert images.shape[-1] == 3, f"images are of shape {tuple(images.shape)}"
        if not self.channels_last:
            pixels = images.permute(0, 3, 1, 2).contiguous().float()
            return self._logits(pixels.sub_(self.mean).div_(self.std))
        # As rows of width x 3, with mean and deviation repeated, a CPU can use SIMD.
        n, high, wide, _ = images.shape
        mean, std = self.mean.flatten().repeat(wide), self.std.flatten().repeat(wide)
        rows = images.reshape(n, high, wide * 3).float().sub_(mean).div_(std)
        return self._logits(rows.view(n, high, wide, 3).permute(0, 3, 1, 2))

    def _logits(self, pixels: Tensor) -> Tensor:
        # Autocast does not change the dtype of float32 subtraction and division.
        return self.network(pixels).float()


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return (torch.tensor(values, dtype=torch.float64) * 255).float().view(1, 3, 1, 1)
