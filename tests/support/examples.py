"""What the examples in docs/architecture.md promise; run in a copy of the tree that has them all.

`python -P tests/support/examples.py FOLDER` needs PYTHONPATH to be the copy, and writes to FOLDER.
"""

import csv
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from data import prepare
from pipeline.augment.crops import training_views
from pipeline.config.load import load
from pipeline.config.schema import Config, Ddp, RandomResizedCrop, Sgd, Train, model_named
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, training_places
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.engines import Trainable, open_engine
from pipeline.evaluation import flip
from pipeline.loaders import open_loader
from pipeline.losses import build_loss
from pipeline.models import build, count_parameters
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer
from pipeline.train import train

CLASSES = ("bee", "ant", "cat")
IMAGES = {"train": 24, "val": 7}
RECIPE = """
name: examples
data:
  dir: {data}
  train: {{name: random_resized_crop, size: 32, vertical_flip: true}}
  eval: {{resize: 32, size: 32}}
  loader: {{name: dali, threads: 1}}
model: {{name: cifar_resnet8}}
train: {{steps: 4, global_batch: 8, precision: fp32}}
optim: {{name: adamw, lr: 0.01}}
schedule: {{name: cosine}}
evaluate: {{batch_per_rank: 3, flip: true}}
checkpoint: {{every_steps: 2}}
tracking: {{mlflow: false}}
"""


def main(folder: Path) -> None:
    dataset = check_source(folder)
    recipe = folder / "examples.yaml"
    recipe.write_text(RECIPE.format(data=dataset))
    config = load(recipe, [f"runs_dir={folder / 'runs'}"])
    check_model()
    check_views()
    check_loader(config)
    finished = check_optimiser(config, folder)
    check_protocol(config, finished)


def check_source(folder: Path) -> Path:
    """Index images that two tables list; return the folder of the index."""
    source, out = folder / "source", folder / "dataset"
    source.mkdir()
    for split, count in IMAGES.items():
        rows = [(f"{split} {n:02}.jpg", CLASSES[n % 3]) for n in range(count)]
        with (source / f"{split}.csv").open("w", newline="") as table:
            csv.writer(table).writerows(rows)
        for seed, (name, _) in enumerate(rows):
            noise = np.random.default_rng(seed).integers(0, 256, (32, 40, 3), np.uint8)
            Image.fromarray(noise).save(source / name)
    command = ["csv", str(source), "--out", str(out), "--workers", "1"]
    assert prepare.main(command) == 0
    for split, count in IMAGES.items():
        index = Index.open(out, split)
        assert index.manifest.classes == ("ant", "bee", "cat")
        found = {index.path(n).name: int(index.labels[n]) for n in range(len(index))}
        assert found == {f"{split} {n:02}.jpg": (1, 0, 2)[n % 3] for n in range(count)}
    with (source / "val.csv").open("a") as table:
        table.write("without a class\n")
    assert prepare.main([*command[:3], str(folder / "refused")]) == 2
    return out


def check_model() -> None:
    """Build the network, look at its output, and train two steps."""
    assert count_parameters(build(model_named("resnet26"), classes=1000, generator_seed=0)) == (
        15_995_176  # as in timm
    )
    settings, world = Train(steps=2, global_batch=2, precision="fp32"), World()
    network = build(model_named("resnet26"), classes=3, generator_seed=0)
    module = Normalized(network, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3), channels_last=True)
    trainable = Trainable(
        module, network, build_optimizer(network, Sgd(lr=0.1)), build_loss(settings)
    )
    engine = open_engine(Ddp(), trainable, settings, micro_batch=2, image_size=64, world=world)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert module(images).shape == (2, 3)
    losses = [engine.step(images, torch.tensor([0, 2]), lr=0.1).item() for _ in range(2)]
    assert losses[1] < losses[0]


