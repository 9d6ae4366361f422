"""Real parts for the tests. One that is missing is skipped on a developer's machine and fails in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of an installed program."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed: apt-get install ffmpeg age postgresql")
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
