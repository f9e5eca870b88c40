"""The sections slurm, env and launch."""

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.load import ConfigError, dump, flatten, load
from pipeline.config.schema import Config, Container, Slurm

GOOD = """\
name: good
data: {dir: somewhere}
model: {name: resnet50}
train: {epochs: 90, global_batch: 256}
optim: {lr: 0.1}
schedule: {name: cosine}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


def fault(path: Path, *overrides: str) -> str:
    """Return the one line of the error from loading `path`, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    (line,) = str(caught.value).replace(f"{path.parent}/", "").split("\n")
    return line


# ------------------------------------------------------------------------------------- values

OVERRIDES: list[tuple[str, Any]] = [
    ("slurm.partition=gpu", "gpu"),
    ("slurm.account=vision", "vision"),
    ("slurm.qos=long", "long"),
    ("slurm.constraint=a100&infiniband", "a100&infiniband"),
    ("slurm.exclude=node[3-5]", "node[3-5]"),
    ("slurm.reservation=maintenance", "maintenance"),
    ("slurm.mail_user=me@example.org", "me@example.org"),
    ("slurm.mail_type=END,FAIL", "END,FAIL"),
    ("slurm.time_limit=12:00:00", "12:00:00"),
    ("slurm.time_limit='90'", "90"),
    ("slurm.time_limit=30", "30"),
    ("slurm.memory=64000", "64000"),
    ("slurm.gpus_per_node=0", 0),
    ("slurm.gpus_per_node=a100:4", "a100:4"),
    ("slurm.ranks_per_node=4", 4),
    ("slurm.cpus_per_rank=8", 8),
    ("slurm.memory=64G", "64G"),
    ("slurm.memory='0'", "0"),
    ("slurm.spare_nodes=1", 1),
    ("slurm.stop_notice_seconds=30", 30),
    ("slurm.attempts_without_progress=1", 1),
    ("slurm.time_limits=2", 2),
    ("slurm.preemptions=2", 2),
    ("slurm.sbatch.nice=-5", -5),
    ("slurm.sbatch.exclusive=true", True),
    ("slurm.sbatch.gres=gpu:a100:4", "gpu:a100:4"),
    ('slurm.srun=["--cpu-bind=none"]', ("--cpu-bind=none",)),
    ("slurm.setup=[module load cuda]", ("module load cuda",)),
    ("slurm.container.image=docker://torch", "docker://torch"),
    ("slurm.container={image: torch.sif, runtime: apptainer, mounts: [/data:/data:ro]}",
     Container(image="torch.sif", runtime="apptainer", mounts=("/data:/data:ro",))),
    ("slurm.run_dir_is_shared=true", True),
    ("env.NCCL_DEBUG=INFO", "INFO"),
    ("launch.preflight=false", False),
    ("launch.start_report=false", False),
    ("launch.price_per_gpu_hour=2.5", 2.5),
]  # fmt: skip


@pytest.mark.parametrize(("override", "value"), OVERRIDES, ids=str)
def test_each_field_can_be_overridden_written_and_read_again(
    recipe: Path, override: str, value: Any
) -> None:
    config = load(recipe, [override])
    found: Any = config
    for name in override.partition("=")[0].split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert (type(found), found) == (type(value), value)
    recipe.write_text(dump(config))
    assert load(recipe) == config == pickle.loads(pickle.dumps(config))


def test_the_overrides_above_cover_all_fields_of_the_three_sections(recipe: Path) -> None:
    paths = {override.partition("=")[0] for override, _ in OVERRIDES}
    named = {tuple(path.split(".")[:2]) for path in paths}
    written = yaml.safe_load(dump(load(recipe)))
    assert named >= {(section, key) for section in ("slurm", "launch") for key in written[section]}
    assert ("env", "NCCL_DEBUG") in named


def test_a_file_may_set_the_fields_and_the_command_line_unset_them(recipe: Path) -> None:
    recipe.write_text(
        GOOD
        + "slurm: {partition: gpu, time_limit: 2-12:30, sbatch: {nice: 5, comment: mine}}\n"
        + "env: {OMP_NUM_THREADS: 08, NCCL_DEBUG: INFO}\n"
    )
    nulls = ["slurm.partition=null", "slurm.sbatch.nice=null", "env.NCCL_DEBUG=null"]
    config = load(recipe, nulls)
    assert config.slurm == Slurm(time_limit="2-12:30", sbatch={"comment": "mine"})
    assert config.env == {"OMP_NUM_THREADS": "08"}


