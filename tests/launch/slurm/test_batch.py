"""The shell around the supervisor requeues a job, and gives it up only after failures in a row."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.slurm.supervise.batch import lines_after, lines_before

SCONTROL = """#!/bin/sh
case "$*" in
  "--all --oneliner show job 7") echo "JobId=7 JobState=RUNNING Partition=p ExcNodeList=n9 x=1" ;;
  "--all --oneliner show partition p") echo "PartitionName=p State=UP TotalNodes=4 x=1" ;;
  "show hostnames n9,n1") echo n9; echo n1 ;;
  "show hostnames "*) ;;
  requeue*|update*) echo "called: $*" ;;
  *) exit 1 ;;
esac
"""
"""A controller with a hidden partition."""
EXCLUDED = "called: update jobid=7 ExcNodeList=n9,n1"

pytestmark = pytest.mark.process


def start(folder: Path, python: str, supervisor: str = "true") -> str:
    """Run a job's script whose supervisor is the shell command `supervisor`; return its output."""
    scontrol = folder / "scontrol"
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    variables = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": "9",
        "SLURM_JOB_PARTITION": "p",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURMD_NODENAME": "n1",
    }
    lines = [*lines_before(python, folder), supervisor, *lines_after()]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=variables, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_a_job_that_was_often_requeued_leaves_a_node_without_python(tmp_path: Path) -> None:
    output = start(tmp_path, "/nowhere/python")
    assert output.splitlines() == [
        "called: requeue 7",
        EXCLUDED,
        "the job is requeued: /nowhere/python does not start on n1",
    ]


def test_only_failures_in_a_row_end_a_run(tmp_path: Path) -> None:
    for _ in range(3):
        assert "the job is requeued: " in start(tmp_path, "/nowhere/python")
    assert start(tmp_path, sys.executable) == ""
    for _ in range(3):
        killed = start(tmp_path, sys.executable, "(exit 137)")
        assert "the job is requeued: signal 9 ended the supervisor" in killed
        assert EXCLUDED not in killed
    assert "the run is given up: signal 9" in start(tmp_path, sys.executable, "(exit 137)")
