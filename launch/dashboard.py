"""Show the runs in a browser: `python launch/dashboard.py [--runs-dir runs]`.

Starts MLflow's own server on the store that the runs ship to, opens the charts, and stops it with
Ctrl-C. What earlier runs could not ship is shipped now.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.system.extras import expect_installed
from pipeline.tracking.sidecar import unshipped_runs
from pipeline.tracking.store_uri import (
    ARTIFACTS_DIR,
    default_uri,
    sqlite_file,
    without_password,
)

PORTS_TRIED = 20
READY_SECONDS = 180.0
PRIVATE_NETWORKS = ("10.*", "192.168.*", *(f"172.{second}.*" for second in range(16, 32)))
SERVER_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # serves language models; a gigabyte of memory
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return 0, 2 for a mistake of the user's, 1 if the server fails."""
    options = _parser().parse_args(argv)
    uri = default_uri(options.runs_dir, options.uri)
    try:
        if uri.startswith(("http://", "https://")):
            show(uri.rstrip("/"), browser=options.browser)
            return 0
        expect_installed("mlflow", needed_by="the dashboard")
        check_store(uri, options.runs_dir)
        port = free_port(options.host, options.port)
    except ValueError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 2
    if port != options.port:
        print(f"Port {options.port} is taken; using {port}.")
    return serve(uri, options, port)


def serve(uri: str, options: argparse.Namespace, port: int) -> int:
    """Run the server until Ctrl-C, SIGTERM or a closed terminal; no process of it stays."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    host: str = options.host
    address = f"http://{_name_for_browser(host)}:{port}"
    command = server_command(uri, options.runs_dir, host, port)
    try:
        with tempfile.TemporaryFile() as log, running(command, uri, log) as server:
            print(f"Starting MLflow on {without_password(uri)} ...", flush=True)
            if not wait_until_ready(server, f"http://{_reachable(host)}:{port}/health"):
                log.seek(0)
                tail = log.read().decode(errors="replace")[-2000:]
                print(f"dashboard: the MLflow server did not start:\n{tail}", file=sys.stderr)
                return 1
            ship_the_rest(options.runs_dir, uri)
            local = f"http://{_reachable(host)}:{port}"
            show(address, browser=options.browser, ask=local)
            _say_how_to_reach(host, port)
            server.wait()
            print("dashboard: the MLflow server ended by itself", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0


def check_store(uri: str, runs_dir: Path) -> None:
    """Raise `ValueError` if `uri` is an sqlite file that is not there."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise ValueError(
            f"there is no MLflow store at {file}; it appears with the first run under {runs_dir} "
            "(give --runs-dir or --uri if your runs are elsewhere)"
        )


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody has; raise `ValueError` if there is none."""
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=1)[0]
        except socket.gaierror as error:
            raise ValueError(f"--host {host}: {error.strerror}") from error
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(where)
                return port
    raise ValueError(
        f"--port {first}: no free port at {host} up to {first + PORTS_TRIED - 1}; give another"
    )


def server_command(uri: str, runs_dir: Path, host: str, port: int) -> list[str]:
    """The command line of one lean MLflow server."""
    beside = sqlite_file(uri) or runs_dir.resolve()
    command = [sys.executable, "-P", "-m", "mlflow", "server"]
    command += ["--artifacts-destination", str(beside.parent / ARTIFACTS_DIR)]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    if not _is_loopback(host):
        # By default the server answers to addresses only, and takes requests of its own pages
        # for foreign ones unless it knows the name in the browser's address bar.
        names = _own_names(host)
        hosts = [*names, "localhost", "127.0.0.1", *PRIVATE_NETWORKS]
        hosts += [f"{name}:*" for name in hosts if "*" not in name]
        command += ["--allowed-hosts", ",".join(hosts)]
        origins = [f"http://{name}:{port}" for name in (*names, *PRIVATE_NETWORKS)]
        command += ["--cors-allowed-origins", ",".join(origins)]
    return command


@contextlib.contextmanager
def running(command: list[str], uri: str, log: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """Run `command` in a process group of its own, and end the whole group afterwards."""
    # Not on the command line, where everybody would see a password.
    environment = os.environ | SERVER_ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": uri}
    server = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until `address` answers; False if the server ends first or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return True
        time.sleep(0.2)
    return False


def ship_the_rest(runs_dir: Path, uri: str) -> None:
    """Ship in the background what finished runs could not ship in their time."""
    behind = unshipped_runs(runs_dir, uri)
    if behind:
        print(f"Shipping what is left of {len(behind)} run{'s' if len(behind) > 1 else ''} ...")
        command = [sys.executable, "-P", "-m", "pipeline.tracking.ship"]
        subprocess.Popen(
            [*command, *map(str, behind)],
            env=os.environ | {"MLFLOW_TRACKING_URI": uri},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def show(address: str, *, browser: bool, ask: str | None = None) -> None:
    """Print where the charts are, and open them."""
    link = chart_link(address, experiments(ask or address))
    print(f"Dashboard: {link}", flush=True)
    if browser:
        webbrowser.open(link)


def chart_link(address: str, experiment_ids: Sequence[str]) -> str:
    """The page with the charts of the one experiment, or else the list of experiments."""
    if len(experiment_ids) != 1:
        return f"{address}/#/experiments"
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"{address}/#/experiments/{experiment_ids[0]}/runs?{view}"


def experiments(address: str) -> list[str]:
    """Ids of the experiments of a server, but for MLflow's own empty one; [] if it is silent."""
    request = urllib.request.Request(  # noqa: S310
        f"{address}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 100}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            found: list[dict[str, Any]] = json.load(reply).get("experiments", [])
    except (OSError, ValueError):
        return []
    return [each["experiment_id"] for each in found if each["experiment_id"] != "0"]


def _say_how_to_reach(host: str, port: int) -> None:
    if _is_loopback(host):
        print(f"From another machine: ssh -L {port}:localhost:{port} {socket.gethostname()}")
    else:
        print("Anyone who reaches this port can read, change and delete runs.")
    print("Stop with Ctrl-C.", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound


def _own_names(host: str) -> list[str]:
    names = [socket.gethostname(), socket.getfqdn()] + ([] if _is_any(host) else [host])
    return list(dict.fromkeys(names))


def _name_for_browser(host: str) -> str:
    return socket.gethostname() if _is_any(host) else host


def _reachable(host: str) -> str:
    return "127.0.0.1" if _is_any(host) else host


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument(
        "--uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, or beside the runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=5000, help="port, or the next free one")
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="only print the link"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
