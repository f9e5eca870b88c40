"""The points of a sweep, their folders and results, and training them without a cluster."""

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.submit import main
from launch.sweep.points import Axis, name_points, plan_sweep, split_values
from launch.sweep.results import read_results
from launch.sweep.sequential import train_points
from pipeline.runs.find import find_runs
from pipeline.runs.folder import RESULT, hold_run_folder
from tests.launch.queued_runs import run_program
from tests.multiprocess.runs import write_recipe
from tests.support.images import make_dataset

SEEDS = "seed=0,1"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeping")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


@pytest.fixture(autouse=True)
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on a machine without SLURM."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.2", ["0.1", "0.2"]),
        (" 1 , 2", ["1", "2"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{a: 1, b: [2, 3]},null", ["{a: 1, b: [2, 3]}", "null"]),
        ("'a, b',\"c,d\"", ["'a, b'", '"c,d"']),
        ("it's,7", ["it's", "7"]),
        ("one", ["one"]),
    ],
)
def test_values_are_split_at_commas_outside_brackets_and_quotes(
    text: str, values: list[str]
) -> None:
    assert split_values(text) == values


def test_points_are_all_combinations_and_the_last_setting_changes_fastest() -> None:
    axes = [Axis("optim.lr", ["0.1", "0.2"]), Axis("seed", ["0", "1"])]
    assert name_points(axes) == [
        (f"lr={lr}_seed={seed}", {"optim.lr": lr, "seed": seed})
        for lr in ("0.1", "0.2")
        for seed in ("0", "1")
    ]


def test_keys_with_the_same_last_word_are_named_in_full() -> None:
    axes = [Axis("data.train.name", ["a"]), Axis("model.name", ["b"])]
    assert name_points(axes)[0][0] == "data.train.name=a_model.name=b"


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8))
def test_every_point_has_a_unique_and_safe_name(values: list[str]) -> None:
    names = [name for name, _ in name_points([Axis("optim.lr", values), Axis("seed", ["0", "1"])])]
    assert len(set(names)) == 2 * len(values)
    assert all(re.fullmatch(r"lr=[\w.+-]+_seed=[01]", name) for name in names)


