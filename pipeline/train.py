"""Train one network: `python -m pipeline.train CONFIG [a.b=c ...]`, alone or under torchrun.

From the top: read the configuration, join the other ranks, lock the run folder, open dataset,
loader and tracking, build network and engine, resume from the newest checkpoint, run the loop, and
write the result.
"""

# Importing torch takes seconds; handle stop signals before that.
if __name__ == "__main__":
    from pipeline.system.extras import exit_unless_installed
    from pipeline.system.signals import leave_at_once

    leave_at_once()
    exit_unless_installed("pyarrow", "xxhash", needed_by="training")

import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.checkpoint import DATASET_FILE, Checkpoints, Progress, describe_dataset
from pipeline.config.foreign import option_hint
from pipeline.config.load import dump, flatten, load
from pipeline.config.schema import Config
from pipeline.dataset.split import open_split
from pipeline.distributed.health import report_machines
from pipeline.distributed.stopping import Stopping
from pipeline.distributed.world import World, join_world, set_up_torch
from pipeline.evaluation.counts import Counts
from pipeline.finish import expect_last_weights, finish
from pipeline.job import (
    Job,
    build_trainable,
    find_doubts,
    open_checkpoints,
    open_images,
    open_job_engine,
)
from pipeline.loaders import Loader
from pipeline.loop import Run, fit, resume_newest
from pipeline.meter import Meter, process_seconds
from pipeline.models import count_parameters
from pipeline.optim.ema import WeightAverage
from pipeline.plan import make_plan
from pipeline.runs.fence import Fence, FencedOut
from pipeline.runs.find import lost_final_checkpoint
from pipeline.runs.folder import CONFIG_FILE, hold_run_folder, read_result
from pipeline.runs.precision import settle_precision
from pipeline.runs.provenance import describe_problem, describe_run
from pipeline.storage.errors import ImageError
from pipeline.storage.staging import stage_on_each_node
from pipeline.system.command import Parser, note
from pipeline.system.exit_codes import (
    Interrupted,
    LocalError,
    Stopped,
    exit_code,
    report_error,
)
from pipeline.system.output import lasting_output, print_warning
from pipeline.system.secrets import hide_secrets
from pipeline.system.signals import StopSignals
from pipeline.system.watchdog import Watchdog
from pipeline.tracking import events
from pipeline.tracking.console import show_result
from pipeline.tracking.tracker import Tracker, expect_usable_store, open_tracker


