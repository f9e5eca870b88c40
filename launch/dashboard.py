"""Show the runs in a browser: `python launch/dashboard.py [--runs-dir runs]`.

Starts MLflow's own server on the store of the runs, opens the charts, and stops it with Ctrl-C.
Events that earlier runs could not send to the store are sent now.
"""

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from pipeline.system.command import Parser, count, plural, run_command
from pipeline.system.exit_codes import FAILURE
from pipeline.system.extras import expect_installed
from pipeline.tracking.server import (
    chart_link,
    experiment_ids,
    free_port,
    is_any,
    is_loopback,
    running,
    server_command,
    why_not_ready,
)
from pipeline.tracking.sidecar import LOG, shipping_environment, unshipped_runs
from pipeline.tracking.store_uri import (
    is_server,
    public_uri,
    requested_uri,
    sqlite_file,
    without_password,
)

TAIL_BYTES = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return 0, 2 for a user's mistake, 1 if the server fails."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: show_store(options), name="dashboard.py")


def show_store(options: argparse.Namespace) -> int:
    """Link to the store if it is a server, else serve it; return the exit code."""
    uri = requested_uri(options.runs_dir, options.uri)
    if is_server(uri):
        ship_the_rest(options.runs_dir, uri)
        show(public_uri(uri).rstrip("/"), browser=options.browser, ask=uri)
        return 0
    expect_installed("mlflow", needed_by="the dashboard")
    check_store(uri, options.runs_dir)
    port = free_port(options.host, options.port)
    if port != options.port:
        print(f"Port {options.port} is in use; using {port}.")
    return serve(uri, options, port)


def serve(uri: str, options: argparse.Namespace, port: int) -> int:
    """Run the server until Ctrl-C, SIGTERM or SIGHUP; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    host: str = options.host
    local = f"http://{'127.0.0.1' if is_any(host) else host}:{port}"
    address = f"http://{socket.gethostname()}:{port}" if is_any(host) else local
    command = server_command(uri, options.runs_dir, host, port)
    try:
        with tempfile.TemporaryFile() as log, running(command, uri, log) as server:
            print(f"Starting MLflow on {public_uri(uri)} ...", flush=True)
            if trouble := why_not_ready(server, local):
                log.seek(0)
                tail = without_password(log.read().decode(errors="replace"))[-TAIL_BYTES:]
                print(f"dashboard.py: the MLflow server {trouble}:\n{tail}", file=sys.stderr)
                return FAILURE
            ship_the_rest(options.runs_dir, uri)
            show(address, browser=options.browser, ask=local)
            print(access_note(host, port), "Stop with Ctrl-C.", sep="\n", flush=True)
            server.wait()
            print("dashboard.py: the MLflow server ended unexpectedly", file=sys.stderr)
            return FAILURE
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0


def check_store(uri: str, runs_dir: Path) -> None:
    """Raise `ValueError` if `uri` is a missing sqlite file."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise ValueError(
            f"no MLflow store at {file}; the first run under {runs_dir} creates it (give --runs-dir"
            " or --uri if your runs are elsewhere)"
        )


def ship_the_rest(runs_dir: Path, uri: str) -> None:
    """Send, in the background, events that earlier runs could not send."""
    behind = unshipped_runs(runs_dir, uri)
    if not behind:
        return
    path = runs_dir / LOG
    try:
        with path.open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.tracking.ship", *map(str, behind)],
                env=shipping_environment(uri),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        print(f"Sending the rest of {plural(len(behind), 'run')}; see {path}")
    except OSError as error:  # a reader of somebody else's runs
        print(f"dashboard.py: unsent events stay in the run folders: {error}", file=sys.stderr)


def show(address: str, *, browser: bool, ask: str | None = None) -> None:
    """Print the link to the charts, and open it; `ask` is the server's URI from here."""
    link = chart_link(address, experiment_ids(ask or address))
    print(f"Dashboard: {link}", flush=True)
    if browser:
        webbrowser.open(link)


def access_note(host: str, port: int) -> str:
    """Return how to reach the server from another machine, or a warning if everybody can."""
    if is_loopback(host):
        return f"From another machine: ssh -L {port}:localhost:{port} {socket.gethostname()}"
    return "Anyone who can reach this port can read, change and delete runs."


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python launch/dashboard.py", description=__doc__)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument(
        "--uri", help="MLflow store (default: $MLFLOW_TRACKING_URI, or mlflow.db beside the runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=count, default=5000, help="port, or the next free one")
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="only print the link"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