def check_views() -> None:
    """The flip is decided by (seed, epoch, sample), and leaves all other draws as they were."""
    count = 1000
    places = BatchIndices(np.arange(count), np.zeros(count, np.int64))

    def views(where: BatchIndices, *, seed: int = 0, on: bool = True) -> Mapping[str, Any]:
        crop = RandomResizedCrop(size=8, vertical_flip=on)
        sides = np.full(len(where.samples), 50)
        return training_views(crop, where, seed=seed, heights=sides, widths=sides).geometry()

    drawn, without = dict(views(places)), views(places, on=False)
    flips = drawn.pop("vertical_flip")
    assert drawn.keys() == without.keys()
    assert all((drawn[name] == without[name]).all() for name in drawn)
    assert set(flips.tolist()) == {0, 1}
    assert 420 < flips.sum() < 580
    assert 420 < (flips == drawn["flip"]).sum() < 580
    some = np.random.default_rng(0).permutation(count)[:300]
    alone = views(BatchIndices(places.samples[some], places.epochs[some]))
    assert (alone["vertical_flip"] == flips[some]).all()
    for other in (views(places, seed=1), views(BatchIndices(places.samples, places.epochs + 1))):
        assert 420 < (other["vertical_flip"] == flips).sum() < 580


def check_loader(config: Config) -> None:
    """The loader turns the flipped images, and only those, upside down, on any number of ranks."""
    folder, batch = config.data.dir, config.train.global_batch
    split = Split(Index.open(folder, "train"), Index.open(folder, "val"))

    def images(rank: int, ranks: int, *, on: bool) -> torch.Tensor:
        crop = replace(config.data.train, vertical_flip=on)
        loader = open_loader(
            replace(config.data, train=crop),
            split,
            seed=config.seed,
            global_batch=batch,
            batch_per_rank=8,
            world=World(rank=rank, size=ranks),
        )
        with loader.train(range(1, 2)) as stream:
            return next(stream).images.clone()

    where = training_places(1, samples=len(split.train), seed=config.seed, global_batch=batch)
    sides = split.train.heights[where.samples], split.train.widths[where.samples]
    drawn = training_views(
        config.data.train, where, seed=config.seed, heights=sides[0], widths=sides[1]
    )
    expected = images(0, 1, on=False)
    assert 0 < drawn.vertical_flip.sum() < batch
    for at in drawn.vertical_flip.nonzero()[0]:
        expected[at] = expected[at].flip(0)
    assert torch.equal(images(0, 1, on=True), expected)
    assert torch.equal(torch.cat([images(rank, 2, on=True) for rank in (0, 1)]), expected)


def check_optimiser(config: Config, folder: Path) -> Path:
    """A run that resumes at step 2 ends as the unbroken one; return the run folder."""
    assert isinstance(load(Path("configs/quickstart.yaml")).optim, Sgd)
    unbroken = Path(train(config)["run_dir"])
    resumed = folder / "resumed"
    shutil.copytree(unbroken, resumed)
    (resumed / "result.json").unlink()
    shutil.rmtree(resumed / "checkpoints/step-00000004")
    train(replace(config, run_dir=resumed))
    found, expected = tensors(resumed), tensors(unbroken)
    assert found.keys() == expected.keys()
    slots = {name.partition("/")[0] for name in found if name.startswith("optimizer.")}
    assert slots == {"optimizer.exp_avg", "optimizer.exp_avg_sq", "optimizer.step"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert all(value == 4 for name, value in found.items() if name.startswith("optimizer.step/"))
    return unbroken


def check_protocol(config: Config, finished: Path) -> None:
    """Each image counts once, an image and its mirror image count alike, weights stay the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8, generator=generator)
    weights = torch.randn(6 * 6 * 3, 4, generator=generator)
    predict = flip.with_mirror_images(lambda some: some.flatten(1).float() @ weights)
    torch.testing.assert_close(predict(images), predict(images.flip(2)))
    plain = train(replace(config, evaluate=replace(config.evaluate, flip=False)))
    flipped = train(replace(config, run_dir=finished))  # it is finished: this reads its result
    assert plain["run_dir"] != flipped["run_dir"]
    assert plain["images_evaluated"] == flipped["images_evaluated"] == IMAGES["val"]
    assert plain["validation_loss"] != flipped["validation_loss"]
    same, expected = tensors(Path(plain["run_dir"])), tensors(finished)
    assert all(torch.equal(same[name], expected[name]) for name in expected)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a run's last checkpoint."""
    files = (run / "checkpoints/step-00000004").glob("*.safetensors")
    return {f"{file.stem}/{name}": t for file in files for name, t in load_file(file).items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
