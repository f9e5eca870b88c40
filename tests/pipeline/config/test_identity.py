"""Two configurations belong to one run if and only if they give the same result."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.identity import result_identity
from pipeline.config.load import load
from pipeline.config.schema import (
    Checkpoint,
    Dali,
    Data,
    Ddp,
    Evaluate,
    Launch,
    Polynomial,
    Sgd,
    Slurm,
    Synthetic,
    Tracking,
    Train,
    model_named,
)
from pipeline.runs.folder import CONFIG_FILE
from tests.support.run_folders import config, hold_once


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"name": "test-2"},
        {"optim": Sgd(lr=0.2)},
        {"train": Train(epochs=10, global_batch=128)},
        {"train": Train(steps=10, global_batch=64)},
        {"model": model_named("resnet101")},
        {"schedule": Polynomial()},
        {"data": Data(dir=Path("elsewhere"))},
        {"data": Data(dir=Path("somewhere"), on_corrupt="skip")},
        {"data": Data(dir=Path("somewhere"), loader=Synthetic())},
    ],
    ids=str,
)
def test_a_run_of_another_configuration_is_not_resumed(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    first = hold_once(config(tmp_path))
    assert hold_once(config(tmp_path, **change)) != first


MAY_CHANGE: list[dict[str, Any]] = [
    {"data": Data(dir=Path("somewhere"), root=Path("moved"))},
    {"data": Data(dir=Path("somewhere"), loader=Dali(threads=3, decode="cpu"))},
    {"data": Data(dir=Path("somewhere"), verify="off")},
    {"train": Train(epochs=10, global_batch=64, accumulation=2)},
    {"train": Train(epochs=10, global_batch=64, compile=True)},
    {"train": Train(epochs=10, global_batch=64, log_every_steps=1)},
    {"train": Train(epochs=10, global_batch=64, watchdog_minutes=None)},
    {"evaluate": Evaluate(every_steps=5, batch_per_rank=8)},
    {"checkpoint": Checkpoint(every_steps=5, keep_best=False)},
    {"tracking": Tracking(mlflow=False)},
    {"engine": Ddp(bucket_megabytes=50)},
    {"data": Data(dir=Path("somewhere"), stage=Path("local"))},
    {
        "slurm": Slurm(
            partition="gpu", time_limit="12:00:00", sbatch={"nice": 5}, srun=("--wait=9",)
        )
    },
    {"launch": Launch(preflight=False)},
    {"env": {"NCCL_DEBUG": "INFO"}},
]


@pytest.mark.parametrize("change", MAY_CHANGE, ids=str)
@pytest.mark.parametrize("own", [True, False], ids=["run_dir", "runs_dir"])
def test_what_does_not_decide_the_result_may_change(
    tmp_path: Path, change: dict[str, Any], own: bool
) -> None:
    place = {"run_dir": tmp_path / "mine"} if own else {}
    first = hold_once(config(tmp_path, **place))
    changed = config(tmp_path, **place, **change)
    assert hold_once(changed) == first
    assert load(first / CONFIG_FILE) == changed, (
        "the folder has the configuration of the last attempt"
    )


def test_only_what_does_not_decide_the_result_is_left_out_of_the_identity(tmp_path: Path) -> None:
    mine = config(tmp_path)
    changed = config(tmp_path / "other", run_dir=tmp_path, **MAY_CHANGE[0] | MAY_CHANGE[4])
    assert (
        result_identity(mine) == result_identity(changed) == result_identity(result_identity(mine))
    )
    for kept in ("name", "seed", "model", "optim", "schedule"):
        assert getattr(result_identity(mine), kept) == getattr(mine, kept)


def test_a_run_whose_configuration_is_no_longer_valid_is_not_resumed(tmp_path: Path) -> None:
    first = hold_once(config(tmp_path))
    with (first / CONFIG_FILE).open("a") as file:
        file.write("retired_key: 1\n")
    assert hold_once(config(tmp_path)) != first
    with pytest.raises(
        ValueError, match=r"its config\.yaml is no longer valid: .*retired_key.*another run"
    ):
        hold_once(config(tmp_path, run_dir=first))


def test_a_run_dir_of_another_configuration_is_refused_and_released(tmp_path: Path) -> None:
    mine = config(tmp_path, run_dir=tmp_path / "mine")
    hold_once(mine)
    before = (tmp_path / "mine" / CONFIG_FILE).read_bytes()
    with pytest.raises(
        ValueError, match=r"run_dir=.*/mine belongs to another configuration \("
    ) as e:
        hold_once(replace(mine, seed=1, train=Train(epochs=10, global_batch=32)))
    assert "(seed is 0 there and 1 here, train.global_batch is 64 there and 32 here);" in str(
        e.value
    )
    assert (tmp_path / "mine" / CONFIG_FILE).read_bytes() == before
    hold_once(mine)


def test_a_refusal_names_at_most_three_keys(tmp_path: Path) -> None:
    mine = config(tmp_path, run_dir=tmp_path / "mine")
    hold_once(mine)
    with pytest.raises(ValueError, match=r"configuration \(seed is") as caught:
        hold_once(replace(mine, seed=1, optim=Sgd(lr=1, momentum=0.8), schedule=Polynomial()))
    named = "optim.lr is 0.1 there and 1.0 here, optim.momentum is 0.9 there and 0.8 here, 2 more);"
    assert named in str(caught.value)
