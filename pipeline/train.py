"""Train one network: `python -m pipeline.train CONFIG [a.b=c ...]`, alone or under torchrun.

From the top: read the configuration, join the other ranks, hold the run's folder, open dataset,
network, engine, loader and tracking, resume from the newest checkpoint, hand over to the loop, and
write down the result.
"""

import argparse

# Loading torch takes seconds, and who asks to stop meanwhile shall find the program ready.
if __name__ == "__main__":
    from pipeline.system.extras import exit_unless_installed
    from pipeline.system.signals import leave_at_once

    leave_at_once()
    exit_unless_installed("pyarrow", "xxhash", needed_by="training")

import json
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich
import torch

from pipeline.checkpoint import (
    DATASET_FILE,
    Checkpoints,
    Progress,
    TrainedOn,
    describe_dataset,
    expect_same_stream,
    newest_checkpoint,
    read_checkpoint,
    recover_checkpoints,
)
from pipeline.config.load import dump, flatten, load
from pipeline.config.schema import Config
from pipeline.dataset.split import open_split
from pipeline.distributed.health import tell_of_machines
from pipeline.distributed.stopping import Stopping
from pipeline.distributed.world import World, join_world
from pipeline.engines import Trainee, open_engine
from pipeline.evaluation.counts import Counts
from pipeline.job import Job, open_images
from pipeline.loaders import Loader
from pipeline.loop import Run, fit, resume
from pipeline.meter import Meter
from pipeline.models import build, count_parameters
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer
from pipeline.optim.ema import WeightAverage
from pipeline.optim.schedule import in_steps
from pipeline.plan import make_plan
from pipeline.runs.fence import Fence, FencedOut
from pipeline.runs.folder import CONFIG_FILE, RESULT, hold_run_folder, read_result
from pipeline.runs.provenance import describe_run
from pipeline.runs.result import describe_result
from pipeline.storage.errors import ImageError
from pipeline.storage.staging import stage_on_each_node
from pipeline.system.durable import write_whole
from pipeline.system.exit_codes import LocalError, Stopped, exit_code, report_error
from pipeline.system.signals import StopSignals
from pipeline.system.watchdog import Watchdog
from pipeline.tracking import events
from pipeline.tracking.console import final_table
from pipeline.tracking.tracker import Tracker, open_tracker


def train(config: Config) -> dict[str, Any]:
    """Train as `config` says, from wherever an earlier attempt came to; return the result.

    Raises `ValueError` for what the user can mend: configuration, dataset, images, run folder; and
    `Stopped` if it was asked to stop.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        watchdog = stack.enter_context(Watchdog(config.train.watchdog_minutes))
        world = stack.enter_context(join_world())
        watchdog.expect_other()
        set_up_torch(deterministic=config.train.deterministic, world=world)
        split = open_split(config.data)
        plan = make_plan(config, samples=len(split.train), world_size=world.size)
        job = Job(config, world, split, plan, signals, watchdog)
        folder = world.broadcast_from_main(lambda: stack.enter_context(hold_run_folder(config)))
        watchdog.stacks = folder / "stacks" / f"rank-{world.rank}.txt"
        result = world.broadcast_from_main(lambda: read_result(folder))
        if result is None:
            watchdog.expect_hours()
            staged = stage_on_each_node(config.data, split, world)
            fence = Fence.around(folder) if world.is_main else Fence()
            return run_job(replace(job, split=staged, fence=fence), folder)
        if world.is_main:
            rich.print(final_table(result))
        return result


def run_job(job: Job, folder: Path) -> dict[str, Any]:
    """Train in `folder` under the eyes of the trackers, who hear how it ended, too."""
    loader = open_images(job)
    with open_tracker(job.config, folder, is_main=job.world.is_main) as tracker:
        job.watchdog.expect_other()
        job.watchdog.tell = lambda why: tracker.emit(events.RunEnded("failed", why))
        try:
            tell_of_machines(
                job.world,
                job.config.launch,
                run_dir=folder,
                stage=job.config.data.stage,
                warn=tracker.warn,
            )
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
        except Stopped as stop:
            tracker.emit(events.RunEnded("interrupted", str(stop)))
            await_others(job.world)
            raise
        except FencedOut:  # the run is another attempt's now, and so is what is told of it
            raise
        except BaseException as error:
            why = str(error) or type(error).__name__
            if job.signals.heard and isinstance(error, Exception):  # others were quicker to leave
                tracker.emit(events.RunEnded("interrupted", f"asked to stop; meanwhile: {why}"))
                raise Stopped(why) from error
            tracker.emit(events.RunEnded("failed", why))
            raise


def await_others(world: World) -> None:
    """Wait for ranks that still write, which one that left now would end; lost ones are told of."""
    try:
        world.gather(None)
    except RuntimeError as error:
        print(f"[rank {world.rank}] stopped, but lost another rank: {error}", file=sys.stderr)


def fit_or_fail(run: Run) -> Counts:
    """Call `fit`; what is wrong there is the user's mistake only if an image is."""
    try:
        with noting_place(run):
            return fit(run)
    except ImageError as error:
        raise LocalError(str(error)) from error
    except ValueError as error:
        raise RuntimeError(f"the training failed: {error}") from error
    finally:
        run.watchdog.expect_other()


