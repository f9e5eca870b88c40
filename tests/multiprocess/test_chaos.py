"""Law 2 under fire: whatever strikes a training, and wherever it goes on, its bits are the same."""

import json
from pathlib import Path

import pytest

from tests.multiprocess.server import fork_server

SECONDS = 840.0


@pytest.mark.timeout(900)
def test_a_training_under_random_blows_comes_to_the_bits_of_one_without(tmp_path: Path) -> None:
    """The long form is a command: see `tests/multiprocess/chaos.py`."""
    arguments = [tmp_path / "chaos", "--kills", 6, "--steps", 80]
    program = fork_server().start("tests.multiprocess.chaos:main", *arguments, ranks=1)
    codes, output = program.end(SECONDS)
    assert codes == [0], output
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert sum(sum(report["blows"].values()) for report in reports) >= 6
    assert all(report["steps_compared"] >= 80 for report in reports)
