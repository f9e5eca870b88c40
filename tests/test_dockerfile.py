"""The laws of the image that can be told from its files, without building it."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from launch.local.ranks import shared_environment
from pipeline.config.load import load

ROOT = Path(__file__).parents[1]
APP = "/app/"
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, less comments, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    matches = [INSTRUCTION.match(line) for line in joined.splitlines() if line]
    assert all(matches), "a line of the Dockerfile is no instruction"
    return [(match[1], match[2]) for match in matches if match]


def kept_instructions() -> list[tuple[str, str]]:
    """The instructions whose traces the image keeps: of the first stage, and the last."""
    stages: list[list[tuple[str, str]]] = []
    for keyword, arguments in instructions():
        if keyword == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((keyword, arguments))
    assert stages[-1][0] == ("FROM", "base")
    assert stages[0][0] == ("FROM", "${BASE_IMAGE} AS base")
    return stages[0] + stages[-1]


def arguments_of(keyword: str) -> list[str]:
    return [arguments for name, arguments in kept_instructions() if name == keyword]


def is_sent(path: str) -> bool:
    """Whether `path`, at the top, goes into a build: the last pattern that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize(
    "name", ["datasets", "runs", ".venv", ".git", "mlflow.db", "tests", ".env"]
)
def test_data_runs_environments_and_history_stay_out_of_the_build(name: str) -> None:
    assert not is_sent(name)


def test_everything_that_is_copied_exists_and_is_sent_to_the_build() -> None:
    copied = [
        source
        for keyword, arguments in instructions()
        if keyword == "COPY" and "--from=" not in arguments
        for source in shlex.split(arguments)[:-1]
    ]
    named = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    assert "." in copied
    for path in {*copied, *named} - {"."}:
        assert (ROOT / path).exists(), path
        assert is_sent(path), path


def test_the_image_is_not_run_as_root() -> None:
    user, group = arguments_of("USER")[-1].split(":")
    assert int(user) > 0, "a number, for clusters that check it; a name says nothing to them"
    assert int(group) > 0


def test_neither_file_names_a_host() -> None:
    for file in ("Dockerfile", ".dockerignore"):
        text = (ROOT / file).read_text()
        assert not re.findall(r"\w+://|\b[\w-]+(?:\.[\w-]+)*\.(?:com|io|net|org|dev)\b", text), file


def test_the_command_of_the_image_is_a_valid_one() -> None:
    python, program, local, config, *overrides = json.loads(arguments_of("CMD")[-1])
    assert (python, local) == ("python", "--local")
    assert (ROOT / program.removeprefix(APP)).is_file()
    loaded = load(ROOT / config.removeprefix(APP), overrides)
    (prepared,) = re.findall(r"data/prepare.py \w+ --out (\S+)", " ".join(arguments_of("RUN")))
    assert str(loaded.data.dir) == APP + prepared


def test_the_image_sets_no_variable_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pyxis it would win over the launcher's: ranks would import other code."""
    with monkeypatch.context() as patch:
        patch.setattr("os.environ", {})
        of_the_launcher = set(shared_environment(1, cpu_only=True))
    words = [word for line in arguments_of("ENV") for word in shlex.split(line)]
    of_the_image = {word.partition("=")[0] for word in words}
    assert "PYTHONPATH" in of_the_launcher
    assert "PATH" in of_the_image
    assert not of_the_image & of_the_launcher


def test_every_dependency_is_in_the_lock_so_that_none_is_resolved_anew() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    for dependency in project["dependencies"]:
        assert re.split(r"[^\w.-]", dependency)[0] in locked, dependency


def test_nothing_is_installed_without_its_hash() -> None:
    libraries = " ".join(arguments for _, arguments in instructions())
    assert "uv pip sync --require-hashes" in libraries
    assert "uv pip install" not in libraries


def test_no_list_of_packages_is_left_in_a_layer() -> None:
    for command in arguments_of("RUN"):
        assert ("apt-get update" in command) == ("rm -rf /var/lib/apt/lists" in command)
