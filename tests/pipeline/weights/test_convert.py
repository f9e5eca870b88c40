"""A converted network gives the same logits in other libraries, on real images."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from torchvision import models as torchvision_models

from pipeline.config.load import load
from pipeline.config.schema import Model, model_named
from pipeline.dataset.index import read_manifest
from pipeline.models import build
from tests.support.images import make_dataset
from tests.support.stored_networks import (
    CLASSES,
    MEAN,
    SIDE,
    STD,
    Run,
    digits,
    experienced,
    floats,
    logits,
    make_run,
    normalized,
    program,
)

ROOT = Path(__file__).parents[3]
IMAGES = 16
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""The same layers in the same order; kernels may differ."""
GRAPH_CLOSE = {"rtol": 1e-4, "atol": 1e-4}
"""ONNX Runtime fuses layers, and sums in another order."""


def saved(folder: Path, network: nn.Module, model: Model, average: nn.Module | None = None) -> Run:
    """A run with one checkpoint: `network`, and `average` as the moving average of its weights."""
    run = make_run(folder, model)
    groups = {"model": network.state_dict(), "momentum": {}}
    if average:
        state = average.state_dict()
        groups["ema"] = {name: v for name, v in state.items() if v.is_floating_point()}
    run.save(7, groups)
    return run


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


# ------------------------------------------------------------------------------ named tensors


def test_a_password_in_the_configuration_of_an_earlier_run_is_not_converted(
    tmp_path: Path,
) -> None:
    model = model_named("cifar_resnet8")
    run = saved(tmp_path / "run", experienced(model), model)
    file = run.folder / "config.yaml"
    secret = file.read_text().replace("uri: null", "uri: http://me:s3cr3t@host")
    file.write_text(secret.replace("env: {}", "env: {WANDB_API_KEY: s3cr3t}"))
    assert file.read_text().count("s3cr3t") == 2
    out = tmp_path / "out.safetensors"
    assert program("convert", run.folder, "--to", "safetensors", "--out", out) == 0
    assert b"s3cr3t" not in out.read_bytes()
    assert "network" in metadata(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_and_timm_give_the_same_logits(name: str, tmp_path: Path) -> None:
    model = model_named(name, batch_norm_group=4)
    network = experienced(model)
    run = saved(tmp_path / "run", network, model)
    for form in ("torchvision", "timm"):
        out = tmp_path / f"{form}.safetensors"
        assert program("convert", run.folder, "--to", form, "--out", out) == 0
    theirs = getattr(torchvision_models, name)(num_classes=CLASSES)
    theirs.load_state_dict(load_file(tmp_path / "torchvision.safetensors"), strict=True)
    file = str(tmp_path / "timm.safetensors")
    timms = timm.create_model(name, num_classes=CLASSES, checkpoint_path=file)
    images = floats(digits(IMAGES))
    ours = logits(network, images)
    assert len(set(ours.argmax(1).tolist())) > 1  # it distinguishes the images
    assert_close(logits(theirs, images), ours, **CLOSE)
    assert_close(logits(timms, images), ours, **CLOSE)


@pytest.mark.slow
def test_the_average_is_converted_unless_live(tmp_path: Path) -> None:
    model = model_named("resnet18")
    live, average = experienced(model, seed=1), experienced(model, seed=2)
    run = saved(tmp_path / "run", live, model, average)
    for network, flags in ((average, []), (live, ["--live"])):
        out = tmp_path / f"{len(flags)}.safetensors"
        assert program("convert", run.folder, "--to", "torchvision", "--out", out, *flags) == 0
        theirs = torchvision_models.resnet18(num_classes=CLASSES)
        theirs.load_state_dict(load_file(out), strict=True)
        seen = floats(digits(4))
        assert_close(logits(theirs, seen), logits(network, seen), **CLOSE)
        assert metadata(out)["weights"] == ("live" if flags else "ema")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preact_resnet18", "cifar_resnet8", "cifar_plain8"])
def test_safetensors_have_our_names(name: str, tmp_path: Path) -> None:
    network = experienced(model_named(name))
    run = saved(tmp_path / "run", network, model_named(name))
    out = tmp_path / "w.safetensors"
    assert program("convert", run.folder, "--to", "safetensors", "--out", out) == 0
    mine = build(model_named(name), classes=CLASSES, generator_seed=9)
    mine.load_state_dict(load_file(out), strict=True)
    assert torch.equal(logits(mine, floats(digits(4))), logits(network, floats(digits(4))))


def test_metadata_say_how_to_use_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "data", train=CLASSES, val=CLASSES, classes=CLASSES)
    manifest = read_manifest(dataset)
    model = model_named("cifar_resnet8")
    run = make_run(tmp_path / "run", model, dataset)
    groups = {"model": experienced(model).state_dict()}
    run.save(5, groups, fingerprint=manifest.fingerprint)
    run.save(6, groups, fingerprint="another")
    for step, classes in ((5, list(manifest.classes)), (6, None)):
        out = tmp_path / f"{step}.safetensors"
        chosen = [run.folder, "--step", step]
        assert program("convert", *chosen, "--to", "safetensors", "--out", out) == 0
        kept = metadata(out)
        assert json.loads(kept.get("classes", "null")) == classes
        assert ("is now another dataset" in capsys.readouterr().err) == (classes is None)
        assert json.loads(kept["mean"]) == list(MEAN)
        assert json.loads(kept["std"]) == list(STD)
        assert [kept[key] for key in ("image_size", "resize")] == [str(SIDE)] * 2
        assert [kept[key] for key in ("network", "step")] == [model.name, str(step)]
        (tmp_path / "config.yaml").write_text(kept["config"])
        assert load(tmp_path / "config.yaml") == run.config


