"""The training loop, as prose."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.checkpoint import Checkpoints, Progress, Snapshot, Tensors, expect_same_tensors
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

ANSWER_MINUTES = 2.0
"""How much longer than the watchdog a rank waits for others: the watchdog tells more."""


@dataclass
class Run:
    """All that the loop works with, and where it stands (`progress`)."""

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
    """Texts that each checkpoint holds, by their file names."""
    synchronized_step: int = 0
    """The step whose running statistics are one and the same on all ranks."""


def fit(run: Run) -> Counts:
    """Train from where `run.progress` stands to the end of the plan; return the last evaluation.

    Raises `Stopped` if the run is asked to stop; all is saved then, but the write may go on.
    """
    counts = evaluate_and_save(run, run.progress.step) if evaluation_is_due(run) else None
    run.meter.restart()
    steps = range(run.progress.step + 1, run.plan.last_step + 1)  # empty if the run is finished
    with run.loader.train(steps) as batches:
        for step in steps:
            train_step(run, batches, step)
            after_step(run, first=step == steps.start)
            if not (run.plan.reports(step) or run.stopping.agreed):
                continue
            report(run, step, replaced=batches.replaced)
            counts = evaluate_and_save(run, step)
            run.meter.restart()
    run.stopping.end()
    counts = counts or count_validation(run, run.progress.step)
    assert counts is not None, "nobody can ask any more"
    return counts


def evaluation_is_due(run: Run) -> bool:
    """Whether the run was stopped when an evaluation was due, or under way."""
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
    """A step is done: tell the watchdog, and vote with the other ranks on whether to stop."""
    run.watchdog.expect_step()
    if first and run.watchdog.minutes:
        run.world.expect_answers_within(run.watchdog.minutes + ANSWER_MINUTES)
    run.stopping.vote()


def report(run: Run, step: int, *, replaced: int) -> None:
    """Tell loss, rate and speed since the last report.

    Stops the run if the loss is no number, or if the run is another attempt's by now.
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
    """Evaluate, note that `step` is done, and save, each if it is due; then stop if that is agreed.

    A stop does not wait for an evaluation: the run begins with it when it goes on.
    """
    due = step in run.plan.evaluate and not run.stopping.agreed
    counts = count_validation(run, step) if due else None
    improved = advance(run, step, counts)
    stop = run.stopping.agreed
    if stop or step in run.plan.save or (improved and run.checkpoints.keep_best):
        save(run)
    if stop:
        raise Stopped(f"stopped after step {step:,}; run the same command again to go on")
    return counts


def count_validation(run: Run, step: int) -> Counts | None:
    """Evaluate the network, or the average of its weights where one is kept.

    None if the run is asked to stop meanwhile.
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
    """Yield batches to the end, or until this rank is asked to stop; then vote with the others.

    Raises `Stopped`, on all ranks, if one of them was asked: the batches are not all there.
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
    """Note that `step` is done; return whether it gave the lowest error so far."""
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
    """Hand the state to the checkpoints; only the copy to host memory is waited for."""
    step = run.progress.step
    synchronize(run, step)
    state = run.engine.state()
    if not run.world.is_main:
        return
    progress = replace(run.progress, scaler=state.scaler)
    documents = run.documents | {"schedule.json": describe_schedule(run)}
    last = run.stopping.agreed or step == run.plan.last_step
    run.checkpoints.save(Snapshot(tensor_groups(run, state), progress, documents), last=last)


def tensor_groups(run: Run, state: EngineState) -> dict[str, Tensors]:
    """Return all tensors that a checkpoint of this run holds, group by group."""
    groups = {"model": state.model, "momentum": state.momentum}
    if run.average:
        groups["ema"] = run.average.average
    return groups


def describe_schedule(run: Run) -> str:
    """Return as JSON what `run.progress` means in epochs and rates, and on how many ranks."""
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


def resume(run: Run, snapshot: Snapshot, path: Path) -> None:
    """Take over the checkpoint of `path`: training goes on at the step after it.

    Raise `CheckpointError` if it lacks what this run needs.
    """
    tensors, scaler = snapshot.tensors, snapshot.progress.scaler
    expect_same_tensors(tensors, tensor_groups(run, run.engine.state()), path)
    run.engine.load(EngineState(tensors["model"], tensors["momentum"], scaler))
    if run.average:
        run.average.load(tensors["ema"])
    run.progress = snapshot.progress
    run.synchronized_step = run.progress.step


def synchronize(run: Run, step: int) -> None:
    """Average running statistics over the ranks, once a step: each has seen other images."""
    if run.synchronized_step == step:
        return
    run.engine.synchronize()
    if run.average:
        run.average.synchronize(run.world)
    run.synchronized_step = step
