"""What the Dockerfile must do, as far as that can be seen without building the image."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest

from launch.local.ranks import shared_environment
from pipeline.config.load import load

ROOT = Path(__file__).parents[1]
APP = "/app/"
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, without comments, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    matches = [INSTRUCTION.match(line) for line in joined.splitlines() if line]
    assert all(matches), "a line of the Dockerfile is not an instruction"
    return [(match[1], match[2]) for match in matches if match]


def kept_instructions() -> list[tuple[str, str]]:
    """The instructions of the first and the last stage, which the image keeps."""
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
    """Whether `path`, at the top, is sent to the build: the last matching pattern decides."""
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


def test_every_copied_file_exists_and_is_sent_to_the_build() -> None:
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
    assert int(user) > 0, "a number, which clusters can check, unlike a name"
    assert int(group) > 0


def test_neither_file_names_a_host() -> None:
    for file in ("Dockerfile", ".dockerignore"):
        text = (ROOT / file).read_text()
        assert not re.findall(r"\w+://|\b[\w-]+(?:\.[\w-]+)*\.(?:com|io|net|org|dev)\b", text), file


def test_the_command_of_the_image_is_valid() -> None:
    python, program, local, config, *overrides = json.loads(arguments_of("CMD")[-1])
    assert (python, local) == ("python", "--local")
    assert (ROOT / program.removeprefix(APP)).is_file()
    loaded = load(ROOT / config.removeprefix(APP), overrides)
    (prepared,) = re.findall(r"data/prepare.py \w+ --out (\S+)", " ".join(arguments_of("RUN")))
    assert str(loaded.data.dir) == APP + prepared


def test_the_image_sets_no_variable_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pyxis it would override the launcher's: ranks would import other code."""
    with monkeypatch.context() as patch:
        patch.setattr("os.environ", {})
        of_the_launcher = set(shared_environment(1, cpu_only=True))
    words = [word for line in arguments_of("ENV") for word in shlex.split(line)]
    of_the_image = {word.partition("=")[0] for word in words}
    assert "PYTHONPATH" in of_the_launcher
    assert "PATH" in of_the_image
    assert not of_the_image & of_the_launcher


def test_every_dependency_has_its_version_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    extras = project["optional-dependencies"].values()
    names = {re.split(r"[^\w.-]", each)[0] for each in [*project["dependencies"], *chain(*extras)]}
    assert names - {project["name"]} <= locked


def test_the_image_has_the_libraries_of_all_extras() -> None:
    commands = " ".join(arguments for _, arguments in instructions())
    assert "uv pip compile pyproject.toml --extra all --constraint requirements.lock" in commands


def test_only_pipeline_can_be_imported_everywhere_in_the_image() -> None:
    """A path file or PYTHONPATH would add `data` and `launch` as well."""
    text = (ROOT / "Dockerfile").read_text()
    assert "ln -s /app/pipeline /opt/venv/lib/python3*/site-packages/" in text
    assert ".pth" not in text
    assert "PYTHONPATH" not in text


def test_nothing_is_installed_without_its_hash() -> None:
    libraries = " ".join(arguments for _, arguments in instructions())
    assert "uv pip sync --require-hashes" in libraries
    assert "uv pip install" not in libraries


def test_no_list_of_packages_is_left_in_a_layer() -> None:
    for command in arguments_of("RUN"):
        assert ("apt-get update" in command) == ("rm -rf /var/lib/apt/lists" in command)
