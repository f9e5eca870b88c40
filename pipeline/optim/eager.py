"""Optimisers without torch's compiler, whose import takes half of the time to the first step.

torch wraps some methods of its optimisers to keep them out of compiled graphs, and the wrappers
import the compiler. Nothing here compiles an optimiser, so the methods are called without the
wrappers: the same code, and the same bits.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim import SGD

WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def as_written(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method` without the wrappers around it."""
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
    return method


class EagerSgd(SGD):
    """`torch.optim.SGD` that does not import torch's compiler."""


EagerSgd.step = torch.no_grad()(as_written(cast("Any", SGD).step))
for _name in WRAPPED:
    setattr(EagerSgd, _name, as_written(getattr(SGD, _name)))
