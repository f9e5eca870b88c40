"""DistributedDataParallel without torch's compiler, whose import takes half of a rank's start-up.

DDP asks the compiler one question when it is built, and wraps one method to keep it out of compiled
graphs. Where nothing is compiled the answer is known, and the method is called without the wrapper:
the same code, and the same bits.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch.nn.parallel import DistributedDataParallel

from pipeline.optim.eager import as_written

COMPILER = "_dynamo"
UNUSED = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
"""Answers for the compiler while a replica is built: its default mode."""


class EagerReplica(DistributedDataParallel):
    """`DistributedDataParallel` of a module that is not compiled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Takes the arguments of `DistributedDataParallel`."""
        with _without_compiler():
            super().__init__(*arguments, **options)

    _inside_ddp_forward = contextmanager(
        as_written(cast("Any", DistributedDataParallel)._inside_ddp_forward)
    )


@contextmanager
def _without_compiler() -> Generator[None]:
    """Answer for the compiler during the block, unless it is imported already."""
    if f"torch.{COMPILER}" in sys.modules:
        yield
        return
    setattr(torch, COMPILER, UNUSED)
    try:
        yield
    finally:
        delattr(torch, COMPILER)
