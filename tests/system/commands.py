"""The ``videostore`` program as a person runs it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import until

PROGRAM = [sys.executable, "-m", "videostore.cli.main"]


def videostore(*args, site=None, home=None, env=None, prefix=()):
    """Run a command to its end and return it, with output as text."""
    environment = {**os.environ, "COLUMNS": "200", **(env or {})}
    environment.pop("VIDEOSTORE_SITE", None)
    if site is not None:
        environment["VIDEOSTORE_SITE"] = str(site)
    if home is not None:
        environment["VIDEOSTORE_SESSION"] = str(home)
    return subprocess.run(
        [*prefix, *PROGRAM, *map(str, args)], capture_output=True, text=True, env=environment, check=False
    )


def said(*args, **how):
    """Run a command that must succeed; return what it printed."""
    done = videostore(*args, **how)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def facts(*args, **how):
    """Run a command that must succeed with --json; return its last line."""
    return json.loads(said(*args, "--json", **how).splitlines()[-1])


class Running:
    """A role of a site as a process."""

    def __init__(self, site: Path, role: str, env=None) -> None:
        self.site, self.role = site, role
        self.log = site / f"{role}.log"
        command = [*PROGRAM, "run", role, "--site", str(site)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
            )

    def wait_until_it_runs(self, *roles: str) -> None:
        names = roles or (self.role,)
        until(lambda: all((self.site / "run" / f"{name}.json").exists() for name in names),
              seconds=60, why=self.log.read_text)  # fmt: skip

    def kill(self) -> None:
        """As a power cut would end it."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(site: Path, role: str, env=None) -> Iterator[Running]:
    """Run a role, and end it whatever happens."""
    one = Running(site, role, env)
    try:
        one.wait_until_it_runs(*(("recorder", "retention", "gate") if role == "all" else ()))
        yield one
    finally:
        if one.process.poll() is None:
            one.end()


def make_site(directory: Path, *, segment="2s") -> Path:
    """Make a site that listens on free ports and cuts short segments."""
    said("init", directory, "--name", "test")
    path = directory / "videostore.yaml"
    settings = {
        "recorder": {"segment": segment, "stall": "3s"},
        "metrics": dict.fromkeys(("recorder", "retention", "gate"), "127.0.0.1:0"),
        "gate": {"listen": "127.0.0.1:0"},
    }
    lines = [
        "version: 1",
        "site: test",
        *(f"{name}: {json.dumps(value)}" for name, value in settings.items()),
    ]
    path.write_text("\n".join(lines) + "\n")
    return directory
