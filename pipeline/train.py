"""Train one network: `python -m pipeline.train CONFIG [a.b=c ...]`, alone or under torchrun.

From the top: read the configuration, join the other ranks, hold the run's folder, open dataset,
network, engine, loader and tracking, resume from the newest checkpoint, hand over to the loop, and
write down the result.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
import torch

from pipeline.checkpoint import (
    Checkpoints,
    Progress,
    expect_same_stream,
    newest_checkpoint,
    read_checkpoint,
)
from pipeline.config.load import dump, flatten, load
from pipeline.config.schema import Config, Data
from pipeline.dataset.index import Index
from pipeline.distributed import LocalError, World, join_world
from pipeline.durable import write_whole
from pipeline.ema import WeightAverage
from pipeline.engines import Trainee, open_engine
from pipeline.evaluate import Counts
from pipeline.loaders import Loader, Split, open_loader
from pipeline.loaders.faults import ImageError
from pipeline.loaders.reader import missing_files
from pipeline.loop import Run, fit, resume
from pipeline.metrics import LossError, Meter
from pipeline.models import build, count_parameters
from pipeline.models.normalized import Normalized
from pipeline.optim import build_optimizer
from pipeline.plan import Plan, make_plan
from pipeline.provenance import describe_run
from pipeline.run_folder import RESULT, hold_run_folder, read_result
from pipeline.tracking import events
from pipeline.tracking.console import final_table
from pipeline.tracking.tracker import Tracker, open_tracker


@dataclass(frozen=True)
class Job:
    """A configuration on this dataset and in this world; everything about it is in order."""

    config: Config
    world: World
    split: Split
    plan: Plan

    @property
    def fingerprint(self) -> str:
        return self.split.train.manifest.fingerprint


def train(config: Config) -> dict[str, Any]:
    """Train as `config` says, from wherever an earlier attempt came to; return the result.

    Raises `ValueError` for what the user can mend: configuration, dataset, images, run folder.
    """
    with ExitStack() as stack:
        world = stack.enter_context(join_world())
        set_up_torch(deterministic=config.train.deterministic, world=world)
        split = open_split(config.data)
        plan = make_plan(config, samples=len(split.train), world_size=world.size)
        job = Job(config, world, split, plan)
        folder = world.from_main(lambda: stack.enter_context(hold_run_folder(config)))
        result = world.from_main(lambda: read_result(folder))
        if result is None:
            return run_job(job, folder)
        if world.is_main:
            rich.print(final_table(result))
        return result


def run_job(job: Job, folder: Path) -> dict[str, Any]:
    """Train in `folder` under the eyes of the trackers, who hear how it ended, too."""
    loader = open_images(job)
    with open_tracker(job.config, folder, is_main=job.world.is_main) as tracker:
        try:
            with open_checkpoints(job, folder, tracker) as checkpoints:
                run = assemble(job, loader, checkpoints, tracker)
                restore(run, folder, tracker)
                if job.world.is_main:
                    announce(job, run, folder, tracker)
                counts = fit_or_fail(run)
            return finish(job, run, counts, folder, tracker)
        except KeyboardInterrupt:
            tracker.emit(events.RunEnded("interrupted", "run the same command again to go on"))
            raise
        except BaseException as error:
            tracker.emit(events.RunEnded("failed", str(error) or type(error).__name__))
            raise


def fit_or_fail(run: Run) -> Counts:
    """Call `fit`; what is wrong there is the user's mistake only if an image is."""
    try:
        return fit(run)
    except ImageError as error:
        raise LocalError(str(error)) from error
    except ValueError as error:
        raise RuntimeError(f"the training failed: {error}") from error


def set_up_torch(*, deterministic: bool, world: World) -> None:
    """Choose fast kernels, or repeatable ones."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:  # asked only then: merely asking loads the compiler, which takes seconds
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if world.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(world.cpu_threads)


def open_split(data: Data) -> Split:
    """Open both halves of the dataset; raise `ValueError` if one is missing or empty."""
    split = Split(Index.open(data.dir, "train", data.root), Index.open(data.dir, "val", data.root))
    for index in (split.train, split.val):
        if len(index) == 0:
            raise ValueError(f"{data.dir}: split {index.split!r} is empty; prepare it again")
    return split


def open_images(job: Job) -> Loader:
    """Open the loader, and check the images as `data.verify` asks, each rank its share."""
    config, split, world = job.config, job.split, job.world
    loader = open_loader(
        config.data,
        split,
        seed=config.seed,
        global_batch=config.train.global_batch,
        rank_batch=config.evaluate.rank_batch,
        world=world,
    )
    world.from_main(lambda: expect_files(config.data, split))
    if config.data.verify == "decode" and config.data.on_corrupt == "fail":
        faults = [fault for share in world.gather(loader.verify()) for fault in share]
        if faults:
            raise ImageError(list(dict.fromkeys(faults)))
    return loader


def expect_files(data: Data, split: Split) -> None:
    """Raise `ImageError` if files of the dataset are missing or cut, unless that is allowed."""
    if data.verify == "off" or data.on_corrupt == "skip":
        return
    faults = missing_files(split.train) + missing_files(split.val)
    if faults:
        raise ImageError(faults)


def open_checkpoints(job: Job, folder: Path, tracker: Tracker) -> Checkpoints:
    """Open the run's checkpoints; the trackers hear of each that is saved."""
    return Checkpoints(
        folder / "checkpoints",
        keep_last=job.config.checkpoint.keep_last,
        keep_best=job.config.checkpoint.keep_best,
        saved=lambda step, path, seconds: tracker.emit(
            events.CheckpointSaved(step, str(path), seconds)
        ),
        warn=tracker.warn,
    )


