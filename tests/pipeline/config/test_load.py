"""Reading configurations: shipped recipes, round trips and overrides."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import json_schema
from pipeline.config.load import dump, flatten, load
from pipeline.config.schema import (
    Cosine,
    Dali,
    PadCrop,
    Polynomial,
    RandomResizedCrop,
    StepDecay,
    Synthetic,
)
from tests.support.recipes import GOOD

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


# ----------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(config))
    assert load(copy) == config
    assert config.name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_name_their_schema_and_expected_result(path: Path) -> None:
    first, *comments = path.read_text().split("name:")[0].splitlines()
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == CONFIGS / "schema.json"
    assert any("Expected" in line for line in comments)


def test_committed_schema_is_current() -> None:
    committed = (CONFIGS / "schema.json").read_text()
    remedy = "python -m pipeline.config.json_schema > configs/schema.json"
    assert committed == json_schema.text(), f"write it again: {remedy}"


def test_schema_refuses_unknown_keys_and_describes_each_section() -> None:
    schema = json_schema.json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        assert definition["additionalProperties"] is False
        assert definition["description"]
    batch = schema["$defs"]["Train"]["properties"]["global_batch"]
    assert "over all ranks" in batch["description"]
    assert "name" in schema["$defs"]["Cosine"]["required"]


@pytest.mark.process
def test_the_configuration_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys, pkgutil; from importlib import import_module; from pathlib import Path;"
        "import pipeline.config as package; from pipeline.config.load import load;"
        "found = pkgutil.walk_packages(package.__path__, 'pipeline.config.');"
        "assert len([import_module(module.name) for module in found]) > 10;"
        f"load(Path({str(SHIPPED[0])!r})); print({{'torch', 'numpy', 'mlflow'}} & {{*sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------------------- reading and writing


def test_numbers_and_words_are_read_as_yaml_1_2(recipe: Path) -> None:
    overrides = ["optim.weight_decay=1e-4", "data.verify=off", "train.compile=True", "seed=010"]
    config = load(recipe, overrides)
    assert config.optim.weight_decay == 1e-4
    assert config.data.verify == "off"
    assert config.train.compile is True
    assert config.seed == 10


@pytest.mark.parametrize("name", ["1e-4", "off", "010", "0x1F", "1_000", "null", "2024-01-01", "y"])
def test_quoted_text_that_looks_like_something_else_stays_text(recipe: Path, name: str) -> None:
    config = load(recipe, [f'name="{name}"'])
    assert config.name == name
    recipe.write_text(dump(config))
    assert load(recipe) == config
    assert yaml.safe_load(dump(config))["name"] == name  # YAML 1.1


def test_dump_has_every_field_in_the_order_of_the_schema(recipe: Path) -> None:
    written = yaml.safe_load(dump(load(recipe)))
    fields = json_schema.json_schema()["properties"]
    assert list(written) == list(fields)
    assert written["run_dir"] is None
    assert written["data"]["mean"] == [0.485, 0.456, 0.406]


def test_flatten_gives_dotted_scalars(recipe: Path) -> None:
    flat = flatten(load(recipe))
    assert flat["train.global_batch"] == 256
    assert flat["data.dir"] == "somewhere"
    assert flat["train.ema"] == "null"
    assert flat["data.mean"] == "[0.485, 0.456, 0.406]"
    assert {type(value) for value in flat.values()} == {str, int, float, bool}


positive = st.floats(min_value=1e-30, max_value=1e30)
fraction = st.floats(min_value=0, max_value=1, exclude_max=True)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"])) | words
schedules = st.one_of(
    st.builds(Cosine, end=fraction, warmup_epochs=st.none() | positive),
    st.builds(Polynomial, power=positive, warmup_steps=st.none() | st.integers(0, 10**30)),
    st.builds(
        StepDecay,
        milestones_epochs=st.sets(positive, min_size=1).map(lambda s: tuple(sorted(s))),
    ),
)


@pytest.mark.slow
@given(name=words, experiment=texts, folder=texts, lr=positive, schedule=schedules)
@settings(max_examples=150, deadline=None)
def test_load_of_dump_is_equal(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    name: str,
    experiment: str,
    folder: str,
    lr: float,
    schedule: Any,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(GOOD)
    config = load(path)
    config = _with(
        config,
        name=name,
        runs_dir=Path(folder),
        optim=_with(config.optim, lr=lr),
        tracking=_with(config.tracking, experiment=experiment),
        schedule=schedule,
    )
    path.write_text(dump(config))
    assert load(path) == config


def _with(value: Any, **changes: Any) -> Any:
    return type(value)(**{**vars(value), **changes})


# --------------------------------------------------------------------------------------- overrides


def test_overrides_replace_values_and_whole_mappings(recipe: Path) -> None:
    config = load(
        recipe,
        [
            "train.epochs=null",
            "train.steps=7",
            "schedule={name: step, milestones_steps: [3, 5]}",
            "data.train={name: pad_crop}",
            "data.loader.name=synthetic",
        ],
    )
    assert (config.train.epochs, config.train.steps) == (None, 7)
    assert config.schedule == StepDecay(milestones_steps=(3, 5))
    assert config.data.train == PadCrop()
    assert config.data.loader == Synthetic()


def test_overrides_make_missing_mappings(recipe: Path) -> None:
    config = load(recipe, ["train.ema.decay=0.5", "data.loader.name=dali", "data.loader.threads=2"])
    assert config.train.ema is not None
    assert config.train.ema.decay == 0.5
    assert config.data.loader == Dali(threads=2)
    assert config.data.train == RandomResizedCrop()


def test_the_last_override_wins(recipe: Path) -> None:
    assert load(recipe, ["seed=1", "seed=2"]).seed == 2
    assert load(recipe, ["train={nonsense: 1}", "train={steps: 1, global_batch: 2}"]).train.steps
    assert load(recipe, ["train.ema={decay: 0.5}", "train.ema=null"]).train.ema is None


def test_settings_without_a_name_have_the_default_name() -> None:
    config = load(CONFIGS / "resnet50.yaml", ["data.loader.threads=3", "data.train.size=96"])
    assert isinstance(config.data.loader, Dali)
    assert config.data.loader.threads == 3
    assert isinstance(config.data.train, RandomResizedCrop)
    assert config.data.train.size == 96
