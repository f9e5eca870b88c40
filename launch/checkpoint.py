"""Inspect, verify, convert and average checkpoints: `launch/checkpoint.py COMMAND RUN_OR_DIR`.

RUN_OR_DIR is the folder of a checkpoint, or of a run: then its newest undamaged checkpoint is used,
unless another is chosen.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

# The checkout comes first, even if the current folder contains a folder called data or launch.
sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.checkpoint import CheckpointError, Progress, TrainedOn, read_checkpoint
from pipeline.config.schema import Config
from pipeline.runs.find import lost_final_checkpoint, saved_checkpoint
from pipeline.system.command import Parser, count, plural, run_command
from pipeline.system.exit_codes import FAILURE
from pipeline.system.extras import expect_installed
from pipeline.weights.average import average, expect_new
from pipeline.weights.convert import FORMS, Conversion, convert
from pipeline.weights.find import find_all, find_one
from pipeline.weights.inspect import inspect, list_tensors
from pipeline.weights.inspection_report import to_json, to_text
from pipeline.weights.stored import StoredCheckpoint, open_stored

DAMAGED = FAILURE
EXIT_CODES = "exit codes: 0 done, 1 damage or loss found by verify, 2 user's mistake, 130 Ctrl-C"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, 1 damage found, 2 user's mistake."""
    options = _parser().parse_args(arguments)
    work = partial(COMMANDS[options.command], options)
    return run_command(work, name="checkpoint.py", interrupted="interrupted; nothing was written")


def _inspect(options: Namespace) -> int:
    stored = _chosen(options)
    tensors = list_tensors(stored) if options.tensors else None
    shown = to_json if options.json else to_text
    _print(shown(inspect(stored, _events(stored.run)), tensors))
    return 0


def _verify(options: Namespace) -> int:
    if options.step is not None or options.best:
        return DAMAGED if _damaged(_path(options)) else 0
    lost = lost_final_checkpoint(options.place)
    paths = [] if lost and saved_checkpoint(options.place) is None else find_all(options.place)
    damaged = [path for path in paths if _damaged(path)]
    if lost:
        _print(lost)
    return DAMAGED if damaged or lost else 0


def _damaged(path: Path) -> bool:
    """Print whether a checkpoint is damaged, and return it."""
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        _print(f"{path}: damaged ({_one_line(str(error.__cause__))})")
        return True
    sizes = [file.stat().st_size for file in path.iterdir()]
    _print(f"{path}: whole, {plural(len(sizes), 'file')} of {sum(sizes):,} bytes")
    return False


def _convert(options: Namespace) -> int:
    request = Conversion(options.to, options.out, live=options.live, normalise=options.normalise)
    stored = _chosen(options)
    dataset, without = stored.dataset, ""
    if dataset is None:
        dataset, without = _dataset_at_hand(stored.require_config(), stored.snapshot.progress)
    _print(f"{options.out}: {convert(stored, request, dataset)}")
    if without:
        _warn(f"{options.out} has no class names: {without}")
    return 0


def _average(options: Namespace) -> int:
    places: list[Path] = options.places
    if options.last is None:
        paths = [find_one(place, warn=_warn) for place in places]
    else:
        paths = _last(places, options.last)
    expect_new(options.out)
    mean = average(paths, live=options.live, config=options.config)
    if options.recompute_statistics:
        config, progress = mean.require_config(), mean.last.progress
        with _training_images(config, progress, options.recompute_statistics) as batches:
            mean = mean.with_statistics(batches)
    mean.save(options.out)
    _print(f"{options.out}: the mean of {', '.join(map(str, paths))}")
    return 0


def _last(places: list[Path], wanted: int) -> list[Path]:
    """The newest `wanted` checkpoints of the given run."""
    if len(places) != 1:
        raise ValueError(f"--last {wanted} takes exactly one run, got {len(places)}")
    found = find_all(places[0])
    if len(found) < wanted:
        raise ValueError(
            f"{places[0]} has {plural(len(found), 'checkpoint')}, not {wanted};"
            " set checkpoint.keep_last higher before a run"
        )
    return found[-wanted:]


def _chosen(options: Namespace) -> StoredCheckpoint:
    return open_stored(_path(options), options.config)