def test_tracking_shows_each_variable_and_option_under_its_name(recipe: Path) -> None:
    flat = flatten(load(recipe, ["env.NCCL_DEBUG=INFO", "slurm.sbatch.nice=5"]))
    assert (flat["env.NCCL_DEBUG"], flat["slurm.sbatch.nice"]) == ("INFO", 5)
    assert flat["slurm.partition"] == "null"


@pytest.mark.parametrize(
    "number", ["8", "08", "1.10", "1e-3", "0x10", "-1", "10000000000000000000"]
)
def test_a_number_in_a_variable_is_kept_as_written(recipe: Path, number: str) -> None:
    assert load(recipe, [f"env.X={number}"]).env == {"X": number}
    recipe.write_text(GOOD + f"env:\n  X: {number}\n")
    config = load(recipe)
    assert config.env == {"X": number}
    recipe.write_text(dump(config))
    assert load(recipe) == config


# -------------------------------------------------------------------------------- time limits


@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        ("90", 90),
        ("90:00", 90),
        ("12:00:00", 720),
        ("2-00", 2880),
        ("2-12:30", 3630),
        ("2-12:30:00", 3630),
        ("0:31", 1),
        ("3:01", 4),
        ("12:75:00", 795),
        ("1-0:0:1", 1441),
    ],
)
def test_a_time_limit_means_what_it_means_to_slurm(written: str, minutes: int) -> None:
    limit = Slurm(time_limit=written, stop_notice_seconds=30).time_limit_minutes
    assert limit == minutes


def test_without_a_time_limit_there_is_no_number_of_minutes(recipe: Path) -> None:
    assert load(recipe).slurm.time_limit_minutes is None


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_time_limit_is_rounded_up_to_whole_minutes(
    days: int, hours: int, minutes: int, seconds: int
) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds + 60
    text = f"{days}-{hours:02}:{minutes + 1:02}:{seconds:02}"
    limit = Slurm(time_limit=text, stop_notice_seconds=30).time_limit_minutes
    assert limit is not None
    assert 0 <= limit * 60 - total < 60


def test_the_stop_notice_is_shorter_than_the_time_limit(recipe: Path) -> None:
    assert fault(recipe, "slurm.time_limit='2'") == (
        "command line: slurm.time_limit='2': slurm: stop_notice_seconds=120 must be shorter than"
        " time_limit=2; reduce it, or raise the limit; the command line has"
        " slurm.time_limit='2' (KEY=null unsets a key)"
    )
    assert load(recipe, ["slurm.time_limit='2'", "slurm.stop_notice_seconds=119"])


# ------------------------------------------------------------------------------------- faults

