"""Tensors as the bytes of a safetensors file, without a copy.

The library's own writer builds the whole file in memory and holds Python's lock meanwhile, which
would slow the training loop down.
"""

import json
from collections.abc import Iterator
from itertools import accumulate, pairwise

import torch

from pipeline.checkpoint.snapshot import Tensors

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8


def tensor_file(tensors: Tensors) -> Iterator[memoryview]:
    """Yield the parts of a file of `tensors`, which are contiguous and in host memory.

    The parts are views: the tensors must not change before the last part is used.
    """
    # The widest types first, as the format requires, so that each tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ends = accumulate((tensors[name].nbytes for name in names), initial=0)
    entries = {
        name: {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": offsets,
        }
        for name, offsets in zip(names, pairwise(ends), strict=True)
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for name in names:
        tensor = tensors[name].detach()
        assert tensor.device.type == "cpu"
        assert tensor.is_contiguous()
        if tensor.numel():
            yield tensor.reshape(-1).view(torch.uint8).numpy().data
