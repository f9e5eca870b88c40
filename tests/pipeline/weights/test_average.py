"""The mean of checkpoints is exact, and itself a checkpoint: to inspect, verify and convert."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.checkpoint import newest_checkpoint, read_checkpoint
from pipeline.config.load import dump
from pipeline.config.schema import Model, model_named
from pipeline.dataset.index import read_manifest
from pipeline.distributed.world import World
from pipeline.loaders import open_loader
from pipeline.models import build
from pipeline.runs.folder import CONFIG_FILE
from tests.support.images import make_dataset
from tests.support.loading import open_split
from tests.support.snapshots import flip_a_bit
from tests.support.stored_networks import CLASSES, Run, make_run, normalized, program

SMALL = model_named("cifar_resnet8")


def state(seed: int, model: Model = SMALL) -> dict[str, Tensor]:
    weights = build(model, classes=CLASSES, generator_seed=seed).state_dict()
    weights["bn1.num_batches_tracked"] = torch.tensor(seed)
    return weights


def floats_of(weights: dict[str, Tensor], share: float = 1.0) -> dict[str, Tensor]:
    return {name: v * share for name, v in weights.items() if v.is_floating_point()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with checkpoints of steps 1, 2 and 3."""
    made = make_run(tmp_path / "run", SMALL)
    for step in (1, 2, 3):
        made.save(step, {"model": state(step), "momentum": {}}, top1_error_percent=9.0)
    return made


def averaged(out: Path, *arguments: object) -> dict[str, Tensor]:
    assert program("average", *arguments, "--out", out) == 0
    return read_checkpoint(out).tensors["model"]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


# ------------------------------------------------------------------------------------- the mean


def test_the_mean_of_equal_checkpoints_equals_them(run: Run, tmp_path: Path) -> None:
    one = run.folder / "checkpoints/step-00000002"
    copies = [shutil.copytree(one, tmp_path / f"copy{number}") for number in range(7)]
    assert_same(averaged(tmp_path / "mean", *copies), state(2))


def test_the_mean_is_exact_to_the_last_bit(run: Run, tmp_path: Path) -> None:
    for count, flags in ((2, ["--last", 2]), (3, ["--last", 3])):
        mean = averaged(tmp_path / f"mean{count}", run.folder, *flags)
        members = [state(step) for step in (1, 2, 3)][-count:]
        for name, value in mean.items():
            stacked = np.stack([member[name].numpy() for member in members])
            if value.is_floating_point():
                exact = stacked.astype(np.longdouble).mean(0)
                assert (value.numpy() == exact.astype(np.float32)).all(), name
            else:
                assert (value.numpy() == stacked.max(0)).all(), name  # a count of batches


def test_moving_averages_are_averaged_if_there_are_some(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SMALL)
    for step in (1, 2):
        ema = floats_of(state(step), share=0.5)
        run.save(step, {"model": state(step), "momentum": {}, "ema": ema})
    live = averaged(tmp_path / "live", run.folder, "--last", 2, "--live")
    mean = averaged(tmp_path / "mean", run.folder, "--last", 2)
    assert_same(floats_of(mean), floats_of(live, share=0.5))  # halves are exact
    kept = json.loads((tmp_path / "mean/average.json").read_text())
    assert kept["weights"] == "ema"
    assert [source["step"] for source in kept["checkpoints"]] == [1, 2]


# ------------------------------------------------------------------------------- a checkpoint


