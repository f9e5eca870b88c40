"""The checkpoint program shows a checkpoint's content, and finds every changed byte."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint import MANIFEST, read_checkpoint, write_checkpoint
from pipeline.config.schema import model_named
from pipeline.models import build, count_parameters
from pipeline.runs.folder import RESULT
from pipeline.tracking.events import Evaluated, RunStarted
from pipeline.tracking.jsonl import METRICS, Jsonl
from tests.support.snapshots import flip_a_bit, snapshot
from tests.support.stored_networks import CLASSES, Run, make_run, program

ROOT = Path(__file__).parents[2]
SMALL = model_named("cifar_resnet8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with checkpoints of steps 3, 6 and 9, of which 6 is the best and has all groups."""
    made = make_run(tmp_path / "run", SMALL)
    model = build(SMALL, classes=CLASSES, generator_seed=1).state_dict()
    ema = {name: value / 2 for name, value in model.items() if value.is_floating_point()}
    momentum = {"fc.bias": torch.tensor([3.0] * 9 + [float("nan")])}
    made.save(3, {"model": model, "momentum": {}}, top1_error_percent=50.0)
    made.save(
        6,
        {"model": model, "momentum": momentum, "ema": ema},
        top1_error_percent=25.0,
        best_top1_error_percent=12.5,
        seconds=61.0,
        scaler={"scale": 1024.0},
    )
    made.save(9, {"model": model, "momentum": {}}, top1_error_percent=30.0)
    return made


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the program; return its exit code and what it wrote to stdout and stderr."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = program(*arguments)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run_command


# ------------------------------------------------------------------------------------- inspect


