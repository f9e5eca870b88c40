"""What all programs share: the exit code, the message for a mistake, arguments and commands."""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from pipeline.system.exit_codes import INTERRUPTED, USER_MISTAKE
from pipeline.system.secrets import hide_secrets
from pipeline.system.text import printable

ROOT = Path(__file__).resolve().parents[2]
UNRECOGNIZED = "unrecognized arguments: "
REQUIRED = "the following arguments are required: "
INVALID_CHOICE = re.compile(r"invalid choice: '(?P<word>.*)' \(choose from (?P<choices>.*)\)")


def run_command(
    work: Callable[[], int], *, name: str = "", interrupted: str = "", again: str = "try again"
) -> int:
    """Return the exit code of `work`, or of the error that ended it.

    `ValueError` and `OSError` are user mistakes: print one message on standard error, prefixed with
    the program's `name` if given, and return 2. Ctrl-C prints `interrupted` and returns 130. A
    closed pipe on standard output (`| head`) returns 0. `again` completes the advice for an
    `OSError`.
    """
    prefix = f"{name}: " if name else ""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        return _refuse(f"{prefix}{error}")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{prefix}{place}{error.strerror or error}; fix that and {again}")
    except KeyboardInterrupt:
        if interrupted:
            print(f"\n{prefix}{interrupted}", file=sys.stderr)
        return INTERRUPTED
    return code


class Parser(argparse.ArgumentParser):
    """A parser that suggests what an unknown argument or subcommand may have meant."""

    def __init__(self, *, hint: Callable[[str], str] = lambda _: "", **settings: Any) -> None:
        """`hint` returns advice for an unknown option, given without its dashes; or ""."""
        super().__init__(**settings)
        self._hint = hint
        self._words: Sequence[str] = ()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """See argparse; the arguments are kept for the suggestions."""
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def add_subparsers(self, **settings: Any) -> Any:
        """See argparse; each subparser reports what it does not know itself."""
        return super().add_subparsers(parser_class=_Subparser, **settings)  # pyright: ignore[reportUnknownVariableType]

    def error(self, message: str) -> NoReturn:
        """Print the usage and `message` with suggestions; exit with code 2."""
        hints: list[str] = []
        if message.startswith((UNRECOGNIZED, REQUIRED)):  # a wrong name may be what is missing
            hints = [hint for word in self._words if (hint := self._suggestion(word))]
        elif invalid := INVALID_CHOICE.search(message):
            near = get_close_matches(
                invalid["word"], re.findall(r"[\w-]+", invalid["choices"]), n=1
            )
            hints = [f"did you mean {each}?" for each in near]
        super().error(printable("; ".join([message, *dict.fromkeys(hints)])))

    def _suggestion(self, word: str) -> str:
        option, known = word.partition("=")[0], list(self._option_string_actions)
        if not word.startswith("-") or any(each.startswith(option) for each in known):
            return ""
        if advice := self._hint(word.lstrip("-")):
            return advice
        near = get_close_matches(option, known, n=1) or get_close_matches(f"-{option}", known, n=1)
        return f"did you mean {near[0]}?" if near else ""


class _Subparser(Parser):
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Like argparse's, but unknown arguments are an error."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(UNRECOGNIZED + " ".join(unknown))
        return found, unknown


def command_line(program: str, *arguments: object) -> str:
    """Return a command that can be pasted here: `python launch/status.py RUN`, with quotes.

    `program` is its path in the repository. From another folder the command has its whole path,
    and if `python` is not the interpreter that runs this, that one's.
    """
    own = ROOT / program
    place = own if own.exists() and not Path(program).exists() else program
    return shlex.join([_python(), str(place), *map(str, arguments)])


def _python() -> str:
    found, ours = shutil.which("python"), Path(sys.executable)
    if found and Path(found).parent.resolve() == ours.parent.resolve():
        return "python"
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)


def note(message: str) -> None:
    """Print a note on standard error; of several ranks, only the first does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {printable(message)}", file=sys.stderr)


def count(text: str) -> int:
    """Parse an argument that is a whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


def plural(number: int, noun: str, several: str = "") -> str:
    """Return `number` and its noun: 1 rank, 2 ranks, 1,000 classes."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def _refuse(message: str) -> int:
    print(printable(hide_secrets(message)), file=sys.stderr)
    return USER_MISTAKE
