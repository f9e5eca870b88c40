"""Settings that an engine does not support are refused at their place in the configuration."""

import re
import sys
from pathlib import Path

import pytest
from torch import nn

from pipeline.config.identity import result_identity
from pipeline.config.load import ConfigError, dump, load
from pipeline.config.schema import Ddp, DeepSpeed, Sgd, Train
from pipeline.distributed.world import World
from pipeline.engines import Trainable, open_engine
from pipeline.losses import CrossEntropy
from pipeline.optim.build import build_optimizer

RECIPE = """\
name: engines
data: {dir: somewhere}
model: {name: resnet50}
train: {epochs: 1, global_batch: 64}
optim: {lr: 0.1}
schedule: {name: cosine}
engine:
  name: deepspeed
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def refusal(recipe: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(recipe, overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_ddp_is_the_default_and_needs_no_name(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text[: text.index("engine:")])
    assert load(recipe).engine == Ddp()
    assert load(recipe, ["engine.bucket_megabytes=50"]).engine == Ddp(bucket_megabytes=50)
    assert load(recipe, ["engine.name=deepspeed"]).engine == DeepSpeed(zero_stage=0)


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize(
    "train",
    [[], ["train.precision=fp16", "train.clip_norm=1"], ["train.accumulation=4"]],
    ids=["plain", "fp16 clipped", "accumulated"],
)
def test_every_stage_goes_with_every_precision_clipping_and_accumulation(
    recipe: Path, tmp_path: Path, stage: int, train: list[str]
) -> None:
    config = load(recipe, [f"engine.zero_stage={stage}", *train])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(config))
    assert load(copy) == config


def test_stage_3_is_refused(recipe: Path) -> None:
    assert refusal(recipe, "engine.zero_stage=3").endswith("3 is not a choice; choices: 0, 1, 2")


@pytest.mark.parametrize(("name", "value"), [("overlap", "true"), ("bucket_megabytes", "50")])
def test_stage_0_refuses_overlap_and_buckets(recipe: Path, name: str, value: str) -> None:
    setting = f"engine.{name}={value}"
    assert load(recipe, [setting, "engine.zero_stage=1"])
    expected = f"recipe.yaml:7:1: engine: {name} needs zero_stage 1 or 2"
    assert expected in refusal(recipe, setting)


def test_stage_2_refuses_overlap_with_accumulation(recipe: Path) -> None:
    overlapping = ["engine.overlap=true", "train.accumulation=2"]
    assert load(recipe, [*overlapping, "engine.zero_stage=1"])
    assert load(recipe, ["engine.overlap=true", "engine.zero_stage=2"])
    message = refusal(recipe, *overlapping, "engine.zero_stage=2")
    assert (
        "recipe.yaml:7:1: engine: overlap does not work with train.accumulation over 1" in message
    )


def test_a_key_of_another_engine_is_reported_as_such(recipe: Path) -> None:
    assert "engine.zero_stage=1: is a key of deepspeed only" in refusal(
        recipe, "engine.name=ddp", "engine.zero_stage=1"
    )


@pytest.mark.parametrize("value", ["0", "-1", ".inf"])
def test_clip_norm_must_be_positive(recipe: Path, value: str) -> None:
    assert "train.clip_norm" in refusal(recipe, f"train.clip_norm={value}")


def test_rounded_gradients_make_another_run_but_another_engine_does_not(recipe: Path) -> None:
    run = result_identity(load(recipe))
    for same in (["engine={name: ddp}"], ["engine.zero_stage=2", "engine.overlap=true"]):
        assert result_identity(load(recipe, same)) == run
    rounded = result_identity(load(recipe, ["engine.gradient_compression=bf16"]))
    assert rounded != run
    assert rounded == result_identity(
        load(recipe, ["engine={name: ddp, gradient_compression: bf16}"])
    )
    assert result_identity(load(recipe, ["train.clip_norm=1"])) != run


def test_a_missing_deepspeed_is_reported_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    network = nn.Linear(2, 2)
    optimizer = build_optimizer(network, Sgd(lr=1))
    trainable = Trainable(network, network, optimizer, CrossEntropy())
    train = Train(steps=1, global_batch=1)
    message = re.escape("DeepSpeed cannot be imported") + ".*pip install.*engine.name=ddp"
    with pytest.raises(ValueError, match=message):
        open_engine(DeepSpeed(), trainable, train, micro_batch=1, image_size=8, world=World())