def assemble(job: Job, loader: Loader, checkpoints: Checkpoints, tracker: Tracker) -> Run:
    """Build the network, its optimiser and engine, and all else that the loop works with."""
    config, world, plan = job.config, job.world, job.plan
    classes = len(job.split.train.manifest.classes)
    network = build(config.model, classes=classes, generator_seed=config.seed)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    network.to(world.device).to(memory_format=layout)
    module = Normalized(
        network,
        mean=config.data.mean,
        std=config.data.std,
        channels_last=config.train.channels_last,
    ).to(world.device)
    trainee = Trainee(module, network, build_optimizer(network, config.optim))
    ema = config.train.ema
    return Run(
        world=world,
        plan=plan,
        engine=open_engine(
            config.engine,
            trainee,
            config.train,
            micro_batch=plan.micro_batch,
            image_size=config.data.train.size,
            world=world,
        ),
        average=WeightAverage(network, decay=ema.decay, every_steps=ema.every_steps)
        if ema
        else None,
        loader=loader,
        validation_images=len(job.split.val),
        parameters=count_parameters(network),
        checkpoints=checkpoints,
        meter=Meter(world, global_batch=plan.global_batch),
        emit=tracker.emit,
        progress=Progress(
            step=0,
            fingerprint=job.fingerprint,
            seed=config.seed,
            global_batch=plan.global_batch,
        ),
    )


def restore(run: Run, folder: Path, tracker: Tracker) -> None:
    """Go on from the newest checkpoint that is whole, if there is one; all ranks from the same."""
    path = run.world.from_main(lambda: newest_checkpoint(folder / "checkpoints", tracker.warn))
    if path is None:
        return
    snapshot = read_checkpoint(path)
    expect_same_stream(snapshot.progress, run.progress, path)
    resume(run, snapshot)


def announce(job: Job, run: Run, folder: Path, tracker: Tracker) -> None:
    """Tell the trackers what starts, or goes on, and where it came from."""
    text = dump(job.config)
    tracker.emit(
        events.RunStarted(
            name=job.config.name,
            run_dir=str(folder),
            first_step=run.progress.step + 1,
            last_step=job.plan.last_step,
            last_epoch=job.plan.epoch(job.plan.last_step),
            world_size=job.world.size,
            params=flatten(job.config),
            tags=describe_run(text, job.fingerprint),
        )
    )


def finish(job: Job, run: Run, counts: Counts, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Write result.json, and let the trackers have the last word."""
    seconds = run.progress.seconds
    timeout = job.config.tracking.drain_timeout_seconds
    result: dict[str, Any] = {
        "name": job.config.name,
        "top1_error_percent": counts.top1_error_percent,
        "top5_error_percent": counts.top5_error_percent,
        "validation_loss": counts.loss if math.isfinite(counts.loss) else None,
        "images_evaluated": counts.images,
        "best_top1_error_percent": run.progress.best_top1_error_percent,
        "steps": job.plan.last_step,
        "epochs": job.plan.epoch(job.plan.last_step),
        "images_per_second": job.plan.last_step * job.plan.global_batch / seconds,
        "seconds": seconds,
        "parameters": run.parameters,
        "classes": len(job.split.train.manifest.classes),
        "world_size": job.world.size,
        "device": job.world.device.type,
        "dataset_fingerprint": job.fingerprint,
        "run_dir": str(folder.resolve()),
        "mlflow_run_id": tracker.mlflow_run_id(timeout),
    }
    if job.world.is_main:
        write_whole(folder / RESULT, json.dumps(result, indent=2).encode() + b"\n")
    tracker.emit(events.RunEnded("finished", result=result))
    tracker.drain(timeout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.train", description="Train a network."
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that differ")
    options = parser.parse_args(arguments)
    rank = os.environ.get("RANK", "0")
    try:
        train(load(options.config, options.overrides))
    except ValueError as error:
        if rank == "0" or isinstance(error, LocalError):
            print(error if rank == "0" else f"[rank {rank}] {error}", file=sys.stderr)
        return 2
    except LossError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
