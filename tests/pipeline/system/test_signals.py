"""Stop signals are received whatever the main thread does; a second one ends the process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.system.exit_codes import INTERRUPTED, STOPPED
from pipeline.system.signals import STOPS, StopSignals, code_of

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
SECONDS = 20
ALL = (*STOPS, signal.SIGINT)
DEADLOCK = """
import ctypes
def deadlock():  # in native code that no signal interrupts
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex), lock(mutex)
"""
PROGRAM = """
import os, sys, threading, time
from pipeline.system import signals
from pipeline.system.signals import StopSignals
def say(word):
    os.write(1, word.encode() + b"\\n")
"""


def start(script: str) -> "subprocess.Popen[str]":
    """Start a script and wait until it prints `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + DEADLOCK + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=SECONDS)
    return process.returncode, said


@pytest.mark.parametrize("number", ALL)
def test_a_signal_before_the_first_step_ends_the_process(number: signal.Signals) -> None:
    process = start("with StopSignals():\n    say('ready')\n    deadlock()\n")
    process.send_signal(number)
    code, said = end(process)
    assert code == code_of(number)
    assert said.startswith(f"stopped by {number.name} before the first step")


@pytest.mark.parametrize("number", ALL)
def test_a_signal_during_imports_ends_the_process(number: signal.Signals) -> None:
    process = start("signals.leave_at_once()\nsay('ready')\nwhile True: time.sleep(1)\n")
    process.send_signal(number)
    assert end(process) == (code_of(number), "")


def test_the_exit_code_tells_ctrl_c_from_a_scheduler() -> None:
    assert [code_of(number) for number in STOPS] == [STOPPED, STOPPED] == [75, 75]
    assert code_of(signal.SIGINT) == INTERRUPTED == 130


HELD = """
with StopSignals() as stop:
    stop.hold()
    def tell():
        while stop.heard is None: time.sleep(0.01)
        say(stop.heard.name)
    threading.Thread(target=tell, daemon=True).start()
    say("ready")
    {}
"""


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_received_while_the_main_thread_is_in_native_code(
    number: signal.Signals,
) -> None:
    process = start(HELD.format("deadlock()"))
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{number.name}\n"
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_second_signal_ends_the_process_but_a_quick_repetition_does_not() -> None:
    process = start(HELD.format("deadlock()"))
    process.send_signal(signal.SIGUSR2)
    assert process.stdout is not None
    assert process.stdout.readline() == "SIGUSR2\n"
    process.send_signal(signal.SIGUSR2)
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == STOPPED
    assert "second signal, SIGTERM" in said


def test_a_second_ctrl_c_ends_the_process_with_130() -> None:
    process = start(HELD.format("deadlock()"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "SIGINT\n"
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, said = end(process)
    assert code == INTERRUPTED
    assert said.count("saving and stopping after this step; press Ctrl-C again") == 1
    assert "second signal, SIGINT" in said


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in the background of a shell script, or with nohup."""
    ignore = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    process = start(ignore + HELD.format("time.sleep(1); sys.exit(5)"))
    process.send_signal(signal.SIGINT)
    assert end(process) == (5, "")


@pytest.mark.parametrize(("reached", "code"), [(False, STOPPED), (True, 0)])
def test_a_step_that_does_not_end_in_time_ends_the_process(reached: bool, code: int) -> None:
    wait = "stop.reached(); time.sleep(2)" if reached else "deadlock()"
    process = start("signals.REACH_SECONDS = 0.5\n" + HELD.format(wait))
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == code


def test_a_blocked_standard_error_does_not_keep_the_process_alive() -> None:
    """Standard error is a full pipe, and the main thread is waiting to write to it."""
    process = start(
        "os.set_blocking(2, False)\n"
        "try:\n    while True: os.write(2, bytes(65536))\n"
        "except BlockingIOError: os.set_blocking(2, True)\n"
        "with StopSignals():\n    say('ready')\n    sys.stderr.write('x')\n    sys.stderr.flush()\n"
    )
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(timeout=SECONDS) == STOPPED
    finally:
        process.kill()
        process.communicate()


def test_handlers_are_restored_afterwards() -> None:
    before = [signal.getsignal(number) for number in ALL]
    threads = threading.active_count()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    try:
        for _ in range(3):
            with StopSignals() as stop:
                stop.hold()
                os.kill(os.getpid(), signal.SIGUSR2)
                deadline = time.monotonic() + SECONDS
                while stop.heard is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            assert stop.heard == signal.SIGUSR2
            assert [signal.getsignal(number) for number in ALL] == before
            assert signal.set_wakeup_fd(writer) == writer
        deadline = time.monotonic() + SECONDS
        while threading.active_count() > threads:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)


def test_outside_the_main_thread_handlers_stay_as_they_are() -> None:
    before = [signal.getsignal(number) for number in ALL]
    seen: list[bool] = []

    def run() -> None:
        with StopSignals() as stop:
            stop.hold()
            seen.append([signal.getsignal(number) for number in ALL] == before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [True]
