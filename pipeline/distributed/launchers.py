"""Launchers that start several tasks without telling torch, so that each would train alone."""

import os
from collections.abc import Mapping

TASK_COUNTS = {
    "SLURM_STEP_NUM_TASKS": "srun",  # SLURM_NTASKS is also set in the shells of sbatch and salloc
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "JSM_NAMESPACE_SIZE": "jsrun",
}
"""Variables in which a launcher passes its number of tasks to each of them."""
TERMINAL = "SLURM_PTY_PORT"
"""Set by `srun --pty`, which gives a terminal to its first task alone: the shell of a person."""


def expect_ranks(environment: Mapping[str, str]) -> None:
    """Raise `ValueError` if this is one of several tasks that do not know each other."""
    if "WORLD_SIZE" in environment or (TERMINAL in environment and os.isatty(0)):
        return
    for variable, launcher in TASK_COUNTS.items():
        tasks = environment.get(variable, "")
        if tasks.isdecimal() and int(tasks) > 1:
            raise ValueError(
                f"{launcher} started {tasks} tasks ({variable}={tasks}), but WORLD_SIZE is not set:"
                " each would train alone; use launch/submit.py or torchrun, which set it, or start"
                " a single task"
            )
