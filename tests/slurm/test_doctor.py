"""launch/doctor.py on a real cluster."""

import json
import subprocess
import sys
from pathlib import Path

from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def run_doctor(
    environment: dict[str, str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, ROOT / "launch" / "doctor.py", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_cluster_is_examined(cluster: Cluster, tmp_path: Path) -> None:
    runs_dir = f"runs_dir={tmp_path}/runs"
    answer = run_doctor(cluster.environment, QUICKSTART, runs_dir, "--json", "--nodes", 4)
    assert answer.returncode == 1, answer.stderr
    found = {each["setting"]: each for each in json.loads(answer.stdout)}
    assert found["KillWait"]["value"] == "5 sec"
    assert found["KillWait"]["severity"] == "costs work"
    assert found["GraceTime of main"]["value"] == "10"
    assert found["request"]["meaning"].startswith("slurm.time_limit is not set")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_request_exits_with_2_after_all_other_findings(cluster: Cluster) -> None:
    answer = run_doctor(cluster.environment, QUICKSTART, "slurm.partition=urgnet")
    assert answer.returncode == 2
    assert "did you mean urgent?" in answer.stderr
    assert "KillWait" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_a_container_without_pyxis_costs_work(cluster: Cluster) -> None:
    answer = run_doctor(cluster.environment, QUICKSTART, "slurm.container={image: a.sqsh}")
    assert "srun has no option --container-image" in answer.stdout


def test_a_silent_controller_costs_work_and_the_rest_is_still_reported(
    cluster: Cluster, tmp_path: Path
) -> None:
    lost = tmp_path / "slurm.conf"
    lines = ["ClusterName=lost", "SlurmctldHost=localhost", "SlurmctldPort=9", "MessageTimeout=1"]
    lost.write_text("\n".join(lines) + "\n")
    answer = run_doctor(cluster.environment | {"SLURM_CONF": str(lost)})
    assert answer.returncode == 1
    assert "SLURM = no answer" in answer.stdout
    assert "/dev/shm" in answer.stdout
