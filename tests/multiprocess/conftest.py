"""A test process that has started a fork server ends it."""

from collections.abc import Generator

import pytest

from tests.multiprocess.server import end_fork_server


@pytest.fixture(scope="session", autouse=True)
def fork_server_ends() -> Generator[None]:
    yield
    end_fork_server()
