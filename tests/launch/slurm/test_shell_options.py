"""SBATCH_* variables are defaults for what the configuration leaves open; each is reported."""

import pytest

from launch.slurm.submit.shell_options import fill_from_shell
from pipeline.config.schema import Slurm


def test_open_settings_are_filled() -> None:
    shell = {
        "SBATCH_ACCOUNT": "vision",
        "SBATCH_TIMELIMIT": "2-00",
        "SBATCH_GRES": "gpu:a100:4",
        "SBATCH_MEM_PER_CPU": "2G",
        "SBATCH_EXCLUSIVE": "",
        "SBATCH_REQ_SWITCH": "1@60",
        "HOME": "/h",
    }
    filled, notes = fill_from_shell(Slurm(), shell)
    assert filled == Slurm(
        account="vision",
        time_limit="2-00",
        gpus_per_node="a100:4",
        sbatch={"exclusive": True, "mem-per-cpu": "2G", "switches": "1@60"},
    )
    assert notes[0].startswith("SBATCH_ACCOUNT=vision in this shell sets slurm.account,")
    assert len(notes) == 6


def test_the_configuration_wins() -> None:
    ours = Slurm(partition="main", time_limit="60", memory="8G", sbatch={"exclusive": False})
    shell = {
        "SBATCH_PARTITION": "urgent",
        "SBATCH_TIMELIMIT": "7",
        "SBATCH_MEM_PER_CPU": "2G",
        "SBATCH_EXCLUSIVE": "yes",
    }
    filled, notes = fill_from_shell(ours, shell)
    assert filled == ours
    assert [note.partition(" is ignored: the configuration has ")[2] for note in notes] == [
        "slurm.sbatch.exclusive=False",
        "slurm.memory=8G",
        "slurm.partition=main",
        "slurm.time_limit=60",
    ]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("SBATCH_NO_REQUEUE", "1", "the launcher sets this option itself"),
        ("SBATCH_ARRAY_INX", "0-9", "the launcher sets this option itself"),
        ("SBATCH_EXPORT", "NONE", "the launcher sets this option itself"),
        ("SBATCH_OPEN_MODE", "truncate", "the launcher sets this option itself"),
        ("SBATCH_OF_A_LATER_VERSION", "1", "others belong in slurm.sbatch"),
        ("SBATCH_EXCLUSIVE", "0", "it does not set the option"),
        ("SBATCH_TIMELIMIT", "soon", "is not a SLURM time limit"),
        ("SBATCH_QOS", "", "must be one line of text"),
        ("SBATCH_GRES", "gpu:2,nvme:1", "set slurm.gpus_per_node"),
    ],
)
def test_what_cannot_be_used_is_ignored_with_the_reason(name: str, value: str, why: str) -> None:
    filled, (note,) = fill_from_shell(Slurm(), {name: value})
    assert filled == Slurm()
    assert note.startswith(f"{name}={value} in this shell is ignored: ")
    assert why in note
