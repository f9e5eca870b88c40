"""The training loop, as prose."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from pipeline.checkpoint import Checkpoints, Progress, Snapshot
from pipeline.distributed import World
from pipeline.ema import WeightAverage
from pipeline.engines import Engine, EngineState
from pipeline.evaluate import Counts, evaluate
from pipeline.loaders import Loader, Stream
from pipeline.metrics import Meter
from pipeline.plan import Plan
from pipeline.tracking import events


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


def fit(run: Run) -> Counts:
    """Train from where `run.progress` stands to the end of the plan; return the last evaluation."""
    counts = None
    run.meter.restart()
    steps = range(run.progress.step + 1, run.plan.last_step + 1)  # empty if the run is finished
    with run.loader.train(steps) as batches:
        for step in steps:
            train_step(run, batches, step)
            if not run.plan.reports(step):
                continue
            report(run, step, replaced=batches.replaced)
            counts = count_validation(run, step) if step in run.plan.evaluate else None
            improved = advance(run, step, counts)
            if step in run.plan.save or (improved and run.checkpoints.keep_best):
                save(run)
            run.meter.restart()
    return counts or count_validation(run, run.progress.step)


def train_step(run: Run, batches: Stream, step: int) -> None:
    """Train on the next batch. Nothing in here waits for the device."""
    batch = run.meter.fetch(batches)
    loss = run.engine.step(batch.images, batch.labels, lr=run.plan.rate(step))
    run.meter.add(loss)
    if run.average:
        run.average.update(step)


def report(run: Run, step: int, *, replaced: int) -> None:
    """Tell loss, rate and speed since the last report; stops the run if the loss is no number."""
    reading = run.meter.read(step)
    run.emit(
        events.Progress(
            step=step,
            epoch=run.plan.epoch(step),
            loss=reading.loss,
            lr=run.plan.rate(step),
            images_per_second=reading.images_per_second,
            data_wait_percent=reading.data_wait_percent,
            images_replaced=sum(run.world.gather(replaced)),
        )
    )


def count_validation(run: Run, step: int) -> Counts:
    """Evaluate the network, or the average of its weights where one is kept."""
    started = time.perf_counter()
    synchronize(run)
    averaged = run.average.applied() if run.average else nullcontext()
    with averaged, run.engine.evaluating() as predict, run.loader.evaluate() as batches:
        counts = evaluate(predict, batches, samples=run.validation_images, world=run.world)
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
    synchronize(run)
    if not run.world.is_main:
        return
    state = run.engine.state()
    tensors = {"model": state.model, "momentum": state.momentum}
    if run.average:
        tensors["ema"] = run.average.average
    run.checkpoints.save(Snapshot(tensors, replace(run.progress, scaler=state.scaler)))


def resume(run: Run, snapshot: Snapshot) -> None:
    """Take over a checkpoint: training goes on at the step after it."""
    tensors = snapshot.tensors
    scaler = snapshot.progress.scaler
    run.engine.load(EngineState(tensors["model"], tensors["momentum"], scaler))
    if run.average:
        run.average.load(tensors["ema"])
    run.progress = snapshot.progress


def synchronize(run: Run) -> None:
    """Average running statistics over the ranks: each has seen other images."""
    run.engine.synchronize()
    if run.average:
        run.average.synchronize(run.world)
