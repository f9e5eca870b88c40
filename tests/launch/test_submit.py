"""A command is checked before anything starts, and every mistake comes with a remedy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launch.local.preflight import check_machine
from launch.submit import main
from pipeline.config.load import load
from tests.multiprocess.runs import write_recipe
from tests.support.images import make_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submit")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


@pytest.fixture(autouse=True)
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, on a machine without SLURM; return the one folder of commands."""
    commands = tmp_path / "commands"
    commands.mkdir()
    monkeypatch.setenv("PATH", str(commands))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return commands


def add_command(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\nexit 9\n")
    (folder / name).chmod(0o755)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the message for a command with a user's mistake."""
    try:
        code = main([str(each) for each in arguments])
    except SystemExit as end:
        code = end.code
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert "Traceback" not in output.err
    assert list(Path().iterdir()) == []
    return output.err


# --------------------------------------------------------------------------------------- dry run


def test_a_dry_run_shows_the_summary_and_writes_nothing(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(recipe.parent.rglob("*"))
    settings = ["train.steps=240", "train.accumulation=2", "optim.lr_batch=8"]
    assert main(["--dry-run", str(recipe), *settings]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    shown = dict(line.split(":", 1) for line in output.out.splitlines() if ": " in line)
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["dataset"] == "test, 3 classes, 90 training and 23 validation images"
    assert len(shown["fingerprint"]) >= 32
    assert shown["network"].startswith("cifar_resnet8, ")
    assert shown["network"].endswith(" parameters")
    assert shown["global batch"] == "16 images"
    assert shown["micro batch"] == "8 images per rank x 2 accumulated"
    assert shown["steps per epoch"] == "5.62"
    assert shown["length"] == "240 steps, 42.67 epochs"
    assert "peak 0.1 = 0.05 x 16/8, after 4 steps of warm-up" in shown["learning rate"]
    assert "cosine" in shown["learning rate"]
    assert shown["run"] == "tiny-steps=240_lr_batch=8"
    assert "global_batch: 16" in output.out  # in the recipe
    assert list(Path().iterdir()) == []
    assert sorted(recipe.parent.rglob("*")) == before


@pytest.mark.parametrize("options", [[], ["--full"]], ids=str)
def test_the_output_of_a_dry_run_is_a_recipe(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["--dry-run", *options, str(recipe), "seed=9"]) == 0
    shown = capsys.readouterr().out.partition("\ndataset:")[0]
    (tmp_path / "again.yaml").write_text(shown)
    assert load(tmp_path / "again.yaml") == load(recipe, ["seed=9"])


def test_a_dry_run_shows_what_differs_from_the_defaults(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["data.loader.threads=4", "evaluate.batch_per_rank=256", "optim.momentum=0.9"]
    assert main(["--dry-run", str(recipe), *settings]) == 0
    short = capsys.readouterr().out
    for line in ("lr: 0.05", "name: pad_crop", "name: cosine", "name: dali", "threads: 4"):
        assert f"{line}\n" in short
    for default in ("momentum:", "batch_per_rank: 256", "slurm:", "drain_timeout_seconds"):
        assert default not in short
    assert "--full shows" in short
    assert main(["--dry-run", "--full", str(recipe), *settings]) == 0
    whole = capsys.readouterr().out
    for line in ("momentum: 0.9", "batch_per_rank: 256", "slurm:", "drain_timeout_seconds: 30.0"):
        assert line in whole


def test_what_an_override_drops_and_what_is_doubtful_is_on_standard_error(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    settings = ["data.train.name=random_resized_crop", "schedule.warmup_steps=200"]
    batch = ["train.global_batch=96", "train.precision=bf16"]
    ranks = str(torch.cuda.device_count() + 1)  # more ranks than GPUs run on the CPU
    command = ["--dry-run", str(recipe), *settings, *batch, "train.ema={every_steps: 121}"]
    assert main([*command, "--ranks", ranks, f"train.accumulation={2 if ranks == '1' else 1}"]) == 0
    note, *warnings = capsys.readouterr().err.splitlines()
    assert note.startswith("note: data.train.name=random_resized_crop drops what random_resized_")
    assert note.endswith(": pad=2")
    assert [each.split("=")[0] for each in warnings] == [
        "warning: train.global_batch",
        "warning: schedule.warmup_steps",
        "warning: train.ema.every_steps",
        "warning: train.precision",
    ]


@pytest.mark.parametrize(
    "order",
    [
        "--dry-run --ranks 2 RECIPE seed=7 name=other",
        "RECIPE seed=7 name=other --ranks 2 --dry-run",
        "--ranks=2 RECIPE seed=7 --dry-run name=other",
        "RECIPE --local seed=7 --nodes 1 name=other --ranks 2 --dry-run",
    ],
)
def test_options_may_be_in_any_order(
    recipe: Path, capsys: pytest.CaptureFixture[str], order: str
) -> None:
    assert main(order.replace("RECIPE", str(recipe)).split(" ")) == 0
    shown = capsys.readouterr().out
    assert "seed: 7\n" in shown
    assert "name: other\n" in shown
    assert "8 images per rank\n" in shown


@pytest.mark.process
def test_a_checkout_that_is_not_installed_runs_from_another_folder(
    recipe: Path, tmp_path: Path
) -> None:
    """A relative path starts in the current folder."""
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "launch" / "submit.py", "--dry-run", recipe.name],
        cwd=recipe.parent,
        # Without the site module, only the named folder is on the path.
        env=os.environ | {"PYTHONPATH": str(Path(torch.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "learning rate:" in done.stdout
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------------- mistakes


def test_a_missing_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in refusal(capsys, "nowhere.yaml")


def test_a_missing_dataset(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, recipe, "data.dir=nowhere")
    assert "nowhere" in said
    assert "data/prepare.py" in said


def test_missing_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=9, val=3))
    (tmp_path / "data" / "images" / "train" / "00004.JPEG").unlink()
    said = refusal(capsys, recipe)
    assert "00004.JPEG" in said
    assert "data.on_corrupt=skip" in said


def test_an_unknown_network(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, recipe, "model.name=resnet51")
    assert "resnet51" in said
    assert "did you mean" in said.lower()
    assert "resnet50" in said


def test_an_unknown_setting(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, recipe, "train.epoch=3")
    assert "did you mean" in said.lower()
    assert "epochs" in said


def test_a_batch_that_does_not_divide(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, recipe, "train.global_batch=40", "--ranks", 3)
    assert "train.global_batch=40" in said
    assert "try 24 or 48" in said
    for batch in (24, 48):
        assert main([str(recipe), f"train.global_batch={batch}", "--ranks", "3", "--dry-run"]) == 0


@pytest.mark.parametrize("option", ["--nodes", "--ranks"])
@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "x", ""])
def test_counts(recipe: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    said = refusal(capsys, recipe, f"{option}={value}")
    assert option in said
    assert "must be a whole number, at least 1" in said


def test_arguments_of_other_programs(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argument, hint in (
        ("--lr=0.1", "settings have no dashes: optim.lr=..."),
        ("--optim.lr=0.1", "settings have no dashes: optim.lr=0.1"),
        ("--batch-size=64", "settings have no dashes: train.global_batch=..."),
        ("--gpus=4", "here it is --ranks N"),
        ("--dry_run", "did you mean --dry-run?"),
    ):
        assert f"unrecognized arguments: {argument}; {hint}\n" in refusal(capsys, recipe, argument)
    assert "--full only works with --dry-run" in refusal(capsys, recipe, "--full")


@pytest.mark.process
@pytest.mark.slow
def test_the_clients_of_slurm_without_a_cluster(
    recipe: Path, no_slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine with SLURM's packages that belongs to no cluster."""
    if shutil.which("scontrol", path=os.defpath) is None:
        pytest.skip("SLURM is not installed")
    no_slurm.rmdir()
    no_slurm.symlink_to(Path(shutil.which("scontrol", path=os.defpath) or "").parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF_SERVER", "127.0.0.1:1")  # no configuration, and no search for it
        for options in (["--nodes", "2"], ["--sweep", "seed=1,2"]):
            said = refusal(capsys, recipe, *options)
            assert "to train on this machine, use --local; on a cluster, check that slurm" in said
            assert len(said.splitlines()) == 1


def test_several_nodes_without_slurm(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--dry-run"]):
        said = refusal(capsys, "--nodes", 4, recipe, *options)
        assert "--nodes 4" in said
        assert "sbatch is not on PATH" in said
        assert "login node" in said


@pytest.mark.process
def test_with_slurm(recipe: Path, no_slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here sbatch exists but scontrol does not; for a real cluster, see tests/slurm."""
    add_command(no_slurm, "sbatch")
    assert "scontrol is not on PATH; run this on a SLURM login node" in refusal(capsys, recipe)
    assert "--local trains on this machine" in refusal(capsys, recipe, "--local", "--nodes", 2)
    assert main(["--local", "--dry-run", str(recipe)]) == 0


def test_a_password(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("tracking.uri=http://me:s3cr3t@host", "env.HF_TOKEN=s3cr3t"):
        for options in ([], ["--dry-run"]):
            said = refusal(capsys, recipe, setting, *options)
            assert "has a password or key" in said
            assert "s3cr3t" not in said
    Path("../mine.yaml").write_text(recipe.read_text() + "env: {HF_TOKEN: s3cr3t}\n")
    assert ": env.HF_TOKEN: has a password or key, which" in refusal(capsys, "../mine.yaml")


def test_a_store_that_mlflow_refuses_for_good(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    for options in ([], ["--dry-run"]):
        said = refusal(capsys, recipe, "tracking.mlflow=true", *options)
        assert said.startswith("MLFLOW_TRACKING_URI=file:./mlruns is a folder")
    assert main(["--dry-run", str(recipe), "tracking.mlflow=false"]) == 0


def test_decoding_on_a_gpu_needs_one(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = torch.cuda.device_count() + 1  # more ranks than GPUs run on the CPU
    batch = f"train.global_batch={16 * ranks}"
    said = refusal(capsys, recipe, batch, "data.loader.decode=mixed", "--ranks", ranks)
    assert "data.loader.decode=mixed" in said
    assert "data.loader.decode=auto" in said
    check_machine(load(recipe, ["data.loader.decode=mixed"]), gpus=1)
    check_machine(load(recipe, ["data.loader.decode=auto"]), gpus=0)


def test_compiling_needs_a_compiler(
    recipe: Path, no_slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, recipe, "train.compile=true")
    assert "C++ compiler" in said
    assert "train.compile=false" in said
    add_command(no_slurm, "g++")
    assert main(["--dry-run", str(recipe), "train.compile=true"]) == 0
