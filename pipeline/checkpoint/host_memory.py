"""A copy of the training state in host memory, from which a checkpoint is written."""

from collections.abc import Mapping

import torch

from pipeline.checkpoint.snapshot import Tensors
from pipeline.system.command import plural


class HostMemory:
    """Keeps its memory between copies: allocating it takes longer than filling it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], torch.Tensor] = {}

    @torch.no_grad()
    def copy(self, groups: Mapping[str, Tensors]) -> dict[str, Tensors]:
        """Return contiguous copies, which the next call overwrites.

        Raises MemoryError if memory is short.
        """
        copies = {
            group: {name: self._like((group, name), tensor) for name, tensor in tensors.items()}
            for group, tensors in groups.items()
        }
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                copies[group][name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensors in groups.values() for tensor in tensors.values()):
            torch.cuda.current_stream().synchronize()
        return copies

    def _like(self, key: tuple[str, str], tensor: torch.Tensor) -> torch.Tensor:
        held = self._held.get(key)
        if held is None or (held.shape, held.dtype) != (tensor.shape, tensor.dtype):
            held = self._held[key] = _empty_like(tensor)
        return held


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    try:  # a GPU copies at full speed only to pinned memory
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    except RuntimeError as error:
        raise MemoryError(f"not enough host memory for {plural(tensor.nbytes, 'byte')}") from error
