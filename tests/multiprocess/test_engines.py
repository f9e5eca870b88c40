"""Law 3: the engine changes speed, never results. Real ranks; each group runs many trainings."""

import math
from typing import Any

import pytest
import torch

from pipeline.config.schema import Ddp, DeepSpeed
from tests.multiprocess.engine_runs import LAST_STEP, Outcome, Trial, run_trials, run_trials_afresh

Outcomes = dict[str, Outcome]

ENGINES: dict[str, Ddp | DeepSpeed] = {
    "ddp": Ddp(),
    "zero0": DeepSpeed(zero_stage=0),
    "zero1": DeepSpeed(zero_stage=1),
    "zero2": DeepSpeed(zero_stage=2),
}
OVERLAPPING = {
    "zero1-overlap": DeepSpeed(zero_stage=1, overlap=True, bucket_megabytes=0.05),
    "zero2-overlap": DeepSpeed(zero_stage=2, overlap=True, bucket_megabytes=0.05),
}
COMPRESSING: dict[str, Ddp | DeepSpeed] = {
    "ddp": Ddp(gradient_compression="bf16"),
    "zero0": DeepSpeed(zero_stage=0, gradient_compression="bf16"),
    "zero1": DeepSpeed(zero_stage=1, gradient_compression="bf16"),
    "zero2": DeepSpeed(zero_stage=2, gradient_compression="bf16"),
}
SHORT = 10
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "fp32": (LAST_STEP, {}),
    "bf16": (SHORT, {"precision": "bf16"}),
    "fp32-nchw": (SHORT, {"channels_last": False}),
    "bf16-nchw": (LAST_STEP, {"precision": "bf16", "channels_last": False}),
    "accumulated": (SHORT, {"accumulation": 2, "precision": "bf16"}),
    "clipped": (SHORT, {"clip_norm": 0.5}),
    "all": (SHORT, {"clip_norm": 0.5, "accumulation": 2, "label_smoothing": 0.1}),
}
OVERFLOWING = 2.0**22
"""A loss scale at which the gradients are infinite."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Trainings on two ranks."""
    trials = [
        Trial(f"{setting} {name}", engine, last=last, train=train)
        for setting, (last, train) in SETTINGS.items()
        for name, engine in {**ENGINES, **(OVERLAPPING if setting == "clipped" else {})}.items()
    ]
    trials += [Trial(f"bf16 comm {name}", it, last=SHORT) for name, it in COMPRESSING.items()]
    fp16 = {"precision": "fp16", "clip_norm": 1.0}
    trials += [
        Trial(f"fp16 {name}", engine, last=SHORT, train=fp16, loss_scale=OVERFLOWING)
        for name, engine in ENGINES.items()
    ]
    trials += relay("ddp", "zero2", "zero0", "zero1", "ddp")
    trials += adamw_trials()
    return run_trials(tmp_path_factory.mktemp("two"), trials, ranks=2)


def adamw_trials() -> list[Trial]:
    """AdamW on each engine, and in two halves: the second on the state of ZeRO 1."""
    trials = [
        Trial(f"adamw {name}", engine, last=SHORT, optimizer="adamw")
        for name, engine in ENGINES.items()
    ]
    trials.append(Trial("adamw first", ENGINES["zero1"], last=4, optimizer="adamw"))
    return trials + [
        Trial(
            f"adamw second {name}",
            engine,
            first=5,
            last=SHORT,
            optimizer="adamw",
            after="adamw first",
        )
        for name, engine in ENGINES.items()
    ]