def train(config: Config) -> dict[str, Any]:
    """Train as `config` says, from the newest checkpoint of its run; return the result.

    Raises `ValueError` for what the user can fix (configuration, dataset, images, run folder),
    `Stopped` if it was asked to stop, and `NotSaved` if the last weights cannot be written.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        watchdog = stack.enter_context(Watchdog(config.train.watchdog_minutes))
        world = stack.enter_context(join_world())
        watchdog.expect_other()
        expect_usable_store(config.tracking)
        set_up_torch(deterministic=config.train.deterministic, world=world)
        split = open_split(config.data)
        plan = make_plan(config, samples=len(split.train), world_size=world.size)
        job = Job(config, world, split, plan, signals, watchdog)
        folder = world.broadcast_from_main(lambda: stack.enter_context(hold_run_folder(config)))
        watchdog.stacks = folder / "stacks" / f"rank-{world.rank}.txt"
        result = world.broadcast_from_main(lambda: read_result(folder))
        if result is None:
            settled = settle_precision(config, folder, world)
            watchdog.expect_hours()
            staged = stage_on_each_node(config.data, split, world)
            fence = Fence.around(folder) if world.is_main else Fence()
            return run_job(replace(job, config=settled, split=staged, fence=fence), folder)
        if world.is_main:
            show_result(result)
            if lost := lost_final_checkpoint(folder):
                print_warning(lost)
        return result


def run_job(job: Job, folder: Path) -> dict[str, Any]:
    """Train in `folder`, and report to the trackers how that ends; return the result."""
    loader = open_images(job)
    with open_tracker(job.config, folder, is_main=job.world.is_main) as tracker:
        job.watchdog.expect_other()
        job.watchdog.on_hang = lambda why: tracker.emit(events.RunEnded("failed", why))
        with reporting_end(job, tracker):
            for doubt in find_doubts(job):
                tracker.warn(doubt)
            report_machines(
                job.world,
                job.config.launch,
                run_dir=folder,
                stage=job.config.data.stage,
                warn=tracker.warn,
            )
            with open_checkpoints(job, folder, tracker) as checkpoints:
                run = assemble(job, loader, checkpoints, tracker)
                resume_newest(run, folder / "checkpoints", tracker.warn)
                if job.world.is_main:
                    announce(job, run, folder, tracker)
                counts = fit_or_fail(run)
                expect_last_weights(job, checkpoints)
            return finish(job, run, counts, folder, tracker)


@contextmanager
def reporting_end(job: Job, tracker: Tracker) -> Generator[None]:
    """Report to the trackers why the block ends, if an exception ends it."""
    try:
        yield
    except Stopped as stop:
        tracker.emit(events.RunEnded("interrupted", str(stop)))
        await_others(job.world)
        raise
    except FencedOut:  # another attempt owns the run now, and its reports
        raise
    except BaseException as error:
        why = hide_secrets(str(error) or type(error).__name__)
        if job.signals.heard and isinstance(error, Exception):  # another rank left first
            tracker.emit(events.RunEnded("interrupted", f"asked to stop; meanwhile: {why}"))
            by_user = job.signals.heard == signal.SIGINT
            raise (Interrupted(why) if by_user else Stopped(why)) from error
        tracker.emit(events.RunEnded("failed", why))
        raise


def await_others(world: World) -> None:
    """Wait for ranks that are still saving: the launcher would end them once this one leaves."""
    try:
        world.gather(None)
    except RuntimeError as error:
        print(f"[rank {world.rank}] stopped, but lost another rank: {error}", file=sys.stderr)


def fit_or_fail(run: Run) -> Counts:
    """Call `fit`; of the errors in it, only an `ImageError` is the user's mistake."""
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
    """Add the last reported step to an error that leaves the block."""
    try:
        yield
    except Exception as error:
        error.add_note(f"after step {run.progress.step}")
        raise


def assemble(job: Job, loader: Loader, checkpoints: Checkpoints, tracker: Tracker) -> Run:
    """Build network and engine, and return them with everything else that the loop works with."""
    world, plan, ema = job.world, job.plan, job.config.train.ema
    trainable = build_trainable(job)
    network = trainable.network
    return Run(
        world=world,
        plan=plan,
        engine=open_job_engine(job, trainable),
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
            fingerprint=job.dataset.fingerprint,
            seed=job.config.seed,
            global_batch=plan.global_batch,
        ),
        stopping=Stopping(world, job.signals),
        fence=job.fence,
        watchdog=job.watchdog,
    )


def announce(job: Job, run: Run, folder: Path, tracker: Tracker) -> None:
    """Describe the run to the trackers, and in the documents of its checkpoints."""
    text = dump(job.config)
    tags = describe_run(text, job.dataset.fingerprint)
    if problem := describe_problem(tags):
        tracker.warn(problem)
    run.documents = {
        CONFIG_FILE: text,
        DATASET_FILE: describe_dataset(job.dataset),
        "provenance.json": json.dumps(tags, indent=2) + "\n",
    }
    tracker.emit(
        events.RunStarted(
            name=job.config.title,
            run_dir=str(folder),
            first_step=run.progress.step + 1,
            last_step=job.plan.last_step,
            last_epoch=job.plan.epoch(job.plan.last_step),
            world_size=job.world.size,
            params=flatten(job.config),
            tags=tags,
            gpus=job.world.size if job.world.device.type == "cuda" else 0,
            setup_seconds=process_seconds(),
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code.

    0 finished, 1 failed, 2 the user's mistake, 75 stopped when asked to, 86 ended by the watchdog,
    130 stopped by Ctrl-C.
    """
    parser = Parser(
        prog="python -m pipeline.train", description="Train a network.", hint=option_hint
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to change")
    options = parser.parse_args(arguments)
    with lasting_output():
        try:
            train(load(options.config, options.overrides, note=note))
        except BaseException as error:
            code = exit_code(error)
            if code is None:
                raise
            report_error(error, int(os.environ.get("RANK", "0")))
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
