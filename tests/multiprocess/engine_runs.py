"""A program for several ranks: trains a tiny network with each of several engines.

`run_trials(folder, trials, ranks=2)` starts it once for many trials, and returns their outcomes.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from torch import nn
from torch.optim import AdamW, Optimizer

from pipeline.config.schema import Ddp, DeepSpeed, Sgd, Train, model_named
from pipeline.distributed.world import World, join_world
from pipeline.engines import Engine, EngineState, Trainable, open_engine
from pipeline.losses import build_loss
from pipeline.models import build
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer, split_parameters
from pipeline.optim.ema import WeightAverage
from tests.multiprocess.server import fork_server

CLASSES, SIZE = 10, 8
TRIALS = "trials.json"
SECONDS = 280.0
LAST_STEP = 50
SAVED = range(10, LAST_STEP, 10)
"""Steps after which statistics are synchronised, as before a save."""


@dataclass(frozen=True)
class Trial:
    """One training, or some steps of it."""

    name: str
    engine: Ddp | DeepSpeed
    global_batch: int = 8
    first: int = 1
    last: int = LAST_STEP
    after: str | None = None
    """The trial whose final state is loaded before the first step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of `train` that differ."""
    loss_scale: float | None = None
    """The first loss scale of fp16."""


Outcome = dict[str, Any]
"""`losses` of each step over all ranks, and the final state: `model`, `optimizer` (slots) ..."""


def run_trials(folder: Path, trials: list[Trial], *, ranks: int) -> dict[str, Outcome]:
    """Run `trials` one after another in one group of forked ranks, which must print nothing."""
    _write(folder, trials)
    program = fork_server().start("tests.multiprocess.engine_runs:main", folder, ranks=ranks)
    codes, output = program.end(SECONDS)
    assert set(codes) == {0}, output
    return _outcomes(folder, trials, output)


def run_trials_afresh(
    folder: Path, trials: list[Trial], *, ranks: int, cpu_only: bool
) -> dict[str, Outcome]:
    """Run `trials` in new processes, which must print nothing while importing either."""
    _write(folder, trials)
    command = ["tests.multiprocess.engine_runs", str(folder)]
    call = f"run_ranks({command}, ranks={ranks}, cpu_only={cpu_only})"
    done = subprocess.run(
        [sys.executable, "-c", f"from launch.local.ranks import run_ranks; exit({call})"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    )
    assert done.returncode == 0, done.stdout
    return _outcomes(folder, trials, done.stdout)


def _write(folder: Path, trials: list[Trial]) -> None:
    (folder / TRIALS).write_text(json.dumps([asdict(trial) for trial in trials]))


def _outcomes(folder: Path, trials: list[Trial], output: str) -> dict[str, Outcome]:
    assert not output, output
    return {trial.name: _read(folder / trial.name) for trial in trials}


def main(arguments: Sequence[str]) -> None:
    warnings.simplefilter("error")
    folder = Path(arguments[0])
    trials = TypeAdapter(list[Trial]).validate_json((folder / TRIALS).read_bytes())
    with join_world() as world:
        if world.device.type == "cuda":
            torch.use_deterministic_algorithms(True)
        for trial in trials:
            outcome = train(trial, folder, world)
            if world.is_main:
                torch.save(outcome, folder / trial.name)
            world.gather(None)  # the next trial may read the file


def train(trial: Trial, folder: Path, world: World) -> Outcome:
    defaults = {"steps": LAST_STEP, "precision": "fp32", "global_batch": trial.global_batch}
    settings = Train(**defaults | trial.train)
    network = build(model_named("cifar_resnet8"), classes=CLASSES, generator_seed=1)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    network.to(world.device).to(memory_format=layout)
    module = Normalized(
        network, mean=(0.5,) * 3, std=(0.2,) * 3, channels_last=settings.channels_last
    ).to(world.device)
    optimizer = adamw(network) if trial.optimizer == "adamw" else sgd(network)
    average = WeightAverage(network, decay=0.9, every_steps=3)
    engine = open_engine(
        trial.engine,
        Trainable(module, network, optimizer, build_loss(settings)),
        settings,
        micro_batch=trial.global_batch // world.size // settings.accumulation,
        image_size=SIZE,
        world=world,
    )
    if trial.after:
        before = _read(folder / trial.after)
        engine.load(EngineState(before["model"], before["optimizer"], before["scaler"]))
        average.load(before["average"])
    if trial.loss_scale:
        engine.load(replace(engine.state(), scaler={"scale": trial.loss_scale, "steps": 0}))
    losses: list[float] = []
    for step in range(trial.first, trial.last + 1):
        losses.append(one_step(engine, step, trial, average, world))
        if step in (trial.last, *SAVED):
            engine.synchronize()
            average.synchronize(world)
    return {"losses": losses, "average": average.average, **asdict(engine.state())}


def sgd(network: nn.Module) -> Optimizer:
    return build_optimizer(network, Sgd(lr=1, nesterov=True, decay_norm_and_bias=False))


def adamw(network: nn.Module) -> Optimizer:
    """Two groups with three slots each, `step` among them, which is a scalar."""
    groups = [{"params": group} for group in split_parameters(network)]
    optimizer = AdamW(groups, foreach=True)
    for parameter in network.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def one_step(
    engine: Engine, step: int, trial: Trial, average: WeightAverage, world: World
) -> float:
    """Train on this rank's part of the batch of `step`; return the mean loss over all ranks."""
    generator = torch.Generator().manual_seed(step)
    shape = (trial.global_batch, SIZE, SIZE, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, shape[:1], generator=generator)
    parts = [whole.chunk(world.size)[world.rank].to(world.device) for whole in (images, labels)]
    with nullcontext() if step == trial.first else host_never_waits(world.device):
        loss = engine.step(*parts, lr=0.1 * (1 - step / (LAST_STEP + 1)))
    average.update(step)
    return world.all_reduce_sum_(loss).item() / world.size


@contextmanager
def host_never_waits(device: torch.device) -> Generator[None]:
    """Raise if the block waits for the GPU."""
    if device.type == "cpu":
        yield
        return
    with warnings.catch_warnings(action="ignore"):  # PyTorch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def _read(path: Path) -> Outcome:
    return torch.load(path, map_location="cpu")


if __name__ == "__main__":
    main(sys.argv[1:])
