"""The name in the section `model` chooses the family; an unknown one gets suggestions."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.catalogue import published_names
from pipeline.config.json_schema import json_schema
from pipeline.config.load import ConfigError, dump, flatten, load
from pipeline.config.schema import (
    CifarPlain,
    CifarResNet,
    PreactResNet,
    ResNet,
    model_named,
)
from tests.support.recipes import GOOD

FAMILIES = {"ResNet": ResNet, "PreactResNet": PreactResNet, "CifarResNet": CifarResNet}
RESIDUAL = ["name", "zero_init_last", "batch_norm_group"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    ("name", "family", "depth"),
    [
        ("resnet18", ResNet, 18),
        ("resnet152", ResNet, 152),
        ("preact_resnet200", PreactResNet, 200),
        ("cifar_resnet20", CifarResNet, 20),
        ("cifar_resnet1202", CifarResNet, 1202),
        ("cifar_plain8", CifarPlain, 8),
    ],
)
def test_a_name_chooses_the_family(recipe: Path, name: str, family: type, depth: int) -> None:
    model = load(recipe, [f"model.name={name}"]).model
    assert type(model) is family
    assert model.depth == depth
    assert model == model_named(name) == family(name=name)


@pytest.mark.parametrize("name", published_names())
def test_what_is_saved_is_read_back(recipe: Path, name: str) -> None:
    config = load(recipe, [f"model.name={name}", "model.batch_norm_group=4"])
    fields = list(yaml.safe_load(dump(config))["model"])
    assert fields == (
        [f for f in RESIDUAL if f != "zero_init_last"] if "plain" in name else RESIDUAL
    )
    assert [key for key in flatten(config) if "model" in key] == [f"model.{f}" for f in fields]
    recipe.write_text(dump(config))
    assert load(recipe) == config


def test_a_plain_network_takes_the_settings_of_a_residual_one(recipe: Path) -> None:
    """Older runs have saved them, and a recipe must work with both kinds of network."""
    plain = load(recipe, ["model.name=cifar_plain20"])
    for value in ("true", "false"):
        assert load(recipe, ["model.name=cifar_plain20", f"model.zero_init_last={value}"]) == plain
    with pytest.raises(
        ConfigError, match=r"zero_init_last=no: must be a valid boolean, found 'no'"
    ):
        load(recipe, ["model.name=cifar_plain20", "model.zero_init_last=no"])
    assert replace(plain.model, batch_norm_group=2) == CifarPlain(
        name="cifar_plain20", batch_norm_group=2
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "resnet51",
            "no network is called 'resnet51'; did you mean resnet50 or resnet18 or resnet152?",
        ),
        ("resnet200", "no network is called 'resnet200'; did you mean resnet152 or "),
        ("preact_resnet20", "no network is called 'preact_resnet20'; did you mean preact_resnet18"),
        ("cifar_resnet21", "depth 21 is not 6n+2; did you mean cifar_resnet20?, found "),
        ("cifar_plain5", "depth 5 is not 6n+2; did you mean cifar_plain8?, found "),
        ("cifar_resnet0", "no network is called 'cifar_resnet0'; did you mean cifar_resnet"),
        ("cifar_plane20", "no network is called 'cifar_plane20'; did you mean cifar_plain20 or "),
        ("plain20", "no network is called 'plain20'; did you mean cifar_plain20"),
        ("ResNet50", "no network is called 'ResNet50'; did you mean resnet50"),
        ("resnet050", "no network is called 'resnet050'; did you mean resnet50"),
        ("vgg", "no network is called 'vgg'; known: resnet18, resnet34, "),
        ("''", "no network is called ''; known: resnet18, resnet34, "),
        ("resnet" + "9" * 5000, "no network is called 'resnet999"),
        ("50", "must be a valid string, found 50; put it in quotes"),
        ("null", "must be a valid string, found null"),
    ],
)
def test_a_wrong_name_is_one_fault_with_the_nearest_names(
    recipe: Path, name: str, fault: str
) -> None:
    recipe.write_text(GOOD.replace("resnet50", name))
    with pytest.raises(ConfigError) as caught:
        load(recipe)
    lines = str(caught.value).split("\n")
    assert len(lines) == 1
    assert lines[0].startswith(f"{recipe}:4:15: model.name: {fault}")


@pytest.mark.parametrize(
    ("model", "faults"),
    [
        ("3", ["4:8: model: must be a mapping, found 3; valid keys: name, zero_init_last, batch"]),
        ("{}", ["4:1: model.name: missing; add it (resnet18, 34, 50, 101 or 152; other "]),
        (
            "{name: cifar_plain8, zero_init: 1}",
            ["4:29: model.zero_init: unknown key; did you mean zero_init_last?"],
        ),
        (
            "{name: resnet51, zero_init_last: 1, batch_norm_group: 0}",
            [
                "4:15: model.name: no network is called 'resnet51'; did you mean",
                "4:41: model.zero_init_last: must be a valid boolean, found 1; write true or",
                "4:62: model.batch_norm_group: must be greater than 0, found 0",
            ],
        ),
    ],
)
def test_each_fault_is_reported_once_at_its_place(
    recipe: Path, model: str, faults: list[str]
) -> None:
    recipe.write_text(GOOD.replace("{name: resnet50}", model))
    with pytest.raises(ConfigError) as caught:
        load(recipe)
    lines = str(caught.value).replace(f"{recipe}:", "").split("\n")
    assert len(lines) == len(faults)
    for line, fault in zip(lines, faults, strict=True):
        assert line.startswith(fault)


def test_a_missing_section_is_explained(recipe: Path) -> None:
    recipe.write_text(GOOD.replace("model: {name: resnet50}\n", ""))
    with pytest.raises(ConfigError, match=r"model: missing; add it \(Which network, and how it"):
        load(recipe)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_refuses_the_networks_of_another(family: str) -> None:
    with pytest.raises(ValueError, match=r"cifar_plain8 is not a .*resnet"):
        FAMILIES[family](name="cifar_plain8")


def test_an_editor_completes_all_published_names_and_accepts_each_in_one_family() -> None:
    schema = json_schema()
    choices: dict[str, Any] = {
        choice["$ref"]: schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]["properties"]["name"]
        for choice in schema["properties"]["model"]["oneOf"]
    }
    listed: list[str] = []
    for name in choices.values():
        listed += name.get(
            "enum", [n for part in name.get("anyOf", []) for n in part.get("enum", [])]
        )
    assert listed == published_names()
    for name in [*listed, "cifar_resnet14", "cifar_plain26"]:
        assert sum(_accepts(choice, name) for choice in choices.values()) == 1


def _accepts(schema: dict[str, Any], name: str) -> bool:
    """Validate a string against the JSON Schema keywords that names of networks use."""
    if "anyOf" in schema:
        return any(_accepts(part, name) for part in schema["anyOf"])
    if "pattern" in schema:
        return bool(re.search(schema["pattern"], name))
    return name in schema["enum"]
