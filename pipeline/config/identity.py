"""Which settings decide the result of a run, and which may change between two attempts at it."""

from dataclasses import replace
from pathlib import Path

from pipeline.config.schema import Checkpoint, Config, Ddp, Evaluate, Launch, Slurm, Tracking


def result_identity(config: Config) -> Config:
    """Return `config` with all that may change between two attempts at a run set to one value.

    Left out is what does not decide the result, so that a run can go on elsewhere, faster or under
    another watch: where the run and its images lie, and how these are loaded and checked;
    accumulation, compilation and the engine; how often the run is logged, evaluated, saved and
    tracked; and how its ranks are started, on which nodes and with which variables. What changes
    the numbers stays in: the kind of loader (random images train another network), and whether the
    engine rounds gradients.
    """
    data, train = config.data, config.train
    loader = type(data.loader)()
    return replace(
        config,
        data=replace(data, root=None, stage=None, loader=loader, verify="off"),
        train=replace(
            train, accumulation=1, compile=False, log_every_steps=1, watchdog_minutes=None
        ),
        engine=Ddp(gradient_compression=config.engine.gradient_compression),
        evaluate=Evaluate(),
        checkpoint=Checkpoint(),
        tracking=Tracking(),
        launch=Launch(),
        slurm=Slurm(),
        env={},
        runs_dir=Path(),
        run_dir=None,
    )
