"""All faults of a configuration are reported at once, each at its exact place."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.json_schema import json_schema
from pipeline.config.load import ConfigError, load
from tests.support.recipes import GOOD


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


def faults(path: Path, *overrides: str) -> list[str]:
    """Return the lines of the error from loading `path`, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


def faults_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return faults(path)


# ------------------------------------------------------------------- faults on the command line


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.epochs=x", "must be a valid number, found 'x'"),
        ("train.epoch=1", "unknown key; did you mean epochs?"),
        ("train.ema.decai=1", "unknown key; did you mean decay?"),
        ("schedule.name=cosin", "'cosin' is not a choice; did you mean cosine? choices: step, "),
        ("schedule={}", "needs a name; choices: step, cosine, polynomial"),
        ("schedule={name: step, end: 0}", "schedule.end: is a key of cosine only; remove it"),
        ("train={epochs: 1}", "train.global_batch: missing; add it (Images of one optimiser step"),
        ("model.name=50", "must be a valid string, found 50; put it in quotes"),
        ("nonsense", "is not KEY=VALUE, such as train.epochs=90"),
        ("train..epochs=1", "is not KEY=VALUE, such as train.epochs=90"),
        ("train.epochs=", "has no value; to unset it write train.epochs=null"),
        ("train.epochs=# 1", "is empty; write a value"),
        ("train.epochs=[1", "not YAML: while parsing a flow sequence"),
        ("model.name.x=1", None),
        ("name.x=1", "name is not a mapping; set all of it: name=..."),
    ],
)
def test_a_fault_of_an_override_names_it(recipe: Path, override: str, fault: str | None) -> None:
    expected = fault or "model.name is not a mapping; set all of it: model.name=..."
    found = faults(recipe, override)
    assert len(found) == 1
    assert found[0].startswith(f"command line: {override}: {expected}")


def test_a_conflict_between_overrides_names_them(recipe: Path) -> None:
    assert faults(recipe, "train.epochs=2", "train.steps=3") == [
        "x.yaml:5:1: train: give exactly one of epochs or steps (found epochs and steps); "
        "the command line has train.epochs=2 train.steps=3 (KEY=null unsets a key)"
    ]


def test_a_duration_replaces_the_files_in_the_other_unit(recipe: Path) -> None:
    config = load(recipe, ["train.steps=3"])
    assert (config.train.steps, config.train.epochs) == (3, None)


def test_a_key_of_another_kind_names_the_kind(recipe: Path) -> None:
    recipe.write_text(GOOD + "  factor: 0.1\n")
    assert faults(recipe) == [
        "x.yaml:11:3: schedule.factor: is a key of step only; remove it, or choose "
        "schedule.name=step"
    ]


# -------------------------------------------------------------------------------- faults in a file


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("epochs", "epoch", "6:3: train.epoch: unknown key; did you mean epochs?"),
        ("name: good", "xyz: 1\nname: good", "1:1: xyz: unknown key; valid keys: name, seed, data"),
        (
            "  global_batch: 256\n",
            "",
            "5:1: train.global_batch: missing; add it (Images of one optimiser step, over all",
        ),
        ("optim: {lr: 0.1}\n", "", "1:1: optim: missing; add it (Stochastic gradient descent"),
        ("256", "0", "7:17: train.global_batch: must be greater than 0, found 0"),
        ("256", "1.5", "7:17: train.global_batch: must be a valid integer, found 1.5"),
        ("256", "2.0", "7:17: train.global_batch: must be a valid integer, found 2.0; write 2"),
        ("256", "true", "7:17: train.global_batch: must be a valid integer, found true"),
        ("256", "'8'", "7:17: train.global_batch: must be a valid integer, found '8'; write 8 "),
        ("90", "1e999", "6:11: train.epochs: must be a finite number, found Infinity"),
        ("90", "90\n  precision: bf61", "7:14: train.precision: 'bf61' is not a choice; did you"),
        (
            "90",
            "90\n  compile: yes",
            "7:12: train.compile: must be a valid boolean, found 'yes'; w",
        ),
        ("90", "90\n  steps: 2", "5:1: train: give exactly one of epochs or steps (found epochs"),
        ("  epochs: 90\n", "", "5:1: train: give exactly one of epochs or steps (found none)"),
        ("resnet50", "resnet51", "4:15: model.name: no network is called 'resnet51'; did you mean"),
        ("cosine", "cosin", "10:9: schedule.name: 'cosin' is not a choice; did you mean cosine?"),
        ("name: cosine", "end: 0", "9:1: schedule: needs a name; choices: step, cosine"),
        (
            "cosine",
            "cosine\n  factor: 1",
            "11:3: schedule.factor: is a key of step only; remove it",
        ),
        ("cosine", "cosine\n  cosine: 1", "11:3: schedule.cosine: unknown key; valid keys: "),
        (
            "cosine",
            "step\n  milestones_epochs: [1, 2, x]",
            "11:29: schedule.milestones_epochs.2: must be a valid number, found 'x'",
        ),
        (
            "cosine",
            "step\n  milestones_epochs: [2, 1]",
            "9:1: schedule: milestones must increase, found [2.0, 1.0]",
        ),
        (
            "somewhere",
            "somewhere\n  train: {name: pad_crop, sizes: 1}",
            "4:27: data.train.sizes: unknown key; did you mean size?",
        ),
        ("somewhere", "d\n  mean: [1, 2]", "4:9: data.mean.2: is missing; the list is too short"),
        ("somewhere", "d\n  mean: [1, 2, 3, 4]", "4:9: data.mean: must have at most 3 items"),
        ("somewhere", "d\n  std: [1, 1, 0]", "4:8: data.std: every value must be greater than 0"),
        ("somewhere", "d\n  loader: dali", "4:11: data.loader: must be a mapping, found 'dali'; g"),
        ("somewhere", "d\n  eval: 3", "4:9: data.eval: must be a mapping, found 3; valid keys: re"),
        ("good", "a b", "1:7: name: must match pattern"),
        ("good", "good\nname: other", "2:1: name: given twice (first on line 1); remove one"),
        ("good", "!odd good", "1:7: name: tag !odd is not supported here; remove it"),
        ("0.1", "!!float x", "8:13: optim.lr: cannot be read as float: x"),
        ("90", "9" * 5000, "6:11: train.epochs: cannot be read as int: 999"),
    ],
)
def test_a_fault_is_reported_at_its_place(recipe: Path, old: str, new: str, fault: str) -> None:
    assert GOOD.count(old) == 1
    found = faults_of(recipe, GOOD.replace(old, new))
    assert [line for line in found if line.startswith(f"x.yaml:{fault}")], found
    assert not [line for line in found if "Value error" in line or "Input should" in line]


