"""The patch of the changes gives the code back, is bounded, and has no passwords."""

import subprocess
from pathlib import Path

import pytest

from launch.slurm.submit.changes import FILE_BYTES, PATCH_BYTES, describe_changes
from pipeline.runs.repository import Repository

pytestmark = pytest.mark.process

WHO = ("-c", "user.name=me", "-c", "user.email=me@host", "-c", "commit.gpgsign=false")
LITERAL = 'http = "http://me:s3cr3t@host"\n'


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *WHO, "-C", str(folder), *arguments], check=True)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "pipeline").mkdir(parents=True)
    (folder / "pipeline" / "loop.py").write_text("old\n")
    (folder / ".gitignore").write_text("ignored*\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def changes(folder: Path) -> tuple[bytes, list[str]]:
    return describe_changes(Repository.around(folder, "pipeline/loop.py"))


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_an_unchanged_checkout_has_an_empty_patch(code: Path) -> None:
    assert changes(code) == (b"", [])


def test_the_patch_gives_back_changes_and_untracked_files(code: Path, tmp_path: Path) -> None:
    git(code, "clone", "-q", str(code), str(tmp_path / "again"))
    (code / "pipeline" / "loop.py").write_text("new\n")
    (code / "pipeline" / "new.py").write_text("untracked\n")
    (code / "pipeline" / "ignored.py").write_text("imported all the same\n")
    (code / "pipeline" / "kernel.so").write_bytes(bytes(range(256)))
    (code / "odd [name]*.txt").write_text("x\n")
    (code / "empty").touch()
    (code / "run.sh").write_text("#!/bin/sh\n")
    (code / "run.sh").chmod(0o755)
    git(code, "config", "diff.noprefix", "true")
    index = (code / ".git" / "index").read_bytes()
    patch, notes = changes(code)
    assert notes == []
    assert (code / ".git" / "index").read_bytes() == index
    comment = b"# a comment\n"
    subprocess.run(["git", "-C", tmp_path / "again", "apply"], input=comment + patch, check=True)
    assert files(tmp_path / "again") == files(code)
    assert (tmp_path / "again" / "run.sh").stat().st_mode & 0o100


def test_huge_files_are_left_out_and_named(code: Path) -> None:
    with (code / "huge").open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    (code / "small").write_text("kept\n")
    patch, notes = changes(code)
    assert notes == ["huge is left out: it takes 1.0 MB, more than 1.0 MB"]
    assert b"+kept" in patch
    (code / "huge").unlink()
    for number in range(PATCH_BYTES // FILE_BYTES):
        (code / f"large-{number}").write_bytes(b"x" * FILE_BYTES)
    patch, notes = changes(code)
    assert len(patch) < PATCH_BYTES
    assert len(notes) == 5  # the other half, and the small one
    assert all("is left out: the files before it take 4.2 MB" in note for note in notes)


def test_many_notes_are_summed_up(code: Path) -> None:
    for number in range(30):
        with (code / f"huge-{number}").open("wb") as file:
            file.truncate(FILE_BYTES + 1)
    _, notes = changes(code)
    assert len(notes) == 21
    assert notes[-1] == "10 more files are left out"


def test_passwords_are_not_in_the_patch(code: Path) -> None:
    (code / "mine.yaml").write_text(
        "tracking: {uri: 'http://me:s3cr3t@host'}\nenv:\n  WANDB_API_KEY: s3cr3t\n"
    )
    (code / ".env").write_text("PASSWORD=s3cr3t\n")
    (code / "pipeline" / "loop.py").write_text(f"token = next(tokens)\n{LITERAL}")
    patch, notes = changes(code)
    assert b"s3cr3t" not in patch
    assert b"+token = next(tokens)" in patch
    assert notes == ["passwords and keys are replaced by ***"]


def test_only_the_folder_of_the_code_is_described(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "code" / "pipeline").mkdir(parents=True)
    (outer / "code" / "pipeline" / "loop.py").write_text("old\n")
    git(outer, "init", "-q")
    git(outer, "add", ".")
    git(outer, "commit", "-q", "-m", "first")
    (outer / "elsewhere").touch()
    assert changes(outer / "code") == (b"", [])
    (outer / "code" / "new").write_text("x\n")
    patch, _ = changes(outer / "code")
    assert b"b/code/new" in patch
