"""The training loop."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.checkpoint import (
    EMA,
    MODEL,
    Checkpoints,
    Progress,
    Snapshot,
    Tensors,
    expect_same_stream,
    expect_same_tensors,
    newest_checkpoint,
    read_checkpoint,
    recover_checkpoints,
    saved_slots,
    tensor_groups,
)
from pipeline.distributed.stopping import Stopping
from pipeline.distributed.world import World
from pipeline.engines import Engine, EngineState
from pipeline.evaluation.counts import Counts, evaluate
from pipeline.loaders import Batch, Loader, Stream
from pipeline.meter import Meter
from pipeline.optim.ema import WeightAverage
from pipeline.plan import Plan
from pipeline.runs.fence import Fence
from pipeline.system.exit_codes import Stopped
from pipeline.system.watchdog import Watchdog
from pipeline.tracking import events

COLLECTIVE_EXTRA_MINUTES = 2.0
"""How much later than the watchdog a collective times out: the watchdog reports more."""


@dataclass
class Run:
    """Everything that the loop works with, and how far it has trained (`progress`)."""

    world: World
    plan: Plan
    engine: Engine
    average: WeightAverage | None
    loader: Loader
    validation_images: int
    parameters: int
    checkpoints: Checkpoints
    meter: Meter
    emit: Callable[[events.Event], None]
    progress: Progress
    stopping: Stopping
    watchdog: Watchdog
    fence: Fence
    documents: dict[str, str] = field(default_factory=dict[str, str])
    """Texts that each checkpoint contains, by file name."""
    synchronized_step: int = 0
    """The last step after which all ranks had the same running statistics."""


def fit(run: Run) -> Counts:
    """Train from `run.progress` to the end of the plan; return the last evaluation.

    Raises `Stopped` if the run is asked to stop; a thread may still be writing the checkpoint.
    """
    counts = evaluate_and_save(run, run.progress.step) if evaluation_is_due(run) else None
    run.meter.restart()
    steps = range(run.progress.step + 1, run.plan.last_step + 1)  # empty if the run is finished
    with run.loader.train(steps) as batches:
        for step in steps:
            train_step(run, batches, step)
            after_step(run, first=step == steps.start)
            if run.plan.reports(step) or run.stopping.agreed:
                report(run, step, replaced=batches.replaced)
                counts = evaluate_and_save(run, step)
                run.meter.restart()
    run.stopping.end()
    counts = counts or count_validation(run, run.progress.step)
    assert counts is not None, "a stop is not accepted any more"
    return counts


def evaluation_is_due(run: Run) -> bool:
    """Whether the last attempt stopped before or during the evaluation of its last step."""
    progress = run.progress
    due = progress.step > 0 and progress.step in run.plan.evaluate
    return due and progress.top1_error_percent is None


def train_step(run: Run, batches: Stream, step: int) -> None:
    """Train on the next batch. Nothing in here waits for the device."""
    batch = run.meter.fetch(batches)
    loss = run.engine.step(batch.images, batch.labels, lr=run.plan.rate(step))
    run.meter.add(loss)
    if run.average:
        run.average.update(step)


def after_step(run: Run, *, first: bool) -> None:
    """Restart the watchdog's time, and vote with the other ranks on whether to stop."""
    run.watchdog.expect_step()
    if first and run.watchdog.minutes:
        run.world.expect_answers_within(run.watchdog.minutes + COLLECTIVE_EXTRA_MINUTES)
    run.stopping.vote()


def report(run: Run, step: int, *, replaced: int) -> None:
    """Report loss, rate and speed since the last report.

    Raises `LossError` if the loss is not finite, and `FencedOut` if another attempt owns the run.
    """
    run.fence.expect_mine()
    reading = run.meter.read(step)
    run.emit(
        events.StepReport(
            step=step,
            epoch=run.plan.epoch(step),
            loss=reading.loss,
            lr=run.plan.rate(step),
            images_per_second=reading.images_per_second,
            data_wait_percent=reading.data_wait_percent,
            images_replaced=sum(run.world.gather(replaced)),
        )
    )


def evaluate_and_save(run: Run, step: int) -> Counts | None:
    """Evaluate, record that `step` is done, and save, as due; raise `Stopped` if agreed.

    A stop does not wait for an evaluation: the run evaluates first when it resumes.
    """
    due = step in run.plan.evaluate and not run.stopping.agreed
    counts = count_validation(run, step) if due else None
    improved = advance(run, step, counts)
    stop = run.stopping.agreed
    if stop or step in run.plan.save or (improved and run.checkpoints.keep_best):
        save(run)
    if stop:
        message = f"stopped after step {step:,}; run the same command again to continue"
        raise run.stopping.stopped(message)
    return counts