def relay(*engines: str) -> list[Trial]:
    """Ten steps with each engine, from the state of the engine before."""
    return [
        Trial(
            f"leg {number}",
            ENGINES[engine],
            first=10 * number + 1,
            last=10 * number + 10,
            after=f"leg {number - 1}" if number else None,
        )
        for number, engine in enumerate(engines)
    ]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, two: Outcomes) -> Outcomes:
    """Trainings on three ranks, where the order of sums matters: unbroken, and in two halves."""
    folder = tmp_path_factory.mktemp("three")
    torch.save(two["leg 1"], folder / "zero2 on two ranks")
    trials: list[Trial] = []
    for name, engine in ENGINES.items():
        trials += [
            Trial(f"{name} whole", engine, global_batch=12, last=14),
            Trial(f"{name} first", engine, global_batch=12, last=10),
            Trial(
                f"{name} second", engine, global_batch=12, first=11, last=14, after=f"{name} first"
            ),
            Trial(f"{name} moved", engine, global_batch=12, last=0, after="zero2 on two ranks"),
        ]
    return run_trials(folder, trials, ranks=3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Trainings of a single process, started as from the command line."""
    train = {"precision": "bf16", "clip_norm": 0.5}
    trials = [Trial(name, it, last=SHORT, train=train) for name, it in ENGINES.items()]
    return run_trials_afresh(tmp_path_factory.mktemp("alone"), trials, ranks=1, cpu_only=True)


def assert_same(ours: Outcome, theirs: Outcome) -> None:
    assert ours["losses"] == theirs["losses"]
    assert_same_state(ours, theirs)


def assert_same_state(ours: Outcome, theirs: Outcome) -> None:
    found, expected = groups(ours), groups(theirs)
    assert found.keys() == expected.keys()
    for group, tensors in expected.items():
        assert found[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[group][name], tensor), f"{group} {name} differs"


def groups(outcome: Outcome) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of `model`, `average` and each slot of the optimiser."""
    return {group: outcome[group] for group in ("model", "average")} | outcome["optimizer"]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_on_two_ranks_every_engine_equals_ddp(two: Outcomes, setting: str, engine: str) -> None:
    assert_same(two[f"{setting} {engine}"], two[f"{setting} ddp"])


@pytest.mark.parametrize("engine", OVERLAPPING)
def test_overlap_and_small_buckets_change_nothing(two: Outcomes, engine: str) -> None:
    assert_same(two[f"clipped {engine}"], two["clipped ddp"])


def test_clipping_changes_the_second_step(two: Outcomes) -> None:
    assert two["clipped ddp"]["losses"][0] == two["fp32 ddp"]["losses"][0]
    assert two["clipped ddp"]["losses"][1] != two["fp32 ddp"]["losses"][1]


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_compressed_gradients_are_rounded_alike(two: Outcomes, engine: str) -> None:
    compressed = two["bf16 comm ddp"]
    assert_same(two[f"bf16 comm {engine}"], compressed)
    assert compressed["losses"][1] != two["fp32 ddp"]["losses"][1]
    assert compressed["losses"] == pytest.approx(two["fp32 ddp"]["losses"][:SHORT], rel=0.02)


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_all_ranks_skip_the_steps_that_overflow(two: Outcomes, engine: str) -> None:
    """fp16 needs the fused SGD, which on a CPU rounds the last elements of a tensor differently."""
    ours, theirs = two[f"fp16 {engine}"], two["fp16 ddp"]
    assert ours["scaler"] == theirs["scaler"]
    halvings = math.log2(OVERFLOWING / theirs["scaler"]["scale"])
    assert 1 <= halvings < SHORT, "some steps overflow, others do not"
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-6)
    for group, tensors in groups(theirs).items():
        for name, tensor in tensors.items():
            assert tensor.isfinite().all()
            torch.testing.assert_close(groups(ours)[group][name], tensor, rtol=0, atol=1e-6)


def test_engines_continue_from_each_others_states(two: Outcomes) -> None:
    legs = [two[f"leg {number}"] for number in range(5)]
    assert [loss for leg in legs for loss in leg["losses"]] == two["fp32 ddp"]["losses"]
    assert_same_state(legs[-1], two["fp32 ddp"])


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_engines_handle_any_slots(two: Outcomes, engine: str) -> None:
    """AdamW has two slots of the parameters' shapes, and a scalar."""
    assert groups(two["adamw ddp"]).keys() > {"step", "exp_avg", "exp_avg_sq"}
    assert_same(two[f"adamw {engine}"], two["adamw ddp"])


@pytest.mark.parametrize("engine", ENGINES)
def test_any_slots_move_between_engines(two: Outcomes, engine: str) -> None:
    first, second = two["adamw first"], two[f"adamw second {engine}"]
    assert first["losses"] + second["losses"] == two["adamw ddp"]["losses"]


@pytest.mark.parametrize("engine", ENGINES)
def test_resumed_equals_unbroken_on_three_ranks(three: Outcomes, engine: str) -> None:
    whole, first, second = (three[f"{engine} {part}"] for part in ("whole", "first", "second"))
    assert first["losses"] + second["losses"] == whole["losses"]
    assert_same_state(second, whole)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_moves_to_other_engines_and_more_ranks(
    two: Outcomes, three: Outcomes, engine: str
) -> None:
    assert_same_state(three[f"{engine} moved"], two["leg 1"])


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_on_three_ranks_engines_differ_only_in_the_order_of_sums(
    three: Outcomes, engine: str
) -> None:
    ours, theirs = three[f"{engine} first"], three["ddp first"]
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-6)
    for group, tensors in groups(theirs).items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(groups(ours)[group][name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_a_single_process_needs_no_peers(alone: Outcomes, engine: str) -> None:
    assert_same(alone[engine], alone["ddp"])
