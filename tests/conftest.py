"""Real parts for the tests. One that is missing is skipped on a developer's machine and fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import servers

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # bench/ measures speed
settings.register_profile("videostore", UNTIMED)
settings.register_profile("deep", UNTIMED, max_examples=5000)  # --hypothesis-profile=deep
settings.load_profile("videostore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that share an id pytest-xdist runs the first, and says nothing."""
    assert len({item.nodeid for item in items}) == len(items), "two tests have one id"


def program(name: str) -> str:
    """Return the path of an installed program."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed: apt-get install ffmpeg age postgresql prometheus")
    return str(path)


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def age_program() -> str:
    return program("age")


@pytest.fixture(scope="session")
def ffprobe_program() -> str:
    return program("ffprobe")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        missing("PostgreSQL is not installed: apt-get install postgresql")
    with servers.postgresql(tmp_path_factory.mktemp("postgresql")) as url:
        yield url
