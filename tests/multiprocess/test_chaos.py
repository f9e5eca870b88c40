"""Law 2 under random faults: a training ends with the same bits, wherever it resumes."""

import json
from pathlib import Path

import pytest

from tests.multiprocess.server import fork_server

SECONDS = 840.0


@pytest.mark.timeout(900)
def test_random_faults_change_no_bit(tmp_path: Path) -> None:
    """`tests/multiprocess/chaos.py` is a command for more faults."""
    arguments = [tmp_path / "chaos", "--kills", 6, "--steps", 80]
    program = fork_server().start("tests.multiprocess.chaos:main", *arguments, ranks=1)
    codes, output = program.end(SECONDS)
    assert codes == [0], output
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert sum(sum(report["faults"].values()) for report in reports) >= 6
    assert all(report["steps_compared"] >= 80 for report in reports)
