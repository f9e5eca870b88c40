"""Opens the loader that the configuration names, and imports only that loader's library."""

from pipeline.config.schema import Dali, Data, Synthetic
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.loaders.base import Loader
from pipeline.system.extras import expect_installed


def open_loader(
    data: Data, split: Split, *, seed: int, global_batch: int, batch_per_rank: int, world: World
) -> Loader:
    """Return the loader that `data.loader` names; only evaluation uses `batch_per_rank`."""
    match data.loader:
        case Dali() as spec:
            from pipeline.loaders.dali import DaliLoader

            expect_installed("nvidia.dali", needed_by="data.loader.name=dali")
            return DaliLoader(
                spec,
                data,
                split,
                seed=seed,
                global_batch=global_batch,
                batch_per_rank=batch_per_rank,
                world=world,
            )
        case Synthetic():
            from pipeline.loaders.synthetic import SyntheticLoader

            return SyntheticLoader(
                classes=len(split.train.manifest.classes),
                size=data.train.size,
                eval_size=data.eval.size,
                seed=seed,
                train_batch=global_batch // world.size,
                batch_per_rank=batch_per_rank,
                samples=len(split.val),
                world=world,
            )
