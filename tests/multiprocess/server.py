"""A fork server: a process that has imported everything and forks ranks for a test process.

pytest's own processes have threads and must not fork. Each that needs ranks starts a server:

    codes, output = fork_server().start("pipeline.train:main", recipe, ranks=2).end(seconds=60)
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from tests.multiprocess.forked import Ranks, die_with, fork_ranks, reap

ROOT = Path(__file__).parents[2]
ANSWER_SECONDS = 240.0
"""The first answer includes importing everything, on a busy machine."""
MESSAGE_BYTES = 1 << 16


@cache
def fork_server() -> "ForkServer":
    """Return the server of this process; the first call starts it."""
    return ForkServer()


def end_fork_server() -> None:
    """End the server of this process, if it has one."""
    if fork_server.cache_info().currsize:
        fork_server().close()
        fork_server.cache_clear()


@dataclass(frozen=True)
class Forked:
    """Ranks, and the file with their output."""

    ranks: Ranks
    output: BinaryIO

    def end(self, seconds: float) -> tuple[list[int], str]:
        """Wait for all ranks, at most `seconds`; return their exit codes and their output."""
        with self.output:
            codes = self.ranks.wait(seconds)
            self.output.seek(0)
            return codes, self.output.read().decode()


class ForkServer:
    """A connection to a new server; each message is one JSON document."""

    def __init__(self) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(ANSWER_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.multiprocess.server", str(os.getpid())],
                cwd=ROOT,
                stdin=theirs.fileno(),
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                process_group=0,  # Ctrl-C reaches only the test process, which ends the server
            )

    def start(self, program: str, *arguments: object, ranks: int) -> "Forked":
        """Start ranks that call `program`, `module:function`, with the arguments as strings."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `Forked.end`
        request = {"program": program, "arguments": [*map(str, arguments)], "ranks": ranks}
        pids = self._ask(request, output.fileno())
        return Forked(Ranks(pids, lambda pid: self._ask({"reap": pid})), output)

    def close(self) -> None:
        """End the server, and so all ranks that are still running."""
        self._requests.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def _ask(self, request: dict[str, Any], *descriptors: int) -> Any:
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            return json.loads(self._requests.recv(MESSAGE_BYTES))
        except BaseException as error:  # a late answer must not be taken for the next one
            self._output.seek(0)
            error.add_note(f"output of the fork server: {self._output.read().decode()}")
            end_fork_server()
            raise


def serve(requests: socket.socket) -> None:
    """Answer requests until the other side closes; ranks are reaped on request."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 1)
        if not message:
            return
        match json.loads(message):
            case {"program": program, "arguments": arguments, "ranks": ranks}:
                answer = fork_ranks(partial(_run, program, arguments), ranks, *descriptors)
            case {"reap": pid}:
                answer = reap(pid)
            case request:
                raise AssertionError(request)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps(answer).encode())


def _run(program: str, arguments: list[str], _rank: int) -> int | None:
    module, function = program.split(":")
    return getattr(import_module(module), function)(arguments)


def import_everything() -> None:
    """Import what takes seconds."""
    for module in (
        "pipeline.train",
        "pipeline.loaders.dali",
        "pipeline.distributed.health",
    ):
        import_module(module)
    from pipeline.engines.deepspeed import _import_deepspeed

    _import_deepspeed()


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    import_everything()
    with socket.socket(fileno=0) as requests:
        serve(requests)
