"""What all programs share: the exit code, the message for a mistake, arguments and plurals."""

import argparse
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from pipeline.system.exit_codes import INTERRUPTED, USER_MISTAKE
from pipeline.system.secrets import hide_secrets


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


def count(text: str) -> int:
    """Parse an argument that is a whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


def plural(number: int, noun: str, several: str = "") -> str:
    """Return `number` and its noun: 1 rank, 2 ranks, 1,000 classes."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def _refuse(message: str) -> int:
    print(hide_secrets(message), file=sys.stderr)
    return USER_MISTAKE
