"""Today's code opens what earlier code saved; old_runs/make.py describes it."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from data import prepare, verify
from pipeline.train import main
from tests.multiprocess.runs import events, newest, result
from tests.support.stored_networks import program

ARCHIVES = sorted((Path(__file__).parent / "old_runs").glob("*.tar.xz"))
FINISHED = "runs/finished"
CLASSES = 3


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def unfinished(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the unfinished run; all paths are relative to the archive's folder."""
    monkeypatch.chdir(unpacked)
    (run,) = Path("runs").glob("unfinished-*")
    return run


def tensors(*parts: object) -> dict[str, Tensor]:
    return load_file(Path(*map(str, parts)))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# ---------------------------------------------------------------------------------------- training


@pytest.mark.process
def test_an_unfinished_run_resumes_as_it_did_then(
    unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same command, and the same momentum, average, rates and images."""
    shutil.copytree(".", tmp_path, ignore=shutil.ignore_patterns("averages"), dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    assert main(["unfinished.yaml"]) == 0

    assert list(Path("runs").glob("unfinished-*")) == [unfinished]
    assert [event["first_step"] for event in events(unfinished, "run_started")] == [1, 9]
    assert newest(unfinished) == result(unfinished)["steps"] == 12
    told = [event for event in events(unfinished, "progress") if event["step"] > 8]
    told += events(unfinished, "evaluated")[-1:]
    expected = [json.loads(line) for line in Path("resumed.jsonl").read_text().splitlines()]
    for key, tolerance in {"step": 0.0, "epoch": 0.0, "lr": 1e-12, "loss": 1e-2}.items():
        values = [event[key] for event in expected if key in event]
        assert [event[key] for event in told if key in event] == pytest.approx(values, tolerance)


def test_a_finished_run_is_finished(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(Path(FINISHED).rglob("*"))
    told = Path(FINISHED, "metrics.jsonl").read_bytes()

    assert main(["finished.yaml"]) == 0

    table = capsys.readouterr().out
    assert "Top-1 error" in table
    assert f"{result(Path(FINISHED))['parameters']:,}" in table
    assert sorted(Path(FINISHED).rglob("*")) == files
    assert Path(FINISHED, "metrics.jsonl").read_bytes() == told


def test_the_dataset_is_whole(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = "datasets/tiny"
    assert verify.main([folder, "--decode", "--workers", "1"]) == 0
    assert prepare.main(["imagefolder", folder, "--out", folder, "--workers", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- checkpoints


def inspected(place: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert program("inspect", place, "--json") == 0
    said = capsys.readouterr()
    assert not said.err
    return json.loads(said.out)


def test_inspect(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = inspected(unfinished, capsys)
    assert shown["path"] == f"{unfinished}/checkpoints/step-00000008"
    assert (shown["step"], shown["config_name"]) == (8, "unfinished")
    assert (shown["network"], shown["classes"]) == ("cifar_resnet8", CLASSES)
    assert shown["epoch"] == pytest.approx(8 * 16 / 36)
    assert shown["top1_error_percent"] is not None
    assert shown["has_ema"]
    assert shown["optimiser_groups"]
    finished = inspected(FINISHED, capsys)
    assert finished["parameters"] == result(Path(FINISHED))["parameters"]
    assert finished["scaler"]["scale"] > 0
    assert not finished["has_ema"]
    average = inspected("averages/unfinished", capsys)
    assert [member["step"] for member in average["average_of"]] == [4, 8]
    assert not average["optimiser_groups"]


def test_verify(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {str(unfinished): 2, FINISHED: 1, "averages/unfinished": 1, "averages/resnet18": 1}
    for place, count in counts.items():
        capsys.readouterr()
        assert program("verify", place) == 0
        assert capsys.readouterr().out.count(": whole, ") == count


def test_convert_to_safetensors(unfinished: Path, tmp_path: Path) -> None:
    newest = unfinished / "checkpoints/step-00000008"
    for options, groups in {(): ("model", "ema"), ("--live",): ("model",)}.items():
        out = tmp_path / f"{len(options)}.safetensors"
        assert program("convert", unfinished, "--to", "safetensors", "--out", out, *options) == 0
        expected: dict[str, Tensor] = {}
        for group in groups:
            expected |= tensors(newest, f"{group}.safetensors")
        assert_same(tensors(out), expected)


@pytest.mark.parametrize("form", ["torchvision", "timm"])
def test_convert_for_other_libraries(unfinished: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "resnet18.safetensors"
    assert program("convert", "averages/resnet18", "--to", form, "--out", out) == 0
    if form == "torchvision":
        network = models.resnet18(num_classes=CLASSES)
    else:
        network = timm.create_model("resnet18", num_classes=CLASSES)
    network.load_state_dict(tensors(out))
    assert_same(network.state_dict(), tensors("averages/resnet18/model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("place", [FINISHED, "averages/unfinished"])
def test_convert_to_onnx(unfinished: Path, tmp_path: Path, place: str) -> None:
    out = tmp_path / "network.onnx"
    assert program("convert", place, "--to", "onnx", "--out", out) == 0
    assert out.stat().st_size > 200_000


def test_the_average_is_the_same_as_then(unfinished: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean"
    assert program("average", unfinished, "--last", 2, "--out", out) == 0
    assert_same(tensors(out, "model.safetensors"), tensors("averages/unfinished/model.safetensors"))
    then = json.loads(Path("averages/unfinished/average.json").read_text())
    assert json.loads((out / "average.json").read_text()) == then


def test_average_of_averages(unfinished: Path, tmp_path: Path) -> None:
    average = "averages/unfinished"
    assert program("average", average, average, "--out", tmp_path / "mean") == 0
    found = tensors(tmp_path / "mean/model.safetensors")
    assert_same(found, tensors(average, "model.safetensors"))
