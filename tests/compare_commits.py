"""Show that two commits give the same results in the same short runs.

    python -m tests.compare_commits BASE [HEAD] [--runs NAME,...]

trains each of `RUNS` with the code of BASE and with that of HEAD (by default the working tree as it
is), and compares every tensor of every checkpoint bit for bit, and all figures that do not depend
on the clock or on the folder. Only the command line of each commit is used: its modules may be
named and placed differently. Figures that only HEAD reports are not a difference.

It trains on the CPU, one run after another, for some minutes. Exit codes: 0 everything is equal, 1
something differs or a training failed, 2 user's mistake.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Training:
    """One run of the table below."""

    ranks: int
    settings: tuple[str, ...] = ()
    resumed: bool = False
    """Whether it resumes from its first checkpoint once it has finished."""


ZERO1 = ("engine.name=deepspeed", "engine.zero_stage=1")
RUNS = {
    "fp32-ddp-1": Training(1),
    "fp16-ddp-1": Training(1, ("train.precision=fp16", "optim.decay_norm_and_bias=false")),
    "bf16-ema-ddp-1-resumed": Training(
        1,
        ("train.precision=bf16", "train.ema.decay=0.9", "train.label_smoothing=0.1"),
        resumed=True,
    ),
    "accumulation-group-ddp-2": Training(2, ("train.accumulation=2", "model.batch_norm_group=4")),
    "clip-ema-zero1-2-resumed": Training(
        2, (*ZERO1, "train.clip_norm=0.5", "train.ema.decay=0.9"), resumed=True
    ),
}

CONFIG = "configs/quickstart.yaml"
"""The file of BASE, with which both commits train."""
SETTINGS = (
    "model.name=cifar_resnet8",
    *("train.epochs=null", "train.steps=8", "train.global_batch=32", "train.log_every_steps=1"),
    *("schedule.warmup_epochs=null", "schedule.warmup_steps=2"),
    *("evaluate.every_steps=3", "evaluate.rank_batch=100"),
    *("checkpoint.every_epochs=null", "checkpoint.every_steps=4", "checkpoint.keep_last=9"),
    *("data.verify=off", "data.loader.threads=1"),
    *("launch.preflight=false", "launch.start_report=false", "tracking.mlflow=false"),
)

SAME_GROUP = {
    "optimizer.momentum_buffer": "momentum",
    "optimizer.momentum": "momentum",
    "momentum_buffer": "momentum",
}
"""Names of tensor files in some commits, and the common name for comparing them."""
EVENTS = {
    "run_started": ("first_step", "last_step", "last_epoch", "world_size"),
    "progress": ("step", "epoch", "loss", "lr", "images_replaced"),
    "evaluated": ("step", "epoch", "top1_error_percent", "top5_error_percent", "loss", "images"),
}
"""The fields to compare, by event in metrics.jsonl."""
NOT_COMPARED = {"seconds", "images_per_second", "run_dir", "mlflow_run_id"}
"""Fields of JSON files that depend on the clock or on the folder."""

MOST_SHOWN = 5
"""Differing figures, and differing tensors, to show for a run."""
LINES_SHOWN = 20
"""Lines of output to show from a failed training."""
SECONDS = 600


class TrainingError(Exception):
    """A training failed, and why."""


@dataclass
class Outcome:
    """The tensors and figures of a finished run."""

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    reports: int = 0
    evaluations: int = 0


@dataclass(frozen=True)
class Checkout:
    """The code of one commit."""

    name: str
    folder: Path

    def run(self, *arguments: object) -> None:
        """Run its Python program; raise `TrainingError` if that fails."""
        variables = {
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        try:
            done = subprocess.run(
                [sys.executable, *map(str, arguments)],
                cwd=self.folder,
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TrainingError(f"{self.name} did not finish within {SECONDS} s") from error
        if done.returncode:
            said = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-LINES_SHOWN:])
            raise TrainingError(f"{self.name} failed with exit code {done.returncode}:\n{said}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    wrong = [name for name in options.runs if name not in RUNS]
    if wrong:
        print(
            f"no run is called {' or '.join(wrong)}; choose from {', '.join(RUNS)}", file=sys.stderr
        )
        return 2
    with TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        try:
            with (
                checked_out(options.base, folder / "base") as base,
                checked_out(options.head, folder / "head") as head,
            ):
                return compare_all(options.runs, base, head, folder)
        except subprocess.CalledProcessError as error:
            print(error.stderr.strip(), file=sys.stderr)
            return 2


def compare_all(names: list[str], base: Checkout, head: Checkout, folder: Path) -> int:
    """Train and compare each run; print the outcome of each, and return 0 or 1."""
    data = folder / "digits"
    base.run("data/prepare.py", "digits", "--out", data)
    config = base.folder / CONFIG
    equal = True
    for name in names:
        try:
            outcomes = [
                train(code, RUNS[name], folder / f"{name}-{label}", config=config, data=data)
                for label, code in (("base", base), ("head", head))
            ]
            same, told = judge(*outcomes)
        except TrainingError as error:
            same, told = False, str(error)
        print(f"{name}: {told}", flush=True)
        equal = equal and same
    return 0 if equal else 1


@contextmanager
def checked_out(commit: str | None, folder: Path) -> Generator[Checkout]:
    """Yield `commit` checked out in `folder` during the block; None means the working tree."""
    if commit is None:
        yield Checkout("the working tree", ROOT)
        return
    git("worktree", "add", "--detach", folder, commit)
    try:
        yield Checkout(commit, folder)
    finally:
        git("worktree", "remove", "--force", folder)


def git(*arguments: object, folder: Path = ROOT) -> str:
    """Return git's output; raise `CalledProcessError` if it fails."""
    command = ["git", "-C", str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def train(code: Checkout, training: Training, run: Path, *, config: Path, data: Path) -> Outcome:
    """Train with the code of one commit in the new folder `run`; return the outcome."""
    start: tuple[object, ...] = ("-m", "pipeline.train")
    if training.ranks > 1:
        start = ("launch/submit.py", "--local", "--ranks", training.ranks)
    command = (*start, config, *SETTINGS, *training.settings, f"data.dir={data}", f"run_dir={run}")
    code.run(*command)
    if training.resumed:
        rewind(run)
        code.run(*command)
        if read_events(run, "run_started")[-1]["first_step"] == 1:
            raise TrainingError(f"{code.name} started from step 1 instead of resuming")
    expect_own_code(run, code)
    return read_outcome(run)


def rewind(run: Path) -> None:
    """Turn a finished run into one that was killed after its first checkpoint."""
    (run / "result.json").unlink()
    for path in sorted((run / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)


def expect_own_code(run: Path, code: Checkout) -> None:
    """Raise `TrainingError` if a run was trained with the code of another commit."""
    told = {event["tags"].get("git_commit") for event in read_events(run, "run_started")}
    if told - {None, git("rev-parse", "HEAD", folder=code.folder)}:
        raise TrainingError(f"{code.name} was not trained with its own code, but with {told}")


def read_events(run: Path, *names: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] in names]


def read_outcome(run: Path) -> Outcome:
    """Read everything of a finished run that is compared."""
    outcome = Outcome()
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        for file in sorted(checkpoint.glob("*.safetensors")):
            group = SAME_GROUP.get(file.stem, file.stem)
            for name, tensor in load_file(file).items():
                outcome.tensors[f"{checkpoint.name}, {group}, {name}"] = tensor
        for file in ("progress.json", "schedule.json"):
            outcome.figures |= read_figures(checkpoint / file, f"{checkpoint.name}, {file}")
    for number, event in enumerate(read_events(run, *EVENTS), start=1):
        kind = event["event"]
        place = f"event {number}, {kind} of step {event.get('step', 0)}"
        outcome.figures |= {f"{place}, {key}": event[key] for key in EVENTS[kind] if key in event}
        outcome.reports += kind == "progress"
        outcome.evaluations += kind == "evaluated"
    outcome.figures |= read_figures(run / "result.json", "result.json")
    if not (outcome.tensors and outcome.reports and outcome.evaluations):
        raise TrainingError("there is nothing to compare")
    return outcome


def read_figures(path: Path, place: str) -> dict[str, Any]:
    """Return the figures of a JSON file; none if the file is missing, which then differs."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {f"{place}, {key}": found[key] for key in found if key not in NOT_COMPARED}


def judge(base: Outcome, head: Outcome) -> tuple[bool, str]:
    """Return whether two outcomes are equal, and a message."""
    counted = f"{len(base.tensors)} tensors, {base.reports} reports, {base.evaluations} evaluations"
    figures, tensors = differing_figures(base, head), differing_tensors(base, head)
    if not figures and not tensors:
        return True, f"{counted}: equal"
    lines = [f"  {each}" for found in (figures, tensors) for each in found[:MOST_SHOWN]]
    total = len(figures) + len(tensors)
    if total > len(lines):
        lines.append(f"  and {total - len(lines)} more")
    return False, "\n".join([f"{counted}: {total} differences", *lines])


def differing_figures(base: Outcome, head: Outcome) -> list[str]:
    """Describe the figures that differ, with both values, in their order."""
    found: list[str] = []
    for name, value in base.figures.items():
        other = head.figures.get(name, "missing")
        if value != other:
            found.append(f"{name}: {value} and {other}")
    return found


def differing_tensors(base: Outcome, head: Outcome) -> list[str]:
    """Describe the tensors that differ, those of the first checkpoint first."""
    found: list[str] = []
    for name in base.tensors | head.tensors:
        why = tensor_difference(base.tensors.get(name), head.tensors.get(name))
        if why:
            found.append(f"{name}: {why}")
    return found


def tensor_difference(base: Tensor | None, head: Tensor | None) -> str:
    """Describe how two tensors differ, with both values; empty if every bit is equal."""
    kinds = [
        "missing" if each is None else f"{each.dtype} {tuple(each.shape)}" for each in (base, head)
    ]
    if base is None or head is None or kinds[0] != kinds[1]:
        return f"{kinds[0]} and {kinds[1]}"
    differing = (as_bytes(base) != as_bytes(head)).any(1).nonzero().flatten().tolist()
    if not differing:
        return ""
    values = [each.flatten()[differing[0]].item() for each in (base, head)]
    return (
        f"{len(differing)} of {base.numel()} values differ; number {differing[0]} is {values[0]}"
        f" and {values[1]}"
    )


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of each value of a tensor as a row."""
    return (
        tensor.contiguous()
        .flatten()
        .view(torch.uint8)
        .reshape(tensor.numel(), tensor.element_size())
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.compare_commits",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"runs: {', '.join(RUNS)}",
    )
    parser.add_argument("base", metavar="BASE", help="the reference commit")
    parser.add_argument(
        "head", metavar="HEAD", nargs="?", help="another commit (default: the working tree)"
    )
    parser.add_argument(
        "--runs",
        type=lambda text: text.split(","),
        default=list(RUNS),
        metavar="NAME,...",
        help="only these",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
