"""Which variables SLURM's commands get: only those that name the cluster, or the job itself.

SLURM reads its variables as options. Those of a surrounding job or of a site's profile would change
what sbatch, srun, squeue and scancel do, and sbatch would pass them on to the new job.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

PREFIXES = (
    *("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SATTACH_", "SBCAST_", "SCANCEL_"),
    *(
        "SCONTROL_",
        "SQUEUE_",
        "SINFO_",
        "SACCT_",
        "SUBMITIT_",
        "PMI_",
        "PMIX_",
        "OMPI_",
        "TORCHELASTIC_",
    ),
)
"""Variables of SLURM, submitit, MPI and torchrun: only those listed below reach a command."""
OF_A_RANK = {
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "RENDEZVOUS_FILE", "RENDEZVOUS_ADDRESS"),
    *("RANK_CORES", "RUN_OWNER"),
}
"""Variables of a single training process."""
GPUS_OF_A_JOB = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"}
OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"}
OF_THE_JOB = OF_THE_CLUSTER | {
    *("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION"),
    *("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_SUBMIT_DIR"),
    *("SLURM_CLUSTER_NAME", "SLURM_WORKING_CLUSTER", "SLURM_NODE_ALIASES"),
}
"""What srun needs to find its job, and what only informs; none of them is an option of a step."""


def for_commands(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for sbatch, and for commands that ask about jobs or change them.

    In the shell of another job, the GPUs of that job are left out as well.
    """
    left_out = GPUS_OF_A_JOB if "SLURM_JOB_ID" in variables else set[str]()
    kept = _own(variables, OF_THE_CLUSTER)
    return {name: value for name, value in kept.items() if name not in left_out}


def for_steps(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for srun inside a job, and so for its ranks."""
    return _own(variables, OF_THE_JOB)


@contextmanager
def only_for_commands() -> Generator[None]:
    """Keep the other variables out of this process's environment during the block."""
    before = dict(os.environ)
    for name in before.keys() - for_commands(before).keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _own(variables: Mapping[str, str], kept: set[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name in kept or not (name.startswith(PREFIXES) or name in OF_A_RANK)
    }