def _path(options: Namespace) -> Path:
    return find_one(options.place, step=options.step, best=options.best, warn=_warn)


def _events(run: Path | None) -> Iterator[dict[str, object]]:
    """The events of a run, if its folder is available."""
    from pipeline.tracking.jsonl import METRICS, read_events

    if run is not None and (run / METRICS).exists():
        yield from read_events(run / METRICS)


def _dataset_at_hand(config: Config, progress: Progress) -> tuple[TrainedOn | None, str]:
    """The dataset at `data.dir`, for checkpoints without `dataset.json`; else None and why."""
    try:
        expect_installed("pyarrow", "xxhash", needed_by="reading a dataset")
        from pipeline.dataset.index import read_manifest

        manifest = read_manifest(config.data.dir)
    except ValueError:
        return None, f"the dataset is not at {config.data.dir}"
    if manifest.fingerprint != progress.fingerprint:
        return None, f"{config.data.dir} is now another dataset"
    names = manifest.classes, manifest.class_names
    return TrainedOn(manifest.name, manifest.fingerprint, *names), ""


@contextmanager
def _training_images(
    config: Config, progress: Progress, steps: int
) -> Generator[Iterator[torch.Tensor]]:
    """Yield the images of the first `steps` global batches of a run, as its network saw them."""
    expect_installed("pyarrow", "xxhash", needed_by="--recompute-statistics")
    from pipeline.dataset.split import open_split
    from pipeline.distributed.world import World
    from pipeline.loaders import open_loader

    split = open_split(config.data)
    if split.train.manifest.fingerprint != progress.fingerprint:
        raise ValueError(
            f"{config.data.dir} is not the dataset of the checkpoint: its fingerprint is"
            f" {split.train.manifest.fingerprint}, not {progress.fingerprint}"
        )
    loader = open_loader(
        config.data,
        split,
        seed=progress.seed,
        global_batch=progress.global_batch,
        batch_per_rank=config.evaluate.batch_per_rank,
        world=World(),
    )
    with loader.train(range(1, steps + 1)) as stream:
        yield (batch.images for batch in stream)


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "inspect": _inspect,
    "verify": _verify,
    "convert": _convert,
    "average": _average,
}


def _parser() -> ArgumentParser:
    parser = Parser(
        prog="checkpoint.py", description=(__doc__ or "").partition("\n")[0], epilog=EXIT_CODES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspecting = commands.add_parser("inspect", help="show the figures of a checkpoint")
    _add_choice(inspecting)
    inspecting.add_argument("--tensors", action="store_true", help="also list each tensor")
    inspecting.add_argument("--json", action="store_true", help="print one JSON object")
    verifying = commands.add_parser("verify", help="compare files with their hashes")
    _add_choice(verifying)
    converting = commands.add_parser("convert", help="write the network for other programs")
    _add_choice(converting)
    _add_form(converting)
    averaging = commands.add_parser("average", help="write the mean of several checkpoints")
    _add_sources(averaging)
    for command in (inspecting, converting, averaging):
        command.add_argument(
            "--config", type=Path, metavar="FILE", help="use this instead of the run's"
        )
    for command in (converting, averaging):
        command.add_argument(
            "--live", action="store_true", help="use the trained weights, not their EMA"
        )
    return parser


def _add_choice(command: ArgumentParser) -> None:
    command.add_argument("place", type=Path, metavar="RUN_OR_DIR", help="a run or a checkpoint")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--step", type=count, metavar="N", help="the run's checkpoint of step N")
    choice.add_argument(
        "--best", action="store_true", help="the run's checkpoint with the lowest top-1 error"
    )


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
        "places",
        nargs="+",
        type=Path,
        metavar="RUN_OR_DIR",
        help="at least two, or one run with --last N",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.add_argument("--last", type=count, metavar="N", help="the newest N of one run")
    command.add_argument(
        "--recompute-statistics",
        type=count,
        default=0,
        metavar="N",
        help="recompute batch norm's statistics over N batches of training images",
    )


def _warn(message: str) -> None:
    print(f"warning: {_one_line(message)}", file=sys.stderr)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _print(text: str) -> None:
    """Print `text`, whose file names need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode())


if __name__ == "__main__":
    raise SystemExit(main())
