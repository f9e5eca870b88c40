"""A run is named after its recipe and what the command line changed."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.identity import result_identity
from pipeline.config.load import dump, load
from tests.support.run_folders import hold_once

RECIPE = Path(__file__).parents[3] / "configs" / "resnet50.yaml"
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,120}")


def title(*overrides: str) -> str:
    return load(RECIPE, overrides).title


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "resnet50"),
        (["model.name=resnet18"], "resnet50-resnet18"),
        (["optim.lr=0.20", "model.name=resnet18"], "resnet50-lr=0.2_resnet18"),
        (["schedule.name=cosine", "train.epochs=18"], "resnet50-cosine_epochs=18"),
        (["schedule={name: cosine, warmup_epochs: 5}"], "resnet50-cosine"),
        (["train.steps=7", "seed=3"], "resnet50-steps=7_seed=3"),
        (["train.channels_last=false"], "resnet50-channels_last=false"),
        (["data.mean=[0.5, 0.5, 0.5]"], "resnet50-mean=0.5-0.5-0.5"),
        (["data.dir=/data/tiny images"], "resnet50-dir=tiny-images"),
        (["data.train.size=9", "data.eval.size=8"], "resnet50-data.train.size=9_data.eval.size=8"),
        (["engine.gradient_compression=bf16"], "resnet50-gradient_compression=bf16"),
        # What the recipe already has, or what does not decide the result, is not in the name.
        (["model.name=resnet50", "seed=0", "optim.lr=0.1"], "resnet50"),
        (["engine.name=deepspeed", "data.loader.threads=3", "runs_dir=/x"], "resnet50"),
        (["data.dir=/scratch/imagenet"], "resnet50"),
        (["slurm.partition=gpu", "train.accumulation=2", "evaluate.every_epochs=5"], "resnet50"),
        # A name on the command line is the whole name.
        (["name=mine", "optim.lr=0.2"], "mine"),
        (["variant=warm", "optim.lr=0.2"], "resnet50-warm"),
    ],
)  # fmt: skip
def test_the_title_has_what_was_overridden_and_matters(overrides: list[str], expected: str) -> None:
    assert title(*overrides) == expected


keys = st.sampled_from(["optim.lr", "optim.momentum", "optim.weight_decay", "seed", "train.steps"])


@given(st.text(max_size=90), st.dictionaries(keys, st.integers(1, 10**9)))
def test_a_title_is_a_short_and_safe_name(folder: str, settings: dict[str, int]) -> None:
    numbers = [f"{k}={n / 1e10 if 'optim' in k else n}" for k, n in settings.items()]
    place = folder.replace("\\", "").replace('"', "")
    written = [f'data.dir="{place}"'] if place.isprintable() and place.strip() else []
    assert FOLDER.fullmatch(title(*written, *numbers))


def test_many_changes_are_counted() -> None:
    sizes = ["data.train.size=96", "data.eval.size=96", "data.eval.resize=128"]
    long = title("model.name=cifar_resnet20", *sizes, "seed=1", "optim.lr=1", "optim.momentum=0.5")
    assert long == "resnet50-cifar_resnet20_data.train.size=96_+5"


def test_the_title_survives_in_the_run_folder(tmp_path: Path) -> None:
    config = load(RECIPE, ["model.name=resnet18", f"runs_dir={tmp_path}"])
    run = hold_once(config)
    assert re.fullmatch(r"resnet50-resnet18-[0-9a-f]{6}", run.name)
    saved = run / "config.yaml"
    assert load(saved, ["data.loader.threads=3", f"run_dir={run}"]).title == "resnet50-resnet18"
    assert load(saved, ["seed=2"]).title == "resnet50-resnet18_seed=2"
    assert hold_once(load(saved)) == run


def test_two_variants_have_two_folders(tmp_path: Path) -> None:
    place = f"runs_dir={tmp_path}"
    runs = [
        hold_once(load(RECIPE, [place, *overrides]))
        for overrides in ([], ["seed=1"], ["seed=2"], ["seed=1", "optim.lr=0.2"], ["name=b"])
    ]
    assert len(set(runs)) == 5
    assert hold_once(load(RECIPE, ["seed=1", place])) == runs[1]


def test_a_run_from_before_variants_is_resumed(tmp_path: Path) -> None:
    """Its folder has the recipe's name alone, and its configuration no variant."""
    mine = load(RECIPE, ["model.name=resnet18", f"runs_dir={tmp_path}"])
    old = tmp_path / "resnet50-0a1b2c"
    old.mkdir()
    lines = dump(mine).splitlines(keepends=True)
    (old / "config.yaml").write_text("".join(x for x in lines if not x.startswith("variant:")))
    assert hold_once(mine) == old
    assert load(old / "config.yaml").title == "resnet50-resnet18"
    assert result_identity(mine) == result_identity(load(old / "config.yaml"))


def test_a_recipe_that_is_incomplete_without_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ndata: {dir: d}\ntrain: {global_batch: 8}\noptim: {lr: 1}\n")
    overrides = ["model={name: resnet18}", "schedule={name: cosine}", "train.epochs=2"]
    config = load(path, [*overrides, "data.loader.threads=3"])
    assert config.title == "x-resnet18_cosine_epochs=2"
