"""The command that resumes a run on this machine can be pasted, wherever it is printed."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from launch.resume import local_command
from pipeline.config.load import load
from pipeline.runs.folder import CONFIG_FILE
from tests.support.run_folders import config, hold_once

HERE = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.parametrize("name", ["plain", "my experiment's #1: $HOME"])
def test_from_another_folder_it_first_goes_to_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Relative paths of the configuration start there."""
    start = tmp_path / name
    start.mkdir()
    monkeypatch.chdir(start)
    run = hold_once(config(Path("runs"))).resolve()
    monkeypatch.chdir(HERE)
    command = local_command(load(run / CONFIG_FILE), run, ["train.log_every_steps=5"])
    folder, words = command.split(" && ")
    assert shlex.split(folder) == ["cd", str(start)]
    python, program, *options = shlex.split(words)
    assert Path(program).is_file()
    assert Path(python).name.startswith("python")
    assert options[:2] == ["--local", f"{run}/config.yaml"]
    assert load(run / CONFIG_FILE, options[2:]).run_dir == run
    # The shell reads it as we do.
    echo = f"{folder} && pwd && printf '%s\\n' {words}"
    said = subprocess.run(["sh", "-c", echo], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:-1] == [os.fspath(start), python, program, *options]


def test_where_it_was_started_it_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = hold_once(config(Path("runs"))).resolve()
    assert " && " not in local_command(load(run / CONFIG_FILE), run, [])
    monkeypatch.chdir(HERE)
    elsewhere = hold_once(config(tmp_path / "absolute"))
    assert " && " not in local_command(load(elsewhere / CONFIG_FILE), elsewhere, [])