# ----------------------------------------------------------------------------------------- ONNX


def run_graph(file: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.slow
def test_an_onnx_graph_takes_bytes_and_gives_the_same_logits(tmp_path: Path) -> None:
    model = model_named("resnet18", batch_norm_group=4)
    network = experienced(model)
    run = saved(tmp_path / "run", network, model)
    out = tmp_path / "w.onnx"
    assert program("convert", run.folder, "--to", "onnx", "--out", out) == 0
    images = digits(IMAGES)
    ours = logits(normalized(network), images)
    assert_close(run_graph(out, images), ours, **GRAPH_CLOSE)
    assert_close(run_graph(out, images[:1]), ours[:1], **GRAPH_CLOSE)
    for trace in (ROOT, "stack_trace", "normalized.py"):  # no trace of where our code is
        assert str(trace).encode() not in out.read_bytes()
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    kept = session.get_modelmeta().custom_metadata_map
    assert [kept[key] for key in ("network", "step", "weights")] == ["resnet18", "7", "live"]


@pytest.mark.slow
def test_without_normalisation_it_takes_floats(tmp_path: Path) -> None:
    model = model_named("cifar_plain8")
    network = experienced(model)
    run = saved(tmp_path / "run", network, model)
    out = tmp_path / "w.onnx"
    assert program("convert", run.folder, "--to", "onnx", "--no-normalise", "--out", out) == 0
    images = floats(digits(5))
    assert_close(run_graph(out, images), logits(network, images), **GRAPH_CLOSE)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
) -> None:
    model = model_named("cifar_resnet8")
    run = saved(tmp_path / "run", experienced(model), model)
    monkeypatch.setitem(sys.modules, package, None)
    assert program("convert", run.folder, "--to", "onnx", "--out", tmp_path / "w.onnx") == 2
    errors = capsys.readouterr().err
    assert f"needs {package}, " in errors
    assert "pip install 'imagenet-pipeline[export]'" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "w.onnx").exists()


# ------------------------------------------------------------------------------------- mistakes

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "torchvision does not have cifar_resnet8; convert it --to onnx": (
        "cifar_resnet8",
        ["torchvision"],
    ),
    "timm does not have cifar_plain8; convert it --to onnx": ("cifar_plain8", ["timm"]),
    "timm does not have preact_resnet18; convert it --to onnx": ("preact_resnet18", ["timm"]),
    "pickles, such as .pth, are not written": ("cifar_resnet8", ["safetensors", "--out", "w.pth"]),
    "writes a file NAME.onnx": ("cifar_resnet8", ["onnx"]),
    "taken.safetensors exists": (
        "cifar_resnet8",
        ["safetensors", "--out", "taken.safetensors"],
    ),
    "folder none is missing": (
        "cifar_resnet8",
        ["safetensors", "--out", "none/w.safetensors"],
    ),
    "--no-normalise only works with --to onnx": (
        "cifar_resnet8",
        ["safetensors", "--no-normalise"],
    ),
    "is not the cifar_resnet14 of its configuration: layer1.1.bn1.bias is missing": (
        "cifar_resnet8",
        ["safetensors", "--config", "other.yaml"],
    ),
}


@pytest.mark.parametrize("part", MISTAKES)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, rest = MISTAKES[part]
    saved(tmp_path / "run", experienced(model_named(name)), model_named(name))
    Path("taken.safetensors").touch()
    text = Path("run/config.yaml").read_text()
    Path("other.yaml").write_text(text.replace("cifar_resnet8", "cifar_resnet14"))
    before = set(tmp_path.iterdir())
    assert program("convert", "run", "--out", "w.safetensors", "--to", *rest) == 2
    output = capsys.readouterr()
    assert part in output.err
    assert output.err.startswith("checkpoint.py: ")
    assert (output.err.count("\n"), output.out) == (1, "")
    assert set(tmp_path.iterdir()) == before


def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_named("cifar_resnet8")
    network = experienced(model)
    with torch.no_grad():
        network.get_parameter("fc.bias")[3] = float("nan")
    run = saved(tmp_path / "run", network, model)
    out = tmp_path / "w.safetensors"
    assert program("convert", run.folder, "--to", "safetensors", "--out", out) == 2
    assert "fc.bias has values that are not finite" in capsys.readouterr().err
    assert not out.exists()


def test_a_checkpoint_without_its_configuration_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_named("cifar_resnet8")
    run = saved(tmp_path / "run", experienced(model), model)
    file, out = run.folder / "config.yaml", tmp_path / "w.safetensors"
    file.rename(tmp_path / "kept.yaml")
    command = ["convert", run.folder, "--to", "safetensors", "--out", out]
    assert program(*command) == 2
    assert "name one with --config FILE" in capsys.readouterr().err
    file.write_text("name: tiny\nmodel: {name: resnet7}\n")
    assert program(*command) == 2
    errors = capsys.readouterr().err
    assert "is no longer valid" in errors
    assert errors.count("\n") == 1
    assert program(*command, "--config", tmp_path / "kept.yaml") == 0
