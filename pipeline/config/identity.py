"""Which settings decide the result of a run, and which may change when it is resumed."""

from dataclasses import replace
from pathlib import Path

from pipeline.config.schema import Checkpoint, Config, Ddp, Evaluate, Launch, Slurm, Tracking


def result_identity(config: Config) -> Config:
    """Return `config` with each setting that does not decide the result set to one value.

    Two configurations belong to the same run if their identities are equal. These settings may
    change when a run is resumed: the folders of the run and its images, and how images are loaded
    and checked; accumulation, compilation and the engine; how often the run is logged, evaluated,
    saved and tracked; nodes, ranks and environment variables. What changes the numbers stays: the
    kind of loader (random images train another network), and whether gradients are rounded.
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
        variant=None,
        runs_dir=Path(),
        run_dir=None,
    )
