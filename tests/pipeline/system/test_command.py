"""How a program ends: its exit code, and one message for a mistake."""

import shlex
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.system.command import Parser, command_line, count, plural, run_command
from pipeline.system.exit_codes import INTERRUPTED, USER_MISTAKE


def failing(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize("code", [0, 1, 75])
def test_the_exit_code_of_the_work_is_returned(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: code, name="program") == code
    assert capsys.readouterr() == ("", "")


MISTAKES: list[tuple[Exception, str]] = [
    (ValueError("lr=fast: must be a number"), "lr=fast: must be a number"),
    (
        FileNotFoundError(2, "No such file or directory", "/data/x.yaml"),
        "/data/x.yaml: No such file or directory; fix that and try again",
    ),
    (OSError(28, "No space left on device"), "No space left on device; fix that and try again"),
    (OSError("no tape"), "no tape; fix that and try again"),
]


@pytest.mark.parametrize(("error", "message"), MISTAKES)
@pytest.mark.parametrize("name", ["", "program"])
def test_a_mistake_of_the_user_is_one_message_and_exit_code_2(
    error: Exception, message: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(error), name=name) == USER_MISTAKE == 2
    prefix = f"{name}: " if name else ""
    assert capsys.readouterr() == ("", f"{prefix}{message}\n")


def test_the_advice_can_say_what_to_do_again(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(failing(OSError("no tape")), again="verify again")
    assert capsys.readouterr().err == "no tape; fix that and verify again\n"


@pytest.mark.parametrize(
    ("interrupted", "message"), [("", ""), ("stopped; nothing is lost", "\nprogram: stopped;")]
)
def test_ctrl_c_is_exit_code_130(
    interrupted: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = failing(KeyboardInterrupt())
    assert run_command(work, name="program", interrupted=interrupted) == INTERRUPTED == 130
    assert capsys.readouterr().err.startswith(message)


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(AssertionError, match="a bug"):
        run_command(failing(AssertionError("a bug")))


LINES = """
import sys
from pipeline.system.command import run_command

def work():
    sys.stdin.readline()
    for number in range({lines}):
        print(number)
    return 3

raise SystemExit(run_command(work, name="program"))
"""


@pytest.mark.process
@pytest.mark.parametrize("lines", [1, 200_000], ids=["at the last flush", "while it works"])
def test_a_closed_pipe_is_not_an_error(lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LINES.format(lines=lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        program.stdout.close()
        program.stdout = None
        _, errors = program.communicate("go\n", timeout=60)
    assert (program.returncode, errors) == (0, "")


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("4096", 4096)])
def test_a_count_is_a_whole_number(text: str, number: int) -> None:
    assert count(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", ""])
def test_anything_else_is_not_a_count(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a whole number, at least 1"):
        count(text)


def test_nouns_agree_with_their_number() -> None:
    assert plural(1, "rank") == "1 rank"
    assert plural(0, "rank") == "0 ranks"
    assert plural(1000, "class", "classes") == "1,000 classes"


# ------------------------------------------------------------------------------- arguments


def refused(parser: Parser, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the message for arguments that `parser` does not know."""
    with pytest.raises(SystemExit) as end:
        parser.parse_args(arguments)
    assert end.value.code == USER_MISTAKE
    return capsys.readouterr().err.splitlines()[-1]


def example() -> Parser:
    parser = Parser(prog="program", hint=lambda name: "write optim.lr=..." if name == "lr" else "")
    parser.add_argument("--nodes")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("words", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--nodess=3", "did you mean --nodes?"),
        ("--dryrun", "did you mean --dry-run?"),
        ("-nodes", "did you mean --nodes?"),
        ("--lr", "write optim.lr=..."),
    ],
)
def test_an_unknown_option_comes_with_a_suggestion(
    capsys: pytest.CaptureFixture[str], argument: str, hint: str
) -> None:
    said = refused(example(), capsys, argument)
    assert said == f"program: error: unrecognized arguments: {argument}; {hint}"


def test_without_a_near_name_nothing_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(example(), capsys, "--zzz", "--\x1b[2J")
    assert said == r"program: error: unrecognized arguments: --zzz --\x1b[2J"


def test_a_subcommand_suggests_its_own_options_and_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = Parser(prog="program")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("imagenet").add_argument("--devkit")
    commands.add_parser("digits").add_argument("--out")
    said = refused(parser, capsys, "imagenet", "--devkti=x", "--ou=y")
    assert said.startswith("program imagenet: error: unrecognized arguments: --devkti=x --ou=y; ")
    assert said.endswith("did you mean --devkit?")
    assert refused(parser, capsys, "imagnet").endswith("; did you mean imagenet?")


# -------------------------------------------------------------------------------- commands


def test_a_command_works_where_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own = Path(__file__).parents[3], Path(sys.executable)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", str(own.parent))
    run = tmp_path / "my run's $HOME"
    assert (
        command_line("launch/status.py", run) == f"python launch/status.py {shlex.quote(str(run))}"
    )
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command_line("launch/status.py", run, "--json"))
    assert words == ["python", str(root / "launch/status.py"), str(run), "--json"]


def test_the_interpreter_is_named_if_python_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = shlex.split(command_line("launch/status.py"))[0]
    assert Path.cwd() / program == Path(sys.executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(command_line("launch/status.py"))[0] == "bin/python"
