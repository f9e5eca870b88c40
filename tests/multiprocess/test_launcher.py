"""Ranks on one machine start and end together, and none outlives the launcher."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.local.ranks import run_ranks

WAIT = "import time\nready()\ntime.sleep(100)\n"
REPORT = """
import os, sys, time
from pathlib import Path

HERE, RANK = Path(__file__).parent, int(os.environ["RANK"])

def ready():
    (HERE / f"new-{RANK}").write_text(str(os.getpid()))
    (HERE / f"new-{RANK}").rename(HERE / f"rank-{RANK}")

def await_others():
    while len(list(HERE.glob("rank-*"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)

"""
LAUNCH = """
import sys
from launch.local.ranks import run_ranks
sys.exit(run_ranks({}, ranks={}, cpu_only=True))
"""
SECONDS = 20


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write modules that ranks can run; return a function from source lines to the name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def write(lines: str) -> str:
        (tmp_path / "program.py").write_text(REPORT + lines)
        return "program"

    return write


def launch(module: str, ranks: int = 2, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format([module], ranks)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def await_ranks(folder: Path, ranks: int = 2) -> list[psutil.Process]:
    """Wait until every rank runs."""
    deadline = time.monotonic() + SECONDS
    files = [folder / f"rank-{rank}" for rank in range(ranks)]
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.01)
    return [psutil.Process(int(file.read_text())) for file in files]


def assert_gone(ranks: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(ranks, timeout=SECONDS)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


# ------------------------------------------------------------------------------------- starting


def test_ranks_get_their_environment(
    tmp_path: Path, program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    names += ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
    module = program(
        f"values = [os.environ[name] for name in {names}]\n"
        "(HERE / f'seen-{RANK}').write_text(' '.join([*values, *sys.argv[1:]]))\n"
    )
    assert run_ranks([module, "a", "b=c"], ranks=3, cpu_only=True) == 0
    seen = [(tmp_path / f"seen-{rank}").read_text().split(" ") for rank in range(3)]
    threads = max(1, len(os.sched_getaffinity(0)) // 3)
    for rank, values in enumerate(seen):
        assert values[:5] == [str(rank), str(rank), "3", "3", "127.0.0.1"]
        assert values[6:] == [str(threads), "", "a", "b=c"]
    assert len({values[5] for values in seen}) == 1
    assert int(seen[0][5]) > 1023


def test_a_users_folder_called_pipeline_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit(7)")
    root = str(Path(__file__).parents[2])
    module = "pipeline.tracking.events"
    assert (
        subprocess.run(
            [sys.executable, "-P", "-c", LAUNCH.format([module], 1)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": root},
            check=False,
        ).returncode
        == 0
    )


def test_signal_handlers_are_restored(program: Callable[[str], str]) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run_ranks([program("")], ranks=1, cpu_only=True)
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


# ------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("failing", "code"),
    [("sys.exit(2)", 2), ("sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", 1), ("1 / 0", 1)],
)
def test_one_failure_ends_all(
    tmp_path: Path, program: Callable[[str], str], failing: str, code: int
) -> None:
    module = program(
        f"ready()\nawait_others()\nif RANK == 1:\n    {failing}\nimport time; time.sleep(100)\n"
    )
    started = time.monotonic()
    assert run_ranks([module], ranks=2, cpu_only=True) == code
    assert time.monotonic() - started < 8
    assert not psutil.pid_exists(int((tmp_path / "rank-0").read_text()))


def test_a_mistake_found_late_still_gives_2(program: Callable[[str], str]) -> None:
    """One rank fails because another is gone, before that one has reported its mistake."""
    module = program("import time\nif RANK == 0: sys.exit(1)\ntime.sleep(0.5)\nsys.exit(2)\n")
    assert run_ranks([module], ranks=2, cpu_only=True) == 2


def test_a_rank_that_ignores_sigterm_is_killed(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.local.ranks.GRACE_SECONDS", 0.5)
    module = program(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\nawait_others()\n"
        "if RANK == 0: sys.exit(3)\ntime.sleep(100)\n"
    )
    assert run_ranks([module], ranks=2, cpu_only=True) == 3


def test_a_rank_killed_from_outside_ends_all(tmp_path: Path, program: Callable[[str], str]) -> None:
    launcher = launch(program(WAIT))
    ranks = await_ranks(tmp_path)
    ranks[0].kill()
    launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 1
    assert_gone(ranks)


# -------------------------------------------------------------------------------------- signals


def test_no_rank_survives_a_launcher_that_is_killed(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    launcher = launch(program(WAIT))
    ranks = await_ranks(tmp_path)
    launcher.kill()
    launcher.communicate(timeout=SECONDS)
    assert_gone(ranks)


@pytest.mark.parametrize("to_the_group", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_is_forwarded_once_and_waited_for(
    tmp_path: Path, program: Callable[[str], str], number: signal.Signals, to_the_group: bool
) -> None:
    """Ctrl-C reaches the whole process group, but a rank gets it once, and may clean up."""
    module = program(
        "import signal, time\n"
        "def hear(number, frame):\n"
        "    with (HERE / f'heard-{RANK}').open('a') as file: file.write(f'{number} ')\n"
        "    time.sleep(0.5)\n"
        "    sys.exit(130)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, hear)\n" + WAIT
    )
    launcher = launch(module, process_group=0)
    ranks = await_ranks(tmp_path)
    (os.killpg if to_the_group else os.kill)(launcher.pid, number)
    output, _ = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 128 + number
    assert output == ""
    assert [(tmp_path / f"heard-{rank}").read_text() for rank in (0, 1)] == [f"{number:d} "] * 2
    assert_gone(ranks)


HEAR = """
import signal, time
def hear(number, frame):
    {}
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT): signal.signal(number, hear)
ready()
await_others()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2], ids=["TERM", "USR2"])
def test_ranks_that_stop_when_asked_end_with_75(
    tmp_path: Path, program: Callable[[str], str], number: signal.Signals
) -> None:
    launcher = launch(program(HEAR.format("sys.exit(75)") + "time.sleep(100)\n"))
    ranks = await_ranks(tmp_path)
    launcher.send_signal(number)
    launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 75
    assert_gone(ranks)


