"""Look at checkpoints, check, convert and average them: `launch/checkpoint.py COMMAND RUN_OR_DIR`.

RUN_OR_DIR is the folder of a run, and then its newest whole checkpoint unless another is chosen, or
a checkpoint's own folder.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.checkpoint import CheckpointError, read_checkpoint
from pipeline.system.command import count
from pipeline.weights.average import average
from pipeline.weights.convert import FORMS, Conversion, convert
from pipeline.weights.inspect import inspect, list_tensors, to_json, to_text
from pipeline.weights.stored import StoredCheckpoint, locate, locate_all, open_stored

DAMAGED = 1
USER_MISTAKE = 2
INTERRUPTED = 130
EXIT_CODES = "exit codes: 0 done, 1 damage found by verify, 2 a mistake of the user's, 130 Ctrl-C"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, 1 damage found, 2 user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}; mend that and try again")
    except KeyboardInterrupt:
        _say("checkpoint.py: interrupted; nothing is written", sys.stderr)
        return INTERRUPTED


def _inspect(options: Namespace) -> int:
    stored = _chosen(options)
    tensors = list_tensors(stored) if options.tensors else None
    shown = to_json if options.json else to_text
    _say(shown(inspect(stored), tensors), sys.stdout)
    return 0


def _verify(options: Namespace) -> int:
    paths = locate_all(options.place)
    if options.step is not None or options.best:
        paths = [locate(options.place, step=options.step, best=options.best, warn=_warn)]
    damaged = 0
    for path in paths:
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            damaged += 1
            _say(f"{path}: damaged ({_one_line(str(error.__cause__))})", sys.stdout)
        else:
            sizes = [file.stat().st_size for file in path.iterdir()]
            _say(f"{path}: whole, {len(sizes)} files of {sum(sizes):,} bytes", sys.stdout)
    return DAMAGED if damaged else 0


def _convert(options: Namespace) -> int:
    request = Conversion(options.to, options.out, live=options.live, normalise=options.normalise)
    done = convert(_chosen(options), request)
    _say(f"{options.out}: {done.what}", sys.stdout)
    for remark in done.remarks:
        _warn(f"{options.out} is {remark}")
    return 0


def _average(options: Namespace) -> int:
    places: list[Path] = options.places
    if options.last is None:
        paths = [locate(place, warn=_warn) for place in places]
    else:
        paths = _last(places, options.last)
    made = average(
        paths,
        options.out,
        live=options.live,
        config=options.config,
        recompute_batches=options.recompute_statistics,
    )
    _say(f"{made}: the mean of {', '.join(map(str, paths))}", sys.stdout)
    return 0


def _last(places: list[Path], count: int) -> list[Path]:
    """The newest `count` checkpoints of the one run that is named."""
    if len(places) != 1:
        raise ValueError(f"--last {count} is of one run, and {len(places)} are named; name one")
    found = locate_all(places[0])
    if len(found) < count:
        raise ValueError(
            f"{places[0]} has {len(found)} checkpoints and not {count};"
            " set checkpoint.keep_last higher before a run"
        )
    return found[-count:]


def _chosen(options: Namespace) -> StoredCheckpoint:
    path = locate(options.place, step=options.step, best=options.best, warn=_warn)
    return open_stored(path, options.config)


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "inspect": _inspect,
    "verify": _verify,
    "convert": _convert,
    "average": _average,
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="checkpoint.py", description=(__doc__ or "").partition("\n")[0], epilog=EXIT_CODES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspecting = commands.add_parser("inspect", help="figures of a checkpoint")
    _add_choice(inspecting)
    inspecting.add_argument("--tensors", action="store_true", help="and of each tensor")
    inspecting.add_argument("--json", action="store_true", help="as one JSON object")
    verifying = commands.add_parser("verify", help="compare files with their hashes")
    _add_choice(verifying)
    converting = commands.add_parser("convert", help="write its network for others to read")
    _add_choice(converting)
    _add_form(converting)
    averaging = commands.add_parser("average", help="write the mean of several checkpoints")
    _add_sources(averaging)
    for command in (inspecting, converting, averaging):
        command.add_argument("--config", type=Path, metavar="FILE", help="in place of the run's")
    for command in (converting, averaging):
        command.add_argument("--live", action="store_true", help="the weights, and not their EMA")
    return parser


def _add_choice(command: ArgumentParser) -> None:
    command.add_argument("place", type=Path, metavar="RUN_OR_DIR", help="a run, or a checkpoint")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--step", type=count, metavar="N", help="the run's checkpoint of step N")
    choice.add_argument("--best", action="store_true", help="that with the lowest top-1 error")


def _add_form(command: ArgumentParser) -> None:
    command.add_argument("--to", choices=FORMS, required=True, help="form of the file")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    command.add_argument(
        "--no-normalise",
        dest="normalise",
        action="store_false",
        help="an ONNX graph of normalised floats (n, 3, h, w), not of bytes (n, h, w, 3)",
    )


def _add_sources(command: ArgumentParser) -> None:
    command.add_argument(
        "places", nargs="+", type=Path, metavar="RUN_OR_DIR", help="two or more, or --last N of one"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.add_argument("--last", type=count, metavar="N", help="the newest N of one run")
    command.add_argument(
        "--recompute-statistics",
        type=count,
        default=0,
        metavar="N",
        help="take batch norm's statistics anew over N batches of the training images",
    )


def _refuse(message: str) -> int:
    _say(f"checkpoint.py: {_one_line(message)}", sys.stderr)
    return USER_MISTAKE


def _warn(message: str) -> None:
    _say(f"warning: {_one_line(message)}", sys.stderr)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _say(text: str, stream: TextIO) -> None:
    """Print `text`, in which names of files need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), file=stream)


if __name__ == "__main__":
    raise SystemExit(main())