def test_the_figures_are_those_of_the_checkpoint(run: Run, command: Command) -> None:
    with Jsonl(run.folder / METRICS) as metrics:
        metrics.on_event(
            RunStarted("tiny", "run", 1, 12, 4.0, 1, {}, {"torch": "1.2", "host": "x"})
        )
        metrics.on_event(Evaluated(6, 2.0, 25.0, 1.5, 0.1, 23, 0.1))
    code, out, err = command("inspect", run.folder, "--best", "--tensors", "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    path = run.folder / "checkpoints/step-00000006"
    kept = read_checkpoint(path)
    expected: dict[str, Any] = {
        "path": str(path),
        "hashes": "match",
        "step": 6,
        "epoch": 2.0,
        "seconds": 61.0,
        "top1_error_percent": 25.0,
        "top5_error_percent": 1.5,
        "best_top1_error_percent": 12.5,
        "fingerprint": "f",
        "scaler": {"scale": 1024.0},
        "config_name": "tiny",
        "network": "cifar_resnet8",
        "parameters": count_parameters(build(SMALL, classes=CLASSES, generator_seed=1)),
        "classes": CLASSES,
        "has_ema": True,
        "optimiser_groups": ["momentum"],
        "versions": {"torch": "1.2"},
        "average_of": [],
        "files": {file.name: len(file.read_bytes()) for file in path.iterdir()},
    }
    assert {key: shown[key] for key in expected} == expected
    assert shown["groups"].keys() == kept.tensors.keys()
    listed = {(each["group"], each["name"]): each for each in shown["tensors"]}
    for group, tensors in kept.tensors.items():
        figures = shown["groups"][group]
        assert figures["tensors"] == len(tensors)
        assert figures["elements"] == sum(len(tensor.flatten()) for tensor in tensors.values())
        assert figures["bytes"] == sum(tensor.numpy().nbytes for tensor in tensors.values())
        assert sum(figures["dtypes"].values()) == len(tensors)
        for name, tensor in tensors.items():
            one = listed.pop((group, name))
            assert one["shape"] == list(tensor.shape)
            assert f"torch.{one['dtype']}" == str(tensor.dtype)
            norm = tensor.double().square().sum().sqrt().item()
            assert one["norm"] == (pytest.approx(norm) if isfinite(norm) else None)
    assert not listed


def test_the_table_has_the_figures(run: Run, command: Command) -> None:
    _, out, _ = command("inspect", run.folder, "--step", 6, "--tensors")
    parameters = count_parameters(build(SMALL, classes=CLASSES, generator_seed=1))
    for part in (
        "tiny",
        f"cifar_resnet8, {parameters:,} parameters, 10 classes",
        "step:        6, after 0:01:01 of training",
        "top-1 25.00 %, best top-1 so far 12.50 %",
        "all hashes match",
        "EMA of the weights",
        "1024.0",
    ):
        assert part in out
    assert "conv1.weight" in out
    assert "16x3x3x3" in out


def test_a_copied_checkpoint_is_shown_without_the_figures_of_its_run(
    run: Run, command: Command, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run.folder / "checkpoints/step-00000009", alone)
    code, out, err = command("inspect", alone, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert [shown[key] for key in ("step", "network", "epoch")] == [9, None, None]
    named = command("inspect", alone, "--json", "--config", run.folder / "config.yaml")
    assert json.loads(named[1])["network"] == "cifar_resnet8"


def test_epoch_and_versions_come_with_the_checkpoint(run: Run, command: Command) -> None:
    documents = {
        "schedule.json": '{"epoch": 1.5}',
        "provenance.json": '{"torch": "2", "host": "x"}',
    }
    saved = read_checkpoint(run.folder / "checkpoints/step-00000009")
    with Jsonl(run.folder / METRICS) as metrics:  # of a later start
        metrics.on_event(RunStarted("tiny", "run", 10, 12, 4.0, 1, {}, {"torch": "3"}))
    write_checkpoint(run.folder / "checkpoints", replace(saved, documents=documents))
    code, out, err = command("inspect", run.folder, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert (shown["epoch"], shown["versions"]) == (1.5, {"torch": "2"})


def test_a_run_means_its_newest_whole_checkpoint(run: Run, command: Command) -> None:
    assert json.loads(command("inspect", run.folder, "--json")[1])["step"] == 9
    flip_a_bit(run.folder / "checkpoints/step-00000009")
    code, out, err = command("inspect", run.folder, "--json")
    assert (code, json.loads(out)["step"]) == (0, 6)
    assert err.count("\n") == 1
    assert "step-00000009 is damaged" in err


# -------------------------------------------------------------------------------------- verify


def test_verify_prints_a_line_for_each_whole_checkpoint(run: Run, command: Command) -> None:
    code, out, err = command("verify", run.folder)
    assert (code, err) == (0, "")
    assert [line.split(": ")[1].split(",")[0] for line in out.splitlines()] == ["whole"] * 3
    assert command("verify", run.folder, "--best")[1].count("\n") == 1


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_found_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    write_checkpoint(folder / "checkpoints", snapshot(1))
    path = write_checkpoint(folder / "checkpoints", snapshot(2))
    assert program("verify", folder) == 0
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 0xFF
    file.write_bytes(content)
    assert program("verify", folder) == 1
    assert program("verify", path) == 1
    assert program("verify", folder, "--step", 1) == 0


def test_damage_is_reported_in_the_line_of_its_checkpoint(run: Run, command: Command) -> None:
    (run.folder / "checkpoints/step-00000003/progress.json").unlink()
    flip_a_bit(run.folder / "checkpoints/step-00000009")
    code, out, err = command("verify", run.folder)
    assert (code, err) == (1, "")
    first, second, third = out.splitlines()
    assert "step-00000003: damaged (" in first
    assert "progress.json" in first
    assert "step-00000006: whole, 5 files" in second
    assert "step-00000009: damaged (model.safetensors does not match its SHA-256)" in third


# --------------------------------------------------------------- finished without its last weights


@pytest.fixture
def unsaved(run: Run) -> Run:
    """The run is finished, but its checkpoint of step 12 is missing."""
    (run.folder / RESULT).write_text('{"steps": 12}')
    return run


def test_verify_reports_a_missing_final_checkpoint(unsaved: Run, command: Command) -> None:
    code, out, err = command("verify", unsaved.folder)
    assert (code, err) == (1, "")
    *whole, last = out.splitlines()
    assert len(whole) == 3
    assert last.startswith(
        f"{unsaved.folder} is finished, but its final checkpoint, of step 12, is missing (the"
        " newest is of step 9); to train it again, remove "
    )
    assert command("verify", unsaved.folder, "--step", 9)[0] == 0  # the chosen one is whole
    shutil.rmtree(unsaved.folder / "checkpoints")
    code, out, err = command("verify", unsaved.folder)
    assert (code, err) == (1, "")
    assert "is missing (it has none)" in out


def test_inspect_reports_a_missing_final_checkpoint(unsaved: Run, command: Command) -> None:
    code, out, err = command("inspect", unsaved.folder)
    assert code == 0
    assert "final:       the checkpoint of the last step, 12, is missing" in out
    assert "final checkpoint, of step 12, is missing" in err
    place = unsaved.folder / "checkpoints/step-00000009"
    assert json.loads(command("inspect", place, "--json")[1])["missing_final_step"] == 12


def test_a_finished_run_with_its_final_checkpoint_is_not_reported(
    run: Run, command: Command
) -> None:
    (run.folder / RESULT).write_text('{"steps": 9}')
    assert command("verify", run.folder)[0] == 0
    code, out, err = command("inspect", run.folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["missing_final_step"] is None
    assert "final:" not in command("inspect", run.folder)[1]


# ------------------------------------------------------------------------------------- mistakes


def forge(path: Path, model: bytes) -> Path:
    """A checkpoint whose hashes match, and whose model file is `model`."""
    (path / "model.safetensors").write_bytes(model)
    digests = {
        file.name: sha256(file.read_bytes()).hexdigest()
        for file in path.iterdir()
        if file.name != MANIFEST
    }
    (path / MANIFEST).write_text(json.dumps({"sha256": digests}))
    return path


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (Path.touch, (Path("trapped"),))


BAD_MODELS = {
    "pickle": pickle.dumps(Trap()),
    "empty": b"",
    "huge header": (2**60).to_bytes(8, "little") + b"{}",
    "not JSON": (2).to_bytes(8, "little") + b"[[",
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_forged_checkpoint_is_refused_by_every_command(
    run: Run, command: Command, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = forge(run.folder / "checkpoints/step-00000009", BAD_MODELS[kind])
    assert command("verify", path)[0] == 1
    for arguments in (
        ["inspect", path],
        ["convert", path, "--to", "safetensors", "--out", "w.safetensors"],
        ["average", path, path, "--out", "mean"],
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"checkpoint.py: checkpoint {path} cannot be read (")
        assert err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


MISTAKES: dict[str, list[str]] = {
    "does not exist": ["inspect", "none"],
    "is neither a run folder nor a checkpoint": ["verify", "other"],
    "has no checkpoint yet": ["verify", "young"],
    "no checkpoint of step 4; it has 3, 6, 9": ["inspect", "run", "--step", "4"],
    "--step and --best choose from a run": ["inspect", "run/checkpoints/step-00000009", "--best"],
    "none.yaml: no such file": ["inspect", "run", "--config", "none.yaml"],
}


@pytest.mark.parametrize("part", MISTAKES)
def test_a_mistake_is_one_line(
    run: Run, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "young/checkpoints").mkdir(parents=True)
    code, out, err = command(*MISTAKES[part])
    assert (code, out) == (2, "")
    assert part in err
    assert err.startswith("checkpoint.py: ")
    assert err.count("\n") == 1


@pytest.mark.process
def test_the_program_runs_from_anywhere(run: Run) -> None:
    words = [sys.executable, ROOT / "launch/checkpoint.py", "verify", run.folder]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": whole, ") == 3
