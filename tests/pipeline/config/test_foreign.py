"""Names from other programs lead to ours."""

from pathlib import Path

import pytest

from pipeline.config import foreign
from pipeline.config.foreign import CHOICES, SETTINGS, option_hint, setting_named
from pipeline.config.load import ConfigError, flatten, load

RECIPE = Path(__file__).parents[3] / "configs" / "resnet50.yaml"


def fault(override: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(RECIPE, [override])
    return str(caught.value)


def test_every_name_leads_to_a_setting_that_exists() -> None:
    keys = foreign._keys()  # pyright: ignore[reportPrivateUsage]
    assert set(flatten(load(RECIPE))) - {"data.loader.name"} <= {
        *keys,
        "train.ema",
        "slurm.container",
    }
    assert {*SETTINGS, *CHOICES} <= set(keys)
    names = [name for names in SETTINGS.values() for name in names.split()]
    assert len(names) == len(set(names))


def test_every_choice_elsewhere_leads_to_a_choice_here() -> None:
    for key, choices in CHOICES.items():
        for choice, names in choices.items():
            for name in names.split():
                assert f"here it is {choice}; choices: " in fault(f'{key}="{name}"')


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.grad_accum=2", "unknown key; here it is train.accumulation"),
        ("loss.label_smoothing=0.1", "loss.label_smoothing is train.label_smoothing here"),
        ("lr=0.1", "unknown key; here it is optim.lr"),
        ("train.lr=0.1", "unknown key; here it is optim.lr"),
        ("data.batch_size=64", "unknown key; here it is train.global_batch"),
        ("optim.name=rmsprop", "is not a choice; this optimiser is not included; choices: sgd"),
        ("schedule.name=MultiStepLR", "is not a choice; here it is step; choices: step, cosine"),
        ("train.precision=16", "16 is not a choice; here it is fp16"),
        ("train.precision=bf16-mixed", "is not a choice; here it is bf16"),
        ("model.name=ResNet-50", "did you mean resnet50?"),
        ("model.name=resnetv2_101", "did you mean preact_resnet101 or "),
        ("train.epoch=1", "unknown key; did you mean epochs?"),
    ],
)
def test_a_fault_says_what_it_is_called_here(override: str, hint: str) -> None:
    assert hint in fault(override)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("lr", "settings have no dashes: optim.lr=..."),
        ("optim.lr=0.1", "settings have no dashes: optim.lr=0.1"),
        ("num-workers=8", "settings have no dashes: data.loader.threads=..."),
        ("nproc_per_node=8", "here it is --ranks N"),
        ("nnodes", "here it is --nodes N"),
        ("frobnicate", ""),
    ],
)
def test_an_option_of_another_program_is_a_setting_here(option: str, hint: str) -> None:
    assert option_hint(option) == hint


def test_a_name_that_several_sections_have_means_none_of_them() -> None:
    assert setting_named("keep_last") == "checkpoint.keep_last"
    assert setting_named("gradient_compression") == "engine.gradient_compression"
    assert setting_named("every_epochs") is None
