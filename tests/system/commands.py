"""The ``videostore`` program as a person runs it: a process, its output, its exit code."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

from tests.servers import until

PROGRAM = [sys.executable, "-m", "videostore.cli.main"]
COLUMNS = "200"


def videostore(*args, site=None, home=None, env=None, prefix=()):
    """Run a command to its end and return it, with output as text.

    It is a process of its own, forked from one that has loaded the program: a person waits for that once, a
    hundred tests need not. With ``env`` or ``prefix`` it begins from nothing, as roles do.
    """
    environment = {**os.environ, "COLUMNS": COLUMNS, **(env or {})}
    environment.pop("VIDEOSTORE_SITE", None)
    if site is not None:
        environment["VIDEOSTORE_SITE"] = str(site)
    if home is not None:
        environment["VIDEOSTORE_SESSION"] = str(home)
    command = [*map(str, args)]
    if env is None and not prefix:
        return _loaded().run(command, environment)
    return subprocess.run(
        [*prefix, *PROGRAM, *command], capture_output=True, text=True, env=environment, check=False
    )


class Loaded:
    """A process that has loaded the program, and forks for each command. It ends with its line."""

    _PROGRAM = """
import json, os, socket, sys
import videostore.catalogue.sql
from videostore.cli.main import main
line = socket.socket(fileno=int(sys.argv[1]))
while True:
    told, files, _, _ = socket.recv_fds(line, 1 << 20, 2)
    if not told:
        sys.exit()
    child = os.fork()
    if not child:
        break
    for file in files:
        os.close(file)
    line.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
line.close()
for number, file in enumerate(files, start=1):
    os.dup2(file, number)
    os.close(file)
arguments, environment, directory = json.loads(told)
os.chdir(directory)
os.environ.clear()
os.environ.update(environment)
sys.argv = ["videostore", *arguments]
main()
"""

    def __init__(self) -> None:
        self._line, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self._PROGRAM, str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "COLUMNS": COLUMNS},
                process_group=0,
            )
        self._busy = Lock()
        atexit.register(self._end)

    def run(self, command, environment):
        """Run ``videostore`` with these arguments and return it."""
        told = json.dumps([command, environment, str(Path.cwd())]).encode()
        with self._busy, TemporaryFile() as out, TemporaryFile() as err:
            try:
                socket.send_fds(self._line, [told], [out.fileno(), err.fileno()])
                code = int(self._line.recv(16))
            except BaseException:  # whoever asks next would hear this one's answer
                os.killpg(self._process.pid, signal.SIGKILL)
                _loaded.cache_clear()
                raise
            said = [file.seek(0) or file.read().decode() for file in (out, err)]
        return subprocess.CompletedProcess(command, code, *said)

    def _end(self) -> None:
        self._line.close()
        self._process.wait()


_loaded = cache(Loaded)


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
        "recorder": {"segment": segment},
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
