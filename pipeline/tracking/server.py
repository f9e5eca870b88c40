"""MLflow's own server: started on a store, and asked over HTTP without importing MLflow."""

import base64
import configparser
import contextlib
import http.client
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from pipeline.tracking.store_uri import ARTIFACTS_DIR, is_server, split_credentials, sqlite_file

ANSWER_SECONDS = 5.0
READY_SECONDS = 180.0
END_SECONDS = 10.0
PORTS_TRIED = 20
EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=100"
PASSWORD_REMEDY = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - names
PRIVATE_NETWORKS = ("10.*", "192.168.*", *(f"172.{second}.*" for second in range(16, 32)))
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for language models; takes 1 GB of memory
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def why_silent(uri: str) -> str:
    """Return why the server at `uri` does not answer; empty if it does or is not a server."""
    if not is_server(uri):
        return ""
    try:
        ask(uri, "/health")
        ask(uri, EXPERIMENTS)  # only this needs the password
    except urllib.error.HTTPError as error:
        wants_password = error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        return f"{error}; {PASSWORD_REMEDY}" if wants_password else str(error)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def experiment_ids(uri: str) -> list[str]:
    """Return a server's experiments, without MLflow's empty default; [] if it does not answer."""
    try:
        found: list[dict[str, Any]] = json.loads(ask(uri, EXPERIMENTS)).get("experiments", [])
    except (OSError, ValueError):
        return []
    return [each["experiment_id"] for each in found if each["experiment_id"] != "0"]


def ask(uri: str, path: str) -> bytes:
    """Return the server's answer, asked with the same user and password as MLflow would.

    Raises OSError or `ValueError` if it has none; their messages do not contain the password.
    """
    address, user, password = split_credentials(uri)
    request = urllib.request.Request(f"{address.rstrip('/')}{path}")  # noqa: S310 - http or https
    if header := _authorization(user, password):
        request.add_unredirected_header("Authorization", header)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as reply:  # noqa: S310
            return reply.read()
    except http.client.HTTPException as error:  # something else listens there
        raise OSError(f"its answer is not HTTP: {type(error).__name__}") from error


def _authorization(user: str, password: str) -> str:
    """Return the header that MLflow sends: from the URI, the environment or MLflow's own file."""
    if not user:
        file = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(OSError, ValueError, RuntimeError, configparser.Error):
            file.read(Path.home() / ".mlflow" / "credentials")
        user, password = (
            os.environ.get(name) or file.get("mlflow", name.lower(), fallback="")
            for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        )
    if user and password:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else ""


def chart_link(address: str, experiments: Sequence[str]) -> str:
    """Return the page with the charts of the only experiment, or the list of experiments."""
    if len(experiments) != 1:
        return f"{address}/#/experiments"
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"{address}/#/experiments/{experiments[0]}/runs?{view}"


def server_command(uri: str, runs_dir: Path, host: str, port: int) -> list[str]:
    """Return the command line of a server with one worker."""
    beside = sqlite_file(uri) or runs_dir.resolve()
    command = [sys.executable, "-P", "-m", "mlflow", "server"]
    command += ["--artifacts-destination", str(beside.parent / ARTIFACTS_DIR)]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    if not is_loopback(host):
        # By default the server only answers to addresses, and rejects requests from its own pages
        # if the browser opened them by name.
        own = [] if is_any(host) else [host]
        names = list(dict.fromkeys([socket.gethostname(), socket.getfqdn(), *own]))
        hosts = [*names, "localhost", "127.0.0.1", *PRIVATE_NETWORKS]
        hosts += [f"{name}:*" for name in hosts if "*" not in name]
        command += ["--allowed-hosts", ",".join(hosts)]
        origins = [f"http://{name}:{port}" for name in (*names, *PRIVATE_NETWORKS)]
        command += ["--cors-allowed-origins", ",".join(origins)]
    return command


def free_port(host: str, first: int) -> int:
    """Return the first free port from `first` on; raise `ValueError` if none is free."""
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise ValueError(f"--host {host}: {error.strerror}") from error
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            return port
    raise ValueError(
        f"--port {first}: no free port at {host} up to {first + PORTS_TRIED - 1}; give another"
    )


@contextlib.contextmanager
def running(command: list[str], uri: str, log: IO[bytes]) -> Generator["subprocess.Popen[bytes]"]:
    """Run a server on the store `uri` during the block; all of its processes end with it."""
    # A password on the command line would be visible to all users.
    environment = os.environ | ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": uri}
    server = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def why_not_ready(
    server: "subprocess.Popen[bytes]", address: str, seconds: float = READY_SECONDS
) -> str:
    """Wait until `address` answers, and return ""; else return what happened instead."""
    start = time.monotonic()
    while server.poll() is None:
        if not why_silent(address):
            return ""
        if time.monotonic() - start >= seconds:
            return f"did not answer within {seconds:g} seconds"
        time.sleep(0.2)
    return f"ended with exit code {server.returncode} after {time.monotonic() - start:.0f} seconds"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_any(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    return host in ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound
