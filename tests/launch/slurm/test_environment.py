"""Variables of other jobs and of profiles reach neither SLURM's commands nor the ranks."""

import os

import pytest

from launch.slurm.api.environment import for_commands, for_steps, only_for_commands

FOREIGN = dict.fromkeys(
    (
        *("SLURM_ARRAY_JOB_ID", "SLURM_NTASKS", "SLURM_MEM_PER_CPU", "SLURM_TIME_FORMAT"),
        *("SBATCH_PARTITION", "SALLOC_ACCOUNT", "SRUN_CPUS_PER_TASK", "SQUEUE_STATES"),
        *("SCANCEL_INTERACTIVE", "SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL", "SLURMD_NODENAME"),
        *("RANK", "WORLD_SIZE", "MASTER_ADDR", "RUN_OWNER", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"),
        *("SLURM_OF_A_LATER_VERSION",),
    ),
    "1",
)
OURS = {"SLURM_CONF": "/etc/a.conf", "SLURM_JWT": "x", "SLURM_CLUSTERS": "a", "HOME": "/h"}


def test_commands_get_the_cluster_and_nothing_of_another_job() -> None:
    assert for_commands(OURS | FOREIGN) == OURS


def test_the_gpus_of_a_surrounding_job_are_not_those_of_the_new_one() -> None:
    gpus = {"CUDA_VISIBLE_DEVICES": "0"}
    assert for_commands(OURS | gpus) == OURS | gpus
    assert for_commands(OURS | gpus | {"SLURM_JOB_ID": "7"}) == OURS


def test_a_step_gets_the_number_of_its_job_and_no_options() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    options = {"SLURM_CPU_BIND": "x", "SLURM_DISTRIBUTION": "cyclic", "SLURM_GPUS": "1"}
    assert for_steps(FOREIGN | options | OURS | job) == OURS | job


def test_the_environment_is_as_before_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "9")
    before = dict(os.environ)
    with only_for_commands():
        assert "SLURM_NTASKS" not in os.environ
    assert dict(os.environ) == before
