"""From the configuration to an engine; DeepSpeed is imported only if it is chosen."""

from pipeline.config.schema import Ddp, DeepSpeed, Train
from pipeline.distributed.world import World
from pipeline.engines.base import Engine, Trainable


def open_engine(
    spec: Ddp | DeepSpeed,
    trainable: Trainable,
    train: Train,
    *,
    micro_batch: int,
    image_size: int,
    world: World,
) -> Engine:
    """Return the engine that `spec` names; training images are squares of `image_size` pixels.

    Raises `ValueError` if it is not installed.
    """
    match spec:
        case Ddp():
            from pipeline.engines.ddp import DdpEngine

            return DdpEngine(
                spec, trainable, train, micro_batch=micro_batch, image_size=image_size, world=world
            )
        case DeepSpeed():
            from pipeline.engines.deepspeed import open_deepspeed

            return open_deepspeed(spec, trainable, train, micro_batch=micro_batch, world=world)
