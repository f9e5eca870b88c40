"""Several tasks that do not know each other do not train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.distributed.launchers import expect_ranks

ROOT = Path(__file__).parents[3]
OF_A_STEP = {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    "variables",
    [
        {**OF_A_STEP, "SLURM_STEP_NUM_TASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        {"PMI_SIZE": "2", "PMI_RANK": "1"},
        {"PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    ],
)
def test_one_of_several_tasks_is_refused_with_what_to_use(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"launch/submit\.py or torchrun"):
        expect_ranks(variables)
    expect_ranks({**variables, "WORLD_SIZE": "2", "RANK": "1"})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script
        {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"},  # a shell of salloc
        {**OF_A_STEP, "SLURM_STEP_NUM_TASKS": "1"},  # a single task in a larger job
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
    ],
)
def test_a_single_process_trains_alone(variables: dict[str, str]) -> None:
    expect_ranks(variables)


def test_a_person_in_the_shell_of_a_step_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = {**OF_A_STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PTY_PORT": "40001"}
    with pytest.raises(ValueError, match="srun started 2 tasks"):  # started by that shell
        expect_ranks(shell)

    def isatty(descriptor: int) -> bool:
        return descriptor == 0

    monkeypatch.setattr(os, "isatty", isatty)
    expect_ranks(shell)


@pytest.mark.process
@pytest.mark.parametrize("program", [["-m", "pipeline.train"], ["launch/submit.py", "--local"]])
def test_a_copy_that_srun_started_exits_before_it_writes(
    program: list[str], tmp_path: Path
) -> None:
    recipe = str(ROOT / "configs" / "quickstart.yaml")
    done = subprocess.run(
        [sys.executable, *program, recipe, f"runs_dir={tmp_path / 'runs'}"],
        cwd=ROOT,
        env=os.environ | OF_A_STEP | {"SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "srun started 2 tasks" in done.stderr
    assert list(tmp_path.iterdir()) == []