def test_a_mean_can_be_inspected_verified_and_converted(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "mean", tmp_path / "w.safetensors"
    mean = averaged(out, run.folder, "--last", 2)
    capsys.readouterr()
    assert program("inspect", out, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [source["step"] for source in shown["average_of"]] == [2, 3]
    expected = {"step": 3, "network": "cifar_resnet8", "optimiser_groups": [], "has_ema": False}
    expected |= {"top1_error_percent": None, "best_top1_error_percent": None}
    assert {key: shown[key] for key in expected} == expected
    assert program("convert", out, "--to", "safetensors", "--out", file) == 0
    assert_same(load_file(file), mean)
    assert program("verify", out) == 0
    for name in ("average.json", "config.yaml"):
        (out / name).write_bytes((out / name).read_bytes() + b" ")
        assert program("verify", out) == 1
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    flip_a_bit(out)
    assert program("verify", out) == 1


def test_means_can_be_averaged(run: Run, tmp_path: Path) -> None:
    first = averaged(tmp_path / "a", run.folder, "--last", 2)
    averaged(tmp_path / "b", run.folder, "--last", 2)
    assert_same(averaged(tmp_path / "c", tmp_path / "a", tmp_path / "b"), first)


def test_a_refused_mean_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    flip_a_bit(run.folder / "checkpoints/step-00000003")
    assert program("average", run.folder, "--last", 2, "--out", tmp_path / "mean") == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


# ------------------------------------------------------------------- recomputed statistics


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    """Over one batch they are that batch's mean and variance, as in a training step."""
    dataset = make_dataset(tmp_path / "data", train=8, val=2, classes=2)
    fingerprint = read_manifest(dataset).fingerprint
    run = make_run(tmp_path / "run", SMALL, dataset)
    for step in (1, 2):
        run.save(step, {"model": state(step)}, fingerprint=fingerprint)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(run.config))
    mean = averaged(
        tmp_path / "mean", run.folder, "--last", 2, "--recompute-statistics", 1, "--config", recipe
    )
    plain = averaged(tmp_path / "plain", run.folder, "--last", 2)
    network = build(SMALL, classes=CLASSES, generator_seed=0)
    network.load_state_dict(plain)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    loader = open_loader(
        run.config.data,
        open_split(dataset),
        seed=0,
        global_batch=8,
        batch_per_rank=8,
        world=World(),
    )
    with torch.no_grad(), loader.train(range(1, 2)) as stream:
        normalized(network)(next(stream).images)
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(mean[name], value)
    assert not torch.equal(mean["bn1.running_mean"], plain["bn1.running_mean"])


# ------------------------------------------------------------------------------------- mistakes


def other_run(folder: Path, model: Model = SMALL, *, config: bool = True, **progress: Any) -> None:
    groups = {"model": state(1, model), "momentum": {}}
    make_run(folder, model).save(1, groups, **progress)
    if not config:
        (folder / CONFIG_FILE).unlink()


def with_average(folder: Path) -> None:
    groups = {"model": state(1), "ema": floats_of(state(1))}
    make_run(folder, SMALL).save(1, groups)


Prepare = Callable[[Path], None]
MISTAKES: dict[str, tuple[Prepare, str]] = {
    "of one network (model.name is cifar_resnet8 and resnet18)": (
        lambda other: other_run(other, model_named("resnet18")),
        "run other",
    ),
    "of one network (bn1.bias is torch.float32 (16,) and torch.float32 (64,))": (
        lambda other: other_run(other, model_named("resnet18"), config=False),
        "run other",
    ),
    "of one network (model.name is cifar_resnet8 and cifar_plain8)": (
        lambda other: other_run(other, model_named("cifar_plain8")),
        "run other",
    ),
    "of one dataset (fingerprints f and g)": (
        lambda other: other_run(other, fingerprint="g"),
        "run other",
    ),
    "of one seed (0 and 1; networks with different initial weights": (
        lambda other: other_run(other, seed=1),
        "run other",
    ),
    "average the trained weights with --live": (with_average, "run other"),
    "at least two checkpoints": (other_run, "run"),
    "run has 3 checkpoints, not 4": (other_run, "run --last 4"),
    "--last 2 takes exactly one run, got 2": (other_run, "run other --last 2"),
    "is among a run's own checkpoints": (
        other_run,
        "run --last 2 --out run/checkpoints/step-00000009",
    ),
    "--out other exists": (other_run, "run --last 2 --out other"),
    "folder none is missing": (other_run, "run --last 2 --out none/mean"),
    "no dataset at nowhere": (other_run, "run --last 2 --recompute-statistics 1"),
}


@pytest.mark.parametrize("part", MISTAKES)
def test_a_mistake_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare, command = MISTAKES[part]
    prepare(Path("other"))
    out = [] if "--out" in command else ["--out", "mean"]
    assert program("average", *command.split(), *out) == 2
    output = capsys.readouterr()
    assert part in output.err
    assert output.err.startswith("checkpoint.py: ")
    assert (output.err.count("\n"), output.out) == (1, "")
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "other"}
    assert newest_checkpoint(Path("run/checkpoints"), pytest.fail) is not None
