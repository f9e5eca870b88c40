"""From the configuration to a loader; a library is imported only if its loader is chosen."""

from pipeline.config.schema import Dali, Data, Synthetic
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.loaders.base import Loader
from pipeline.system.extras import expect_installed


def open_loader(
    data: Data, split: Split, *, seed: int, global_batch: int, rank_batch: int, world: World
) -> Loader:
    """Return the loader that `data.loader` names; `rank_batch` is for evaluation."""
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
                rank_batch=rank_batch,
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
                rank_batch=rank_batch,
                samples=len(split.val),
                world=world,
            )
