"""Ends the fork server of a test process, if it started one."""

from collections.abc import Generator

import pytest

from tests.multiprocess.server import end_fork_server


@pytest.fixture(scope="session", autouse=True)
def fork_server_ends() -> Generator[None]:
    yield
    end_fork_server()