def count_validation(run: Run, step: int) -> Counts | None:
    """Evaluate the network, or its averaged weights if the run keeps an average.

    Returns None if the run is asked to stop before the end.
    """
    started = time.perf_counter()
    run.watchdog.expect_other()
    synchronize(run, step)
    averaged = run.average.applied() if run.average else nullcontext()
    counts = None
    with (
        suppress(Stopped),
        averaged,
        run.engine.evaluating() as predict,
        run.loader.evaluate() as stream,
    ):
        batches = until_stopped(run, stream)
        counts = evaluate(predict, batches, samples=run.validation_images, world=run.world)
    if counts is None:
        return None
    run.emit(
        events.Evaluated(
            step=step,
            epoch=run.plan.epoch(step),
            top1_error_percent=counts.top1_error_percent,
            top5_error_percent=counts.top5_error_percent,
            loss=counts.loss,
            images=counts.images,
            seconds=time.perf_counter() - started,
        )
    )
    return counts


def until_stopped(run: Run, stream: Stream) -> Iterator[Batch]:
    """Yield all batches, or those until this rank is asked to stop; then vote with the others.

    Raises `Stopped`, on all ranks, if any rank was asked: its batches are incomplete.
    """
    for batch in stream:
        run.watchdog.expect_other()
        if run.stopping.asked():
            break
        yield batch
    run.stopping.vote_now()
    if run.stopping.agreed:
        raise Stopped


def advance(run: Run, step: int, counts: Counts | None) -> bool:
    """Record that `step` is done; return whether its error is the lowest so far."""
    best = run.progress.best_top1_error_percent
    error = counts.top1_error_percent if counts else None
    improved = error is not None and (best is None or error < best)
    run.progress = replace(
        run.progress,
        step=step,
        seconds=run.progress.seconds + run.meter.take_seconds(),
        top1_error_percent=error,
        best_top1_error_percent=error if improved else best,
    )
    return improved


def save(run: Run) -> None:
    """Start to save the state; returns once it is copied to host memory. A collective."""
    step = run.progress.step
    synchronize(run, step)
    state = run.engine.state()
    if not run.world.is_main:
        return
    snapshot = Snapshot(
        tensors_of(run, state),
        replace(run.progress, scaler=state.scaler),
        run.documents | {"schedule.json": describe_schedule(run)},
    )
    last = run.stopping.agreed or step == run.plan.last_step
    run.checkpoints.save(snapshot, last=last)


def resume_newest(run: Run, folder: Path, warn: Callable[[str], None]) -> None:
    """Resume from the newest undamaged checkpoint in `folder`, if there is one. A collective.

    Raises `CheckpointError` if it is from another stream of images or another network.
    """

    def find() -> Path | None:
        recover_checkpoints(folder)
        return newest_checkpoint(folder, warn)

    path = run.world.broadcast_from_main(find)
    if path is None:
        return
    snapshot = read_checkpoint(path)
    expect_same_stream(snapshot.progress, run.progress, path)
    resume(run, snapshot, path)


def resume(run: Run, snapshot: Snapshot, path: Path) -> None:
    """Load the checkpoint at `path`; training continues with the step after it.

    Raises `CheckpointError` if it is not a checkpoint of this network and this optimiser.
    """
    tensors = snapshot.tensors
    expect_same_tensors(tensors, tensors_of(run, run.engine.state()), path)
    scaler = snapshot.progress.scaler
    run.engine.load(EngineState(tensors[MODEL], saved_slots(tensors), scaler))
    if run.average:
        run.average.load(tensors[EMA])
    run.progress = snapshot.progress
    run.synchronized_step = run.progress.step


def tensors_of(run: Run, state: EngineState) -> dict[str, Tensors]:
    """Return all tensors that a checkpoint of this run contains, group by group."""
    average = run.average.average if run.average else None
    return tensor_groups(state.model, state.optimizer, average)


def describe_schedule(run: Run) -> str:
    """Return, as JSON, the epoch, the next rate and the number of ranks at `run.progress`."""
    step, plan = run.progress.step, run.plan
    schedule = {
        "step": step,
        "last_step": plan.last_step,
        "epoch": plan.epoch(step),
        "last_epoch": plan.epoch(plan.last_step),
        "next_lr": plan.rate(step + 1) if step < plan.last_step else None,
        "world_size": run.world.size,
    }
    return json.dumps(schedule, indent=2) + "\n"


def synchronize(run: Run, step: int) -> None:
    """Average running statistics over the ranks, at most once for each step. A collective."""
    if run.synchronized_step == step:
        return
    run.engine.synchronize()
    if run.average:
        run.average.synchronize(run.world)
    run.synchronized_step = step
