"""An exported password reaches every attempt of a run, and is written nowhere."""

import json
import secrets
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, environment_of
from tests.slurm.trainings import digits_in, submit

PASSWORD = secrets.token_hex()


@pytest.mark.exhaustive
def test_an_exported_password_reaches_the_ranks_also_after_a_requeue(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cluster.environment, "MLFLOW_TRACKING_PASSWORD", PASSWORD)
    seen = tmp_path / "seen"
    recipe = digits_in(tmp_path)
    setup = json.dumps([f"printenv MLFLOW_TRACKING_PASSWORD >> {seen}"])
    training = submit(cluster, recipe, f"slurm.setup={setup}")
    training.wait_for_step(20)
    for rank in (0, 1):
        process = cluster.rank_process(training.job_id, rank)
        assert environment_of(process)["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    cluster.run("scontrol", "requeue", training.job_id)
    training.wait_for_end()
    assert seen.read_text() == f"{PASSWORD}\n" * 2
    files = [path for path in training.run_dir.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
