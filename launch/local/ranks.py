"""Several ranks on this machine: they start together, and none outlives the others."""

import ctypes
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from pipeline.system.exit_codes import HUNG, STOPPED
from pipeline.system.signals import STOPS

POLL_SECONDS = 0.05
SETTLE_SECONDS = 1.0
"""After a failure: time for other ranks with the same error to report it themselves."""
GRACE_SECONDS = 10.0
"""After a failure: from SIGTERM to SIGKILL."""
STOP_SECONDS = 60.0
"""After a stop signal: time until SIGKILL, for the ranks to save."""
PASSED_ON = (signal.SIGINT, signal.SIGHUP, *STOPS)

Rank = subprocess.Popen[bytes]


def run_ranks(
    command: Sequence[str],
    *,
    ranks: int,
    cpu_only: bool,
    on_stop: Callable[[signal.Signals], None] = lambda _: None,
) -> int:
    """Run `command`, a module and its arguments, as `ranks` processes; return the exit code.

    It is 0 if all ranks return 0, 2 if any rank found a user's mistake, else the code of the first
    rank to fail (1 if a signal killed it); the others are then ended. SIGINT, SIGTERM, SIGUSR2 and
    SIGHUP are passed on to the ranks, after `on_stop`, and give 75 if the run stopped as asked, 86
    if the watchdog ended it, else 128 + the signal's number. Call it from the main thread.
    """
    heard: list[signal.Signals] = []
    with noting_signals(heard.append), ExitStack() as stack:
        environment = shared_environment(ranks, cpu_only=cpu_only)
        processes: list[Rank] = []
        for rank in range(ranks):
            processes.append(_start(command, rank, environment))
            stack.callback(_end, processes[-1])
        return _supervise(processes, heard, on_stop)


def shared_environment(ranks: int, *, cpu_only: bool) -> dict[str, str]:
    """Return the environment variables that all ranks share."""
    root = str(Path(__file__).resolve().parents[2])
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    preferred = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
    required = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    if cpu_only:
        required["CUDA_VISIBLE_DEVICES"] = ""
    return preferred | os.environ | required


@contextmanager
def noting_signals(note: Callable[[signal.Signals], None]) -> Generator[None]:
    """Pass the signals to stop or pause to `note`, except ignored ones (nohup)."""

    def handle(number: int, _frame: FrameType | None) -> None:
        note(signal.Signals(number))

    wanted = (*PASSED_ON, signal.SIGTSTP)
    noted = [number for number in wanted if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in noted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(
    ranks: Sequence[Rank],
    heard: list[signal.Signals],
    on_stop: Callable[[signal.Signals], None],
) -> int:
    asked, first_code, due = None, 0, list[tuple[float, signal.Signals]]()
    while running := [rank for rank in ranks if rank.poll() is None]:
        now = time.monotonic()
        if signal.SIGTSTP in heard:
            heard.remove(signal.SIGTSTP)
            _pause(running)
        elif heard and asked is None:
            asked = heard.pop(0)
            on_stop(asked)
            due = [(now, asked), (now + STOP_SECONDS, signal.SIGKILL)]
        elif heard:
            again = heard.pop(0)
            if again in (signal.SIGINT, *STOPS):  # a second one ends a rank at once
                _send(running, again)
        elif first_code == 0 and (first_code := _worst(ranks)) and asked is None:
            # If one rank was asked to stop, the ranks stop together without our help.
            end = now + (STOP_SECONDS if first_code == STOPPED else SETTLE_SECONDS)
            due = [(end, signal.SIGTERM), (end + GRACE_SECONDS, signal.SIGKILL)]
        if due and due[0][0] <= now:
            _send(running, due.pop(0)[1])
        time.sleep(POLL_SECONDS)
    last_code = _worst(ranks)
    if asked is not None and last_code:
        return last_code if last_code in (STOPPED, HUNG) else 128 + asked
    return 2 if last_code == 2 else first_code or last_code


def _worst(ranks: Sequence[Rank]) -> int:
    """Return 2 if any rank returned 2, else the highest code of a failed rank, else 0."""
    codes = [1 if rank.returncode < 0 else rank.returncode for rank in ranks if rank.returncode]
    return 2 if 2 in codes else max(codes, default=0)


def _pause(running: Sequence[Rank]) -> None:
    """Ctrl-Z: suspend the ranks and then this process; continue them when it continues."""
    _send(running, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    _send(running, signal.SIGCONT)


def _send(ranks: Sequence[Rank], number: signal.Signals) -> None:
    for rank in ranks:
        rank.send_signal(number)


def _start(command: Sequence[str], rank: int, environment: dict[str, str]) -> Rank:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "launch.local.ranks", str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        # Otherwise Ctrl-C would reach a rank twice: from the terminal, and from us.
        process_group=0,
    )


def _end(rank: Rank) -> None:
    rank.kill()
    rank.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def become_rank(parent: int, command: Sequence[str]) -> None:
    """Run `command` in this process, which is killed when `parent` ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it ended before prctl
        raise SystemExit(1)
    # A rank in the background of its terminal must not be suspended when it prints.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    heard: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    sys.argv[1:] = command[1:]
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except (Exception, KeyboardInterrupt):
        if heard:  # while importing, or because another rank left first
            raise SystemExit(130) from None
        raise


if __name__ == "__main__":
    become_rank(int(sys.argv[1]), sys.argv[2:])