@contextmanager
def noting_place(run: Run) -> Generator[None]:
    """Let an error that leaves the block say after which report it came."""
    try:
        yield
    except Exception as error:
        error.add_note(f"after step {run.progress.step}")
        raise


def set_up_torch(*, deterministic: bool, world: World) -> None:
    """Choose fast kernels, or repeatable ones."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:  # asked only then: merely asking loads the compiler, which takes seconds
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if world.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(world.cpu_threads)


def open_checkpoints(job: Job, folder: Path, tracker: Tracker) -> Checkpoints:
    """Open the run's checkpoints; the trackers hear of each that is saved."""
    keep = job.config.checkpoint
    every = keep.keep_every_epochs
    return Checkpoints(
        folder / "checkpoints",
        keep_last=keep.keep_last,
        keep_best=keep.keep_best,
        keep_every_steps=in_steps(every, job.plan.steps_per_epoch) if every else None,
        fence=job.fence,
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
        stopping=Stopping(world, job.signals),
        fence=job.fence,
        watchdog=job.watchdog,
    )


def restore(run: Run, folder: Path, tracker: Tracker) -> None:
    """Go on from the newest checkpoint that is whole, if there is one; all ranks from the same."""

    def find() -> Path | None:
        recover_checkpoints(folder / "checkpoints")
        return newest_checkpoint(folder / "checkpoints", tracker.warn)

    path = run.world.broadcast_from_main(find)
    if path is None:
        return
    snapshot = read_checkpoint(path)
    expect_same_stream(snapshot.progress, run.progress, path)
    resume(run, snapshot, path)


def announce(job: Job, run: Run, folder: Path, tracker: Tracker) -> None:
    """Tell the trackers, and each checkpoint, what starts, or goes on, and where it came from."""
    text = dump(job.config)
    tags = describe_run(text, job.fingerprint)
    manifest = job.split.train.manifest
    dataset = TrainedOn(manifest.name, manifest.fingerprint, manifest.classes, manifest.class_names)
    run.documents = {
        CONFIG_FILE: text,
        DATASET_FILE: describe_dataset(dataset),
        "provenance.json": json.dumps(tags, indent=2) + "\n",
    }
    tracker.emit(
        events.RunStarted(
            name=job.config.name,
            run_dir=str(folder),
            first_step=run.progress.step + 1,
            last_step=job.plan.last_step,
            last_epoch=job.plan.epoch(job.plan.last_step),
            world_size=job.world.size,
            params=flatten(job.config),
            tags=tags,
        )
    )


def finish(job: Job, run: Run, counts: Counts, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Write result.json, and let the trackers have the last word."""
    timeout = job.config.tracking.drain_timeout_seconds
    result = describe_result(run, counts, name=job.config.name, manifest=job.split.train.manifest)
    result |= {"run_dir": str(folder.resolve()), "mlflow_run_id": tracker.mlflow_run_id(timeout)}
    if job.world.is_main:
        job.fence.expect_mine()
        write_whole(folder / RESULT, json.dumps(result, indent=2).encode() + b"\n")
    tracker.emit(events.RunEnded("finished", result=result))
    tracker.drain(timeout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code.

    0 done, 2 user's mistake, 1 failure, 75 stopped when asked to, 86 ended by the watchdog.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.train", description="Train a network."
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that differ")
    options = parser.parse_args(arguments)
    try:
        train(load(options.config, options.overrides))
    except BaseException as error:
        code = exit_code(error)
        if code is None:
            raise
        report_error(error, int(os.environ.get("RANK", "0")))
        return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
