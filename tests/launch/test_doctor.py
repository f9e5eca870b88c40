"""launch/doctor.py on a machine without SLURM; with a real cluster, see tests/slurm."""

import json
from pathlib import Path

import pytest

from launch.diagnosis.cluster_rules import RULES
from launch.diagnosis.finding import apply
from launch.doctor import main, to_text
from tests.launch.slurm.recordings import recorded

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_the_costliest_findings_come_first() -> None:
    text = to_text(apply(RULES, recorded("preempting")))
    assert text.index("COSTS WORK") < text.index("COSTS TIME") < text.index("\nFINE")
    assert max(map(len, text.splitlines())) <= 100


def test_without_slurm_this_machine_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = main(["--json"])
    findings = json.loads(capsys.readouterr().out)
    assert findings[0]["setting"] == "SLURM"
    assert {"GPUs", "/dev/shm", "runs_dir", "tracking.uri"} <= {
        each["setting"] for each in findings
    }
    assert code == int(any(each["severity"] == "costs work" for each in findings))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.yaml"], "missing.yaml"),
        ([str(QUICKSTART), "slurm.partition=1"], "slurm.partition"),
    ],
)
def test_a_mistake_in_the_configuration_exits_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
