"""Several ranks on this machine: started together, awaited together, and none ever left behind."""

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
"""After a failure: time for ranks that fail for the same reason to say so themselves."""
GRACE_SECONDS = 10.0
"""After a failure: from SIGTERM to SIGKILL."""
STOP_SECONDS = 60.0
"""After a stop that was asked for: from its signal to SIGKILL; a checkpoint may be on its way."""
PASSED_ON = (signal.SIGINT, signal.SIGHUP, *STOPS)

Rank = subprocess.Popen[bytes]


def run_ranks(command: Sequence[str], *, ranks: int, cpu_only: bool) -> int:
    """Run `command`, a module and its arguments, as `ranks` processes; return the exit code.

    It is 0 if all end with 0; 2 if a rank found a mistake of the user's, even where others noticed
    no more than its absence; else that of the first to fail (1 if a signal killed it), which the
    others then do not outlive for long. SIGINT, SIGTERM, SIGUSR2 and SIGHUP are passed on, awaited,
    and give 128 + their number, or what says more: 75 if the run stopped as it should, 86 if the
    watchdog had to end it. Call it from the main thread.
    """
    heard: list[signal.Signals] = []
    with noting_signals(heard.append), ExitStack() as stack:
        environment = shared_environment(ranks, cpu_only=cpu_only)
        processes: list[Rank] = []
        for rank in range(ranks):
            processes.append(_start(command, rank, environment))
            stack.callback(_end, processes[-1])
        return _supervise(processes, heard)


def shared_environment(ranks: int, *, cpu_only: bool) -> dict[str, str]:
    """Return the environment that all ranks have in common."""
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
    """Note the signals that ask to stop or pause, but for those that are ignored (nohup)."""

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


def _supervise(ranks: Sequence[Rank], heard: list[signal.Signals]) -> int:
    asked, first_code, due = None, 0, list[tuple[float, signal.Signals]]()
    while running := [rank for rank in ranks if rank.poll() is None]:
        now = time.monotonic()
        if signal.SIGTSTP in heard:
            heard.remove(signal.SIGTSTP)
            _pause(running)
        elif heard and asked is None:
            asked = heard.pop(0)
            due = [(now, asked), (now + STOP_SECONDS, signal.SIGKILL)]
        elif heard:
            again = heard.pop(0)
            if again in STOPS:  # the second one ends a rank at once
                _send(running, again)
        elif first_code == 0 and (first_code := _worst(ranks)) and asked is None:
            # Ranks that stop because one of them was asked to do so together, all by themselves.
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
    """Return 2 if a rank ended with it, else any failure of a rank that has ended, else 0."""
    codes = [1 if rank.returncode < 0 else rank.returncode for rank in ranks if rank.returncode]
    return 2 if 2 in codes else max(codes, default=0)


def _pause(running: Sequence[Rank]) -> None:
    """Ctrl-Z: stop the ranks and then this process; all go on when the shell says so."""
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
        # Ctrl-C, or a signal to the whole job, comes from us then, and once: a second one would
        # fall upon a rank that is cleaning up after the first.
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
    """Run `command` in this process, which dies with `parent` however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before we could ask
        raise SystemExit(1)
    # Being in the background of its terminal must not stop a rank that prints.
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
        if heard:  # while importing, or by the loss of a rank that was quicker to leave
            raise SystemExit(130) from None
        raise


if __name__ == "__main__":
    become_rank(int(sys.argv[1]), sys.argv[2:])
