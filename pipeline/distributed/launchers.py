"""Launchers that start several tasks without telling torch, so that each would train alone."""

from collections.abc import Mapping

TASK_COUNTS = {
    "SLURM_STEP_NUM_TASKS": "srun",  # SLURM_NTASKS is also set in the shells of sbatch and salloc
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "JSM_NAMESPACE_SIZE": "jsrun",
}
"""Variables in which a launcher passes its number of tasks to each of them."""


def expect_ranks(environment: Mapping[str, str]) -> None:
    """Raise `ValueError` if this is one of several tasks that do not know each other."""
    if "WORLD_SIZE" in environment:
        return
    for variable, launcher in TASK_COUNTS.items():
        tasks = environment.get(variable, "")
        if tasks.isdecimal() and int(tasks) > 1:
            raise ValueError(
                f"{launcher} started {tasks} tasks ({variable}={tasks}), but WORLD_SIZE is not set:"
                " each would train alone; use launch/submit.py or torchrun, which set it, or start"
                " a single task"
            )