def test_many_faults_are_reported_at_once_in_the_order_of_the_file(recipe: Path) -> None:
    text = GOOD.replace("epochs: 90", "epochz: 90\n  global_batch: 3").replace("50", "51")
    recipe.write_text(text.replace("0.1", "-1"))
    places = [line.split(" ")[0] for line in faults(recipe, "seed=-1", "runs_dir=[]", "x")]
    assert places == [
        "x.yaml:4:15:",
        "x.yaml:6:3:",
        "x.yaml:8:3:",
        "x.yaml:9:13:",
        *["command"] * 3,
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "1:1: is empty; write a value"),
        (b"# only a comment\n", "1:1: is empty; write a value"),
        (b"- a\n- b\n", "1:1: is not a mapping of keys to values; write one `key: value` on each"),
        (b"text", "1:1: is not a mapping of keys to values; write one `key: value` on each"),
        (b"a: b: c", "1:5: not YAML: mapping values are not allowed here"),
        (b"a:\n\tb: 1", "2:1: not YAML: while scanning for the next token, found character '\\t'"),
        (
            b"a: [1,\nb: 3",
            "2:5: not YAML: while parsing a flow sequence that starts on line 1, expect",
        ),
        (b"a: 1\n---\nb: 2", "2:1: not YAML: expected a single document in the stream"),
        (b"a: &x 1\nb: *x", "2:4: not YAML: aliases are not allowed, write the value out"),
        (b"a: " + b"[" * 5000, "1:24: not YAML: nested too deeply"),
        (b"a: 1\nb: \x00", "2:4: not YAML: character \\x00 is not allowed"),
        (b'a: "\\UFFFFFFFF"', "1:7: not YAML: a number is out of range"),
        ("é: é\né: \xff".encode()[:-2] + b"\xff", "2:4: byte 0xff is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_file_that_is_not_a_yaml_mapping_is_one_fault(
    recipe: Path, content: bytes, fault: str
) -> None:
    recipe.write_bytes(content)
    (found,) = faults(recipe, "seed=1")
    assert found.startswith(f"x.yaml:{fault}")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(recipe: Path) -> None:
    config = load(recipe)
    recipe.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(recipe) == config


def test_a_missing_file_names_the_existing_ones(recipe: Path) -> None:
    (recipe.parent / "resnet50.yaml").touch()
    assert faults(recipe.parent / "resnte50.yaml") == [
        "resnte50.yaml: no such file; did you mean resnet50.yaml? "
        f"{recipe.parent} has: resnet50.yaml, x.yaml"
    ]
    (folder,) = faults(recipe.parent)
    assert folder.endswith(": resnet50.yaml, x.yaml")
    assert "is a folder, give a file" in folder
    (nowhere,) = faults(recipe.parent / "no" / "x.yaml")
    assert nowhere.endswith(f"no such file; {recipe.parent / 'no'} is not a folder")
    (under_a_file,) = faults(recipe / "x.yaml")
    assert "cannot be read" in under_a_file


# ------------------------------------------------------------------------------------------- chaos

MARKS = ["\n", "\n  ", ": ", "- ", "[", "]", "{", "}", ",", "#", "!", "!!int ", "&a ", "*a", "|\n"]
MARKS += ["? ", "---\n", "%YAML ", '"', "'", "\\U", "\\ud800", "\t", "~", "1e9", "0x", "name", ">"]
chaos = st.text() | st.lists(st.sampled_from(MARKS) | st.text(max_size=3)).map("".join)


@given(text=chaos, override=chaos)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_read_or_gives_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, override: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "chaos.yaml"
    path.write_bytes(text.encode(errors="replace"))
    with pytest.raises(ConfigError):
        load(path)
    path.write_text(GOOD)
    with suppress(ConfigError):
        load(path, [override])
    with pytest.raises(ConfigError):
        load(path, [f"nonsense={override}"])


keys = st.sampled_from(["name", "size", "data", "train", "schedule", "step", "epochs", "x", ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | keys
trees = st.recursive(
    scalars, lambda tree: st.lists(tree, max_size=4) | st.dictionaries(keys, tree, max_size=4)
)


@pytest.mark.slow
@given(tree=trees, key=st.sampled_from(json_schema()["required"]))
@settings(max_examples=300, deadline=None)
def test_any_values_are_accepted_or_give_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, key: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(GOOD)
    for override in (f"{key}={json.dumps(tree)}", f"data.train={json.dumps(tree)}"):
        with suppress(ConfigError):
            load(path, [override])
