"""Which group of a checkpoint an optimiser's slot is saved in, and where it is found again."""

import torch

from pipeline.checkpoint import saved_slots, slot_group, tensor_groups

WEIGHTS = {"w": torch.ones(2)}


def test_each_slot_is_a_group_of_its_own() -> None:
    slots = {"exp_avg": WEIGHTS, "exp_avg_sq": WEIGHTS, "step": WEIGHTS}
    groups = tensor_groups(WEIGHTS, slots, WEIGHTS)
    assert list(groups) == [
        "model",
        "optimizer.exp_avg",
        "optimizer.exp_avg_sq",
        "optimizer.step",
        "ema",
    ]
    assert saved_slots(groups) == slots


def test_momentum_keeps_the_name_of_the_first_checkpoints() -> None:
    assert slot_group("momentum_buffer") == "momentum"
    groups = tensor_groups(WEIGHTS, {"momentum_buffer": WEIGHTS}, None)
    assert list(groups) == ["model", "momentum"]
    assert saved_slots(groups) == {"momentum_buffer": WEIGHTS}


def test_an_average_has_no_slots() -> None:
    assert saved_slots({"model": WEIGHTS, "ema": WEIGHTS}) == {}