def test_the_sweep_folder_depends_on_what_decides_the_results(recipe: Path) -> None:
    first = plan_sweep(recipe, [], ["optim.lr=0.1,0.2"])
    assert first == plan_sweep(recipe, ["optim.momentum=0.9"], ["optim.lr=0.1,0.2"])
    again = plan_sweep(recipe, ["train.log_every_steps=7"], ["optim.lr=0.1,0.2"])
    assert first.folder == again.folder  # a setting that does not change results
    assert first.folder != plan_sweep(recipe, ["seed=9"], ["optim.lr=0.1,0.2"]).folder
    assert re.fullmatch(r"tiny-sweep-[0-9a-f]{6}", first.folder.name)
    assert [point.config.tracking.group for point in first.points] == [first.folder.name] * 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--sweep", "optim.lr"], "write KEY=VALUE,VALUE"),
        (["--sweep", "optim.lr="], "a value is empty"),
        (["--sweep", "optim.lr=0.1,,0.2"], "a value is empty"),
        (["--sweep", "optim.lr=[0.1,0.2"], "] is missing"),
        (["--sweep", "optim.lr=0.1", "--sweep", "optim.lr=0.2"], "optim.lr is given twice"),
        (["--sweep", "optim.lr=0.1,0.2", "optim.lr=0.3"], "both set and swept"),
        (["--sweep", "optim.lr=0.1,0.10"], "is the same training as"),
        (["--sweep", "optim.lr=0.1,fast"], "lr=fast: command line: optim.lr=fast"),
        (["--sweep", "optim.rate=0.1"], "rate=0.1: command line: optim.rate=0.1"),
        (["--sweep", "train.global_batch=16,9999"], "global_batch=9999: "),
        (["--sweep", "name=a,b"], "name is the same for all points"),
        (["--sweep", SEEDS, "run_dir=x"], "run_dir cannot be set"),
        (["--sweep", SEEDS, "--executor", "local"], "--executor does not work with --sweep"),
        (["--sweep", SEEDS, "--nodes", "2"], "--nodes 2 needs a SLURM cluster"),
        (["--parallel", "2"], "--parallel only works with --sweep"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_written(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main([str(recipe), *arguments]) == 2
    output = capsys.readouterr()
    assert part in output.err
    assert output.out == ""
    assert "Traceback" not in output.err
    assert list(Path().iterdir()) == []


@pytest.mark.process
def test_points_are_trained_one_by_one_and_a_failure_does_not_stop_the_next(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["--sweep", "optim.lr=1e30,0.05", "--ranks", "1", str(recipe), "train.steps=20"]
    assert main(command) == 1
    (folder,) = Path("runs").iterdir()
    assert not (folder / "lr=1e30" / RESULT).exists()
    assert (folder / "lr=0.05" / RESULT).exists()
    assert [run.name for run in find_runs([Path("runs")])] == ["lr=0.05", "lr=1e30"]
    (folder / "lr=1e30" / RESULT).write_text("{}")
    capfd.readouterr()
    assert main(command) == 0  # nothing is left to train
    assert "all 2 points are finished" in capfd.readouterr().out


@pytest.mark.parametrize("code", [0, 75, 130])
def test_ctrl_c_ends_the_sweep_even_if_the_point_finishes_first(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    started: list[Any] = []

    def run(command: Any, *, on_stop: Any, **_: Any) -> int:
        started.append(command)
        on_stop(signal.SIGINT)
        return code

    monkeypatch.setattr("launch.sweep.sequential.run_ranks", run)
    sweep = plan_sweep(recipe, [], ["seed=0,1,2"])
    assert train_points(sweep, [str(recipe)], ranks=1, gpus=0) == (code or 130)
    assert len(started) == 1


@pytest.mark.process
def test_results_have_mean_and_sample_deviation_over_the_seeds(
    recipe: Path, tmp_path: Path
) -> None:
    sweep = plan_sweep(recipe, [], ["seed=0,1,2", "optim.lr=0.1,0.2,0.4"])
    sweep.save()
    errors = {"0.1": [24.0, 25.0, 27.0], "0.2": [23.5], "0.4": []}
    for point in sweep.points:
        with hold_run_folder(point.config) as run_dir:
            seed, found = int(point.settings["seed"]), errors[point.settings["optim.lr"]]
            if seed < len(found):
                (run_dir / RESULT).write_text(json.dumps({"top1_error_percent": found[seed]}))
    lines = read_results(sweep.folder).lines
    assert [line.settings for line in lines] == [{"optim.lr": lr} for lr in errors]
    assert [line.finished for line in lines] == [3, 1, 0]
    assert [line.unfinished for line in lines] == [0, 2, 3]
    assert lines[0].mean_top1_error_percent == pytest.approx(76 / 3)
    assert lines[0].sample_standard_deviation == pytest.approx(math.sqrt(7 / 3))
    assert (lines[1].mean_top1_error_percent, lines[1].sample_standard_deviation) == (23.5, None)
    assert lines[2].mean_top1_error_percent is None
    by_folder = run_program("status.py", "--sweep", sweep.folder)
    by_name = run_program("status.py", "--sweep", sweep.folder.name, sweep.folder.parent)
    assert by_folder.stdout == by_name.stdout
    assert re.search(r"optim\.lr=0\.1 +25\.33 % +1\.53 % +3 +0 *\n", by_name.stdout)
    assert re.search(r"optim\.lr=0\.2 +23\.50 % +- +1 +2 *\n", by_name.stdout)
    assert "5 points are unfinished" in by_name.stdout
    shown = json.loads(run_program("status.py", "--json", "--sweep", sweep.folder).stdout)
    assert shown["lines"][1]["mean_top1_error_percent"] == 23.5
    unknown = run_program("status.py", "--sweep", "none", sweep.folder.parent)
    assert unknown.returncode == 2
    assert f"known: {sweep.folder.name}" in unknown.stderr