NO_LIMIT = "is not a SLURM time limit; write 90 (minutes), "
NO_LINE = "must be one line of text without whitespace at either end, found "


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("slurm.partitoin=gpu", "unknown key; did you mean partition?"),
        ('slurm.partition=""', f"{NO_LINE}''"),
        ('slurm.account=" a"', f"{NO_LINE}' a'"),
        ('slurm.qos="a\\nb"', f"{NO_LINE}'a"),
        ('slurm.reservation="a\\0b"', f"{NO_LINE}'a"),
        ("slurm.mail_user=3", "must be a valid string, found 3; put it in quotes"),
        ("slurm.time_limit=1.5", "must be a valid string, found 1.5; put it in quotes"),
        ("slurm.time_limit=-5", NO_LIMIT),
        ("slurm.time_limit=0", "must be positive; null is the partition's limit"),
        ("slurm.time_limit=12h", NO_LIMIT),
        ("slurm.time_limit='1:2:3:4'", NO_LIMIT),
        ("slurm.time_limit='-5'", NO_LIMIT),
        ("slurm.time_limit='٣'", NO_LIMIT),
        ("slurm.time_limit=UNLIMITED", NO_LIMIT),
        ("slurm.time_limit='0-0'", "must be positive; null is the partition's limit"),
        ("slurm.gpus_per_node=a100:", "must be a whole number such as 4, or a type and a number"),
        ("slurm.gpus_per_node=true", "must be a whole number such as 4, or a type and a number"),
        ("slurm.gpus_per_node=-1", "must be greater than or equal to 0, found -1"),
        ("slurm.ranks_per_node=0", "must be greater than 0, found 0"),
        ("slurm.spare_nodes=-1", "must be greater than or equal to 0, found -1"),
        ("slurm.stop_notice_seconds=29", "must be greater than or equal to 30, found 29"),
        ("slurm.time_limits=0", "must be greater than 0, found 0"),
        ("slurm.memory=64GB", 'must be a number with K, M, G or T, such as 64G, or 0 for all, '),
        ("slurm.memory=-1", "must be a number with K, M, G or T, such as 64G, or 0 for all, "),
        ("slurm.sbatch.requeue=false", "'requeue' is set by the launcher; remove it"),
        ("slurm.sbatch.time=9", "'time' has its own field; set slurm.time_limit"),
        ("slurm.sbatch.--nice=9", "'--nice' is not an option; write it as for sbatch, witho"),
        ("slurm.sbatch.ntasks_per_node=9", "'ntasks_per_node' is not an option; write it as fo"),
        ("slurm.sbatch.nice=0.5", "must be text, a whole number, true or false, found 0.5"),
        ("slurm.sbatch.nice={}", "must be text, a whole number, true or false"),
        ("slurm.sbatch.comment=' x'", f"{NO_LINE}' x'"),
        ("slurm.sbatch=3", "must be a mapping, found 3; write {NAME: value}"),
        ("slurm.srun=--wait=9", "must be a valid array, found '--wait=9'"),
        ("slurm.container={}", "slurm.container.image: missing; add it (File or regis"),
        ("slurm.container=torch", "must be a mapping, found 'torch'; valid keys: image, runtime"),
        ("slurm.container={image: a, runtime: docker}", "slurm.container.runtime: 'docker' is not"),
        ("slurm.container={image: a, mounts: ['/a,/b']}", "slurm.container.mounts.0: has a comma;"),
        ("slurm.srun=[-n4]", "slurm.srun.0: must be an option of srun with its dashes, such as"),
        ("slurm.srun=['--']", "slurm.srun.0: must be an option of srun with"),
        ('slurm.setup=["a\\nb"]', "slurm.setup.0: must be one line of text"),
        ("slurm=gpu", "must be a mapping, found 'gpu'; valid keys: partition, account"),
        ("launch.preflight=yes", "must be a valid boolean, found 'yes'; write true or false"),
        ("launch.check=true", "unknown key; valid keys: preflight, start_report"),
        ("env.RANK=1", "'RANK' is set by the launcher for each rank; remove it"),
        ("env.CUDA_VISIBLE_DEVICES=1", "'CUDA_VISIBLE_DEVICES' is set by the launcher for each ra"),
        ("env.1X=1", "'1X' is not a valid name of a variable; use letters, digits and _, and"),
        ("env.[key]=1", "env.'[key]': '[key]' is not a valid name of a variable; use letters,"),
        ("env.X=true", "must be a valid string, found true; put it in quotes"),
        ("env.X=[1]", "must be a valid string, found [1]"),
        ('env.X="a\\0b"', "a variable cannot contain the character \\0; remove it"),
        ("env=3", "must be a mapping, found 3; write {NAME: value}"),
    ],
)  # fmt: skip
def test_a_fault_is_reported_with_its_remedy(recipe: Path, override: str, text: str) -> None:
    assert fault(recipe, override).startswith(f"command line: {override}: {text}")


LAUNCHERS_VARIABLES = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
LAUNCHERS_OPTIONS = "output error signal nodes ntasks ntasks-per-node requeue open-mode array"


@pytest.mark.parametrize(
    "name", [*LAUNCHERS_VARIABLES.split(), "PYTHONPATH", "CUDA_VISIBLE_DEVICES"]
)
def test_a_variable_that_the_launcher_sets_is_refused(recipe: Path, name: str) -> None:
    assert "is set by the launcher" in fault(recipe, f"env.{name}=x")
    assert load(recipe, [f"env.{name}_=x"])


@pytest.mark.parametrize("option", [*LAUNCHERS_OPTIONS.split(), "job-name"])
def test_an_option_that_the_launcher_sets_is_refused(recipe: Path, option: str) -> None:
    assert "is set by the launcher" in fault(recipe, f"slurm.sbatch.{option}=1")


def test_an_invalid_name_is_reported_at_its_place(recipe: Path) -> None:
    recipe.write_text(GOOD + "env:\n  NCCL_DEBUG: INFO\n  RANK: 1\n")
    assert fault(recipe).startswith("x.yaml:9:3: env.RANK: 'RANK' is set by the launcher")


names = st.sampled_from(["partition", "sbatch", "nice", "container", "image", "[key]", "str", ""])
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | names,
    lambda tree: st.lists(tree, max_size=4) | st.dictionaries(names, tree, max_size=4),
)


@pytest.mark.slow
@given(tree=trees, key=st.sampled_from(["slurm", "slurm.sbatch", "slurm.srun", "env", "launch"]))
@settings(max_examples=300, deadline=None)
def test_any_values_are_accepted_or_give_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, key: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "slurm_tree.yaml"
    path.write_text(GOOD)
    with suppress(ConfigError):
        config = load(path, [f"{key}={json.dumps(tree)}"])
        assert isinstance(config, Config)
        path.write_text(dump(config))
        assert load(path) == config, "a valid configuration survives a round trip"
