"""A key that was renamed still works under its former name, in files and in overrides."""

from pathlib import Path

import pytest

from pipeline.config.identity import result_identity
from pipeline.config.json_schema import json_schema
from pipeline.config.load import ConfigError, dump, load
from pipeline.config.renamed import RENAMED
from pipeline.config.schema import Evaluate
from pipeline.runs.folder import CONFIG_FILE
from tests.support.run_folders import config, hold_once

RECIPE = """\
name: renamed
data: {dir: somewhere}
model: {name: resnet50}
train: {epochs: 1, global_batch: 64}
optim: {lr: 0.1}
schedule: {name: cosine}
"""
OLD = "evaluate:\n  rank_batch: 9\n"
NEW = "evaluate:\n  batch_per_rank: 9\n"
HINT = "(rank_batch is its former name)"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "x.yaml").write_text(RECIPE)
    return tmp_path / "x.yaml"


def fault(recipe: Path, text: str, *overrides: str) -> str:
    recipe.write_text(RECIPE + text)
    with pytest.raises(ConfigError) as caught:
        load(recipe, overrides)
    return str(caught.value).replace(f"{recipe.parent}/", "")


@pytest.mark.parametrize("text", [OLD, NEW, "evaluate: {rank_batch: 9}\n"])
def test_a_file_may_use_either_name(recipe: Path, text: str) -> None:
    recipe.write_text(RECIPE + text)
    assert load(recipe).evaluate == Evaluate(batch_per_rank=9)


@pytest.mark.parametrize("text", ["", OLD, NEW])
@pytest.mark.parametrize(
    "override",
    ["evaluate.rank_batch=5", "evaluate.batch_per_rank=5", "evaluate={rank_batch: 5}"],
)
def test_an_override_may_use_either_name_and_replaces_the_files_value(
    recipe: Path, text: str, override: str
) -> None:
    recipe.write_text(RECIPE + text)
    assert load(recipe, [override]).evaluate == Evaluate(batch_per_rank=5)
    assert load(recipe, [override, override.replace("5", "6")]).evaluate.batch_per_rank == 6


def test_both_names_in_one_file_are_a_fault_at_the_second(recipe: Path) -> None:
    for text in (OLD + "  batch_per_rank: 9\n", NEW + "  rank_batch: 9\n"):
        assert fault(recipe, text) == (
            f"x.yaml:9:3: evaluate.batch_per_rank: given twice (first on line 8); remove one {HINT}"
        )


def test_both_names_on_one_command_line_are_a_fault_at_the_second(recipe: Path) -> None:
    both = ["evaluate.rank_batch=5", "evaluate.batch_per_rank=5"]
    for first, second in (both, both[::-1]):
        expected = f"given twice; remove one {HINT}"
        found = fault(recipe, "", first, second)
        assert found.startswith(f"command line: {second}: ")
        assert found.endswith(expected)
        assert "evaluate.batch_per_rank" in found
    assert fault(recipe, "", "evaluate={rank_batch: 5, batch_per_rank: 5}").endswith(HINT)
    faults = fault(recipe, "", "evaluate.rank_batch=[", "evaluate.batch_per_rank=5").split("\n")
    assert len(faults) == 2
    assert faults[1].endswith(HINT)


def test_a_fault_is_placed_at_the_former_name_and_reports_the_present_one(recipe: Path) -> None:
    assert fault(recipe, "evaluate:\n  rank_batch: 0\n") == (
        "x.yaml:8:15: evaluate.batch_per_rank: must be greater than 0, found 0"
    )
    assert fault(recipe, "", "evaluate.rank_batch=0") == (
        "command line: evaluate.rank_batch=0: evaluate.batch_per_rank: "
        "must be greater than 0, found 0"
    )


@pytest.mark.parametrize("typo", ["batch_per_rnk", "batches_per_rank", "batch_per_ranks"])
def test_a_typo_is_answered_with_the_present_name(recipe: Path, typo: str) -> None:
    suggestion = f"evaluate.{typo}: unknown key; did you mean batch_per_rank?"
    assert fault(recipe, f"evaluate:\n  {typo}: 9\n") == f"x.yaml:8:3: {suggestion}"
    assert "did you mean batch_per_rank?" in fault(recipe, "", f"evaluate.{typo}=9")


def test_a_name_is_renamed_in_its_section_only(recipe: Path) -> None:
    assert "train.rank_batch=9: unknown key" in fault(recipe, "", "train.rank_batch=9")
    assert "rank_batch: unknown key" in fault(recipe, "rank_batch: 9\n")
    recipe.write_text(RECIPE + "env: {rank_batch: a}\n")
    assert load(recipe).env == {"rank_batch": "a"}


def test_a_run_folder_with_a_former_name_is_the_same_run(tmp_path: Path) -> None:
    mine = config(tmp_path, evaluate=Evaluate(batch_per_rank=9))
    folder = hold_once(mine)
    file = folder / CONFIG_FILE
    old = file.read_text().replace("batch_per_rank: 9", "rank_batch: 9")
    assert old != file.read_text()
    file.write_text(old)
    assert load(file) == mine
    assert result_identity(load(file)) == result_identity(mine)
    assert hold_once(mine) == folder, "it is resumed"
    assert file.read_text() == dump(mine), "the next attempt writes the present name"


def test_every_renamed_key_stays_in_its_section_and_its_present_name_is_a_field() -> None:
    schema = json_schema()
    for former, present in RENAMED.items():
        section, name = present.split(".")
        definition = schema["properties"][section]["$ref"].rpartition("/")[2]
        assert name in schema["$defs"][definition]["properties"]
        assert former.split(".")[0] == section
        assert former.split(".")[1] not in schema["$defs"][definition]["properties"]
