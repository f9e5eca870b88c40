"""Fixtures for preparing data."""

import os
from collections.abc import Generator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_sync() -> Generator[None]:
    """Tests do not wait until everything on this machine is on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        yield
