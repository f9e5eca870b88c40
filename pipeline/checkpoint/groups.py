"""The groups of tensors in a checkpoint, one file each: weights, optimiser slots, average."""

from collections.abc import Mapping

from pipeline.checkpoint.snapshot import Tensors

MODEL, EMA = "model", "ema"
"""The network's weights and statistics, and their moving average."""
OPTIMIZER = "optimizer."
"""The groups of an optimiser's slots start with it: `optimizer.exp_avg`."""
SHORT = {"momentum_buffer": "momentum"}
"""Slots whose group keeps the name that older checkpoints use."""


def tensor_groups(
    model: Tensors, optimizer: Mapping[str, Tensors], average: Tensors | None
) -> dict[str, Tensors]:
    """Return all tensors of a checkpoint, group by group; `optimizer` is slot by slot."""
    groups = {MODEL: model}
    groups |= {slot_group(slot): tensors for slot, tensors in optimizer.items()}
    if average is not None:
        groups[EMA] = average
    return groups


def saved_slots(groups: Mapping[str, Tensors]) -> dict[str, Tensors]:
    """Return the optimiser's slots among the groups of a checkpoint."""
    slots = {group: slot for slot, group in SHORT.items()}
    slots |= {name: name.removeprefix(OPTIMIZER) for name in groups if name.startswith(OPTIMIZER)}
    return {slots[name]: tensors for name, tensors in groups.items() if name in slots}


def slot_group(slot: str) -> str:
    """Return the group, and so the name of the file, that a slot is saved in."""
    return SHORT.get(slot, OPTIMIZER + slot)
