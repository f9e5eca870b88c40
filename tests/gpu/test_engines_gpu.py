"""The engines on one or two GPUs, one rank each; with NCCL on two."""

import math

import pytest
import torch

from pipeline.config.schema import Ddp, DeepSpeed
from tests.multiprocess.engine_runs import Outcome, Trial, run_trials_afresh

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

ENGINES: dict[str, Ddp | DeepSpeed] = {
    "ddp": Ddp(),
    "zero0": DeepSpeed(zero_stage=0),
    "zero1": DeepSpeed(zero_stage=1),
    "zero2": DeepSpeed(zero_stage=2),
}
STEPS = 20
SETTINGS = {
    "fp32": {},
    "fp32-nchw": {"channels_last": False},
    "bf16": {"precision": "bf16", "accumulation": 2, "clip_norm": 0.5},
    "fp16": {"precision": "fp16", "clip_norm": 0.5},
}
OVERFLOWING = 2.0**22
"""A loss scale that makes the gradients infinite in fp16."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Runs in which the host never waits for the device after the first step."""
    trials = [
        Trial(
            f"{setting} {name}",
            engine,
            last=STEPS,
            train=train,
            loss_scale=OVERFLOWING if setting == "fp16" else None,
        )
        for setting, train in SETTINGS.items()
        for name, engine in ENGINES.items()
    ]
    ranks = min(2, torch.cuda.device_count())
    folder = tmp_path_factory.mktemp("gpu")
    return run_trials_afresh(folder, trials, ranks=ranks, cpu_only=False)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_engines_give_the_same_losses(
    outcomes: dict[str, Outcome], setting: str, engine: str
) -> None:
    """ZeRO 1 and 2 do not keep channels-last weights: other kernels run, and round differently."""
    ours, theirs = outcomes[f"{setting} {engine}"], outcomes[f"{setting} ddp"]
    if engine == "zero0":
        assert ours["losses"] == theirs["losses"]
    elif setting == "fp32-nchw":
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    else:
        assert ours["losses"][:5] == pytest.approx(theirs["losses"][:5], rel=2e-2)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_fp16_loss_scale_backs_off(outcomes: dict[str, Outcome], engine: str) -> None:
    outcome = outcomes[f"fp16 {engine}"]
    assert 1 <= math.log2(OVERFLOWING / outcome["scaler"]["scale"]) < STEPS
    momentum = outcome["optimizer"]["momentum_buffer"]
    assert all(tensor.isfinite().all() for tensor in momentum.values())