def test_a_stopped_rank_does_not_end_one_that_is_still_saving(
    program: Callable[[str], str],
) -> None:
    lines = "if RANK == 1: sys.exit(75)\ntime.sleep(1.5)\n(HERE / 'saved').touch()\nsys.exit(75)\n"
    module = program(HEAR.format("os._exit(3)") + lines)
    assert run_ranks([module], ranks=2, cpu_only=True) == 75


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGUSR2, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)]
)
def test_a_second_stop_signal_is_forwarded(
    tmp_path: Path, program: Callable[[str], str], first: signal.Signals, second: signal.Signals
) -> None:
    hear = "(HERE / f'heard-{RANK}').open('a').write(f'{number} ')"
    launcher = launch(program(HEAR.format(hear) + "while True: time.sleep(0.01)\n"))
    ranks = await_ranks(tmp_path)

    def await_heard(expected: str) -> None:
        deadline = time.monotonic() + SECONDS
        files = [tmp_path / f"heard-{rank}" for rank in (0, 1)]
        while not all(file.exists() and file.read_text() == expected for file in files):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    launcher.send_signal(first)
    await_heard(f"{first:d} ")
    launcher.send_signal(second)
    await_heard(f"{first:d} {second:d} ")
    for rank in ranks:
        rank.kill()
    launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 128 + first


def test_ctrl_z_suspends_the_ranks(tmp_path: Path, program: Callable[[str], str]) -> None:
    launcher = launch(program(WAIT), process_group=0)
    everyone = [psutil.Process(launcher.pid), *await_ranks(tmp_path)]

    def await_stopped(*, stopped: bool) -> None:
        deadline = time.monotonic() + SECONDS
        while any((p.status() == psutil.STATUS_STOPPED) != stopped for p in everyone):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    launcher.send_signal(signal.SIGTSTP)
    await_stopped(stopped=True)
    launcher.send_signal(signal.SIGCONT)
    await_stopped(stopped=False)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=SECONDS)
    assert_gone(everyone[1:])


@pytest.mark.parametrize("trouble", ["", "raise RuntimeError('connection closed by peer')"])
def test_ctrl_c_prints_no_traceback(
    tmp_path: Path, program: Callable[[str], str], trouble: str
) -> None:
    """Neither from the interrupt, nor from a rank whose peer has ended first."""
    module = program(
        f"import time\nready()\ntry: time.sleep(100)\nfinally:\n    if RANK: {trouble or 'pass'}\n"
    )
    launcher = launch(module)
    ranks = await_ranks(tmp_path)
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 130
    assert output == ""
    assert_gone(ranks)
