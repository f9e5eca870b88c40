"""Programs for ranks that wait for something that never happens."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import train
from pipeline.distributed.world import join_world
from pipeline.system import watchdog


def impatient(arguments: Sequence[str]) -> int:
    """Train with a watchdog whose minimum timeout is short."""
    watchdog.PATIENCE_MINUTES = 0.02
    return train.main(arguments)


def missing(arguments: Sequence[str]) -> None:
    """Make rank 0 wait for a rank 1 that never comes; write the error to a file."""
    wait, failed = arguments[0], Path(arguments[1])
    with join_world() as world:
        assert world.all_reduce_max_async([world.rank, -world.rank])() == [1, 0]
        world.expect_answers_within(1 / 60)
        if world.rank == 1:
            while not failed.exists():
                time.sleep(0.01)
        else:
            try:
                if wait == "all_reduce_max_async":
                    world.all_reduce_max_async([1])()
                else:
                    world.gather(1)
            except RuntimeError as error:
                failed.write_text(str(error))
        os._exit(0)
