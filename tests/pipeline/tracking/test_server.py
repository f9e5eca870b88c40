"""Asking a tracking server over HTTP, with and without the right password."""

import base64
import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.tracking.mlflow_client import client_environment
from pipeline.tracking.server import experiment_ids, why_not_ready, why_silent
from pipeline.tracking.store_uri import public_uri, split_credentials

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Guarded(http.server.BaseHTTPRequestHandler):
    """Shows its experiments only to me:a@b, or with a token."""

    accepted = (f"Basic {base64.b64encode(b'me:a@b').decode()}", "Bearer t0ken")

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") in self.accepted
        self.send_response(200 if known or self.path == "/health" else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"experiments": [{"experiment_id": "3"}]}).encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """Yield the host and port of a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def anonymous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have no password; return the home folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_missing_password_is_reported_with_the_remedy() -> None:
    with serving() as place:
        assert why_silent(f"http://{place}").startswith("HTTP Error 401")
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in why_silent(
            f"http://{place}"
        )
        said = why_silent(f"http://me:s3cr3t@{place}")
        assert "s3cr3t" not in said
        assert said.startswith("HTTP Error 401")
        assert experiment_ids(f"http://{place}") == []


def test_the_password_comes_from_the_address_the_environment_or_the_file_of_mlflow(
    anonymous: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as place:
        assert why_silent(f"http://me:a@b@{place}") == ""
        assert why_silent(f"http://me:a%40b@{place}/") == ""
        assert experiment_ids(f"http://me:a@b@{place}") == ["3"]
        (anonymous / ".mlflow").mkdir()
        (anonymous / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = a@b\n"
        )
        assert why_silent(f"http://{place}") == ""
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")  # goes before the file
        assert why_silent(f"http://{place}") != ""
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a@b")
        assert why_silent(f"http://{place}") == ""


def test_a_token_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    with serving() as place:
        assert why_silent(f"http://{place}") == ""


def test_what_is_not_a_server_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert why_silent(address) == "its answer is not HTTP: BadStatusLine"


def test_mlflow_gets_the_password_apart_from_the_address() -> None:
    assert split_credentials("http://me:a@b@host:5000/x") == ("http://host:5000/x", "me", "a@b")
    assert public_uri("http://me:a@b@host:5000/x") == "http://host:5000/x"
    assert public_uri("postgresql://me:a@db/m") == "postgresql://me:***@db/m"
    settings = client_environment("http://me:a%40b@host:5000/x")
    assert settings["MLFLOW_TRACKING_USERNAME"] == "me"
    assert settings["MLFLOW_TRACKING_PASSWORD"] == "a@b"
    assert "MLFLOW_TRACKING_PASSWORD" not in client_environment("http://host:5000")


@pytest.mark.process
def test_a_server_that_is_not_ready_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    with subprocess.Popen(["sleep", "60"]) as server:
        said = why_not_ready(server, f"http://127.0.0.1:{port}", 0.3)
        server.kill()
    assert said == "did not answer within 0.3 seconds"
    with subprocess.Popen(["false"]) as server:
        said = why_not_ready(server, f"http://127.0.0.1:{port}", 60)
    assert said.startswith("ended with exit code 1 after ")
