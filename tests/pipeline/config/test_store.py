"""A store that MLflow refuses for good is refused when the configuration is loaded."""

from pathlib import Path

import pytest

from pipeline.config.load import ConfigError, load
from pipeline.config.schema import Tracking
from pipeline.config.schema.store import usable_store
from pipeline.tracking.store_uri import requested_uri
from pipeline.tracking.tracker import expect_usable_store
from tests.support.recipes import GOOD

USABLE = [
    "http://host:5000",
    "https://host/mlflow",
    "http://[::1]:5000",
    "sqlite:///mlflow.db",
    "sqlite:////home/me/mlflow.db",
    "postgresql://me@db/mlflow",
    "mysql+pymysql://me@db/mlflow",
    "databricks",
    "databricks://profile",
]
REFUSED = {
    "mlruns": "is a folder",
    "./mlruns": "is a folder",
    "/home/me/mlruns": "is a folder",
    "file:./mlruns": "is a folder",
    "file:///home/me/mlruns": "is a folder",
    "ftp://host/x": "starts with ftp:, and MLflow has no such store",
    "s3://bucket/x": "starts with s3:, and MLflow has no such store",
    "postgres://me@db/mlflow": "starts with postgres:, and MLflow has no such store",
    "host:5000": "starts with host:, and MLflow has no such store",
    "http://": "is not the address of a server",
    "http:/host": "is not the address of a server",
    "http://host:port": "is not the address of a server",
    "http://[::1": "is not the address of a server",
    "sqlite://": "does not name a file",
    "sqlite:///:memory:": "does not name a file",
    "sqlite:mlflow.db": "does not name a file",
}


@pytest.mark.parametrize("uri", USABLE)
def test_stores_of_mlflow_are_accepted(uri: str) -> None:
    assert usable_store(uri) == uri


@pytest.mark.parametrize("uri", REFUSED)
def test_other_addresses_are_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    for key in ("tracking.uri", "env.MLFLOW_TRACKING_URI"):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / "good.yaml", [f"{key}='{uri}'"])
        assert REFUSED[uri] in str(caught.value)
        assert "write " in str(caught.value)
    with pytest.raises(ValueError, match=r"^--uri ") as refused:
        requested_uri(tmp_path, uri)
    assert REFUSED[uri] in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI=") as refused:
        expect_usable_store(Tracking())
    assert REFUSED[uri] in str(refused.value)


def test_the_variable_matters_only_if_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    expect_usable_store(Tracking(mlflow=False))
    expect_usable_store(Tracking(uri="http://host:5000"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    expect_usable_store(Tracking())


def test_a_password_on_a_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can see the command line") as refused:
        requested_uri(tmp_path, "http://me:s3cr3t@host")
    assert "s3cr3t" not in str(refused.value)
    assert "MLFLOW_TRACKING_URI" in str(refused.value)
