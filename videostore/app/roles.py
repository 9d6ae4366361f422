"""The roles of a site, one process each: recorder, retention, gate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event as Stop
from threading import Thread
from typing import Final

from videostore import telemetry
from videostore.app import crew
from videostore.app.disks import disks, places, show_disks
from videostore.app.endpoints import announce, asked_of, metrics_of
from videostore.app.host import host_time, watchdog
from videostore.app.parts import Parts, sweep
from videostore.app.recovery import show_backups
from videostore.config.follow import Followed
from videostore.config.site import Site
from videostore.domain.errors import PromiseBroken
from videostore.retention.service import RetentionService

log = telemetry.logger("app")

ROLES: Final = ("recorder", "retention", "gate")


def run(site: Site, role: str, stop: Stop, *, share: int | None = None) -> None:
    """Run a role, or one process of each, until ``stop`` is set. Raises SiteBusy if it runs already.

    ``share`` is the number of this process, of a recorder that is several.
    """
    if role == "all":
        _run_all(site, stop)
        return
    if share is not None:
        _run_share(site, share, stop)
        return
    name = next(one for one in ROLES if one == role)
    if name == "recorder" and (count := crew.size(site)) > 1:
        _run_crew(site, count, stop)
        return
    with site.duty(name), Parts(site, role=name) as parts:
        if name == "recorder":
            from videostore.app.recorder import run_recorder

            run_recorder(parts, stop)
        elif name == "gate":
            from videostore.app.gate import run_gate

            run_gate(parts, stop)
        else:
            _run_retention(parts, stop)


def _run_crew(site: Site, count: int, stop: Stop) -> None:
    def urls() -> list[str]:
        running = site.running()
        parts = (running.get(crew.part_name(number)) for number in range(count))
        return [str(one["metrics"]) for one in parts if one]

    def lacking() -> str:
        return "" if len(urls()) == count else "a process of the recorder does not run"

    asked = {"/healthz": lambda: "", "/readyz": lacking}
    with site.duty("recorder"), metrics_of(site, "recorder", asked=asked, together=urls) as metrics:
        announce(site, "recorder", {"metrics": metrics})
        cameras = Followed(site.root / "cameras.yaml", site.cameras.all)
        crew.run(site, count, stop, cameras=cameras, beat=watchdog())


def _run_share(site: Site, number: int, stop: Stop) -> None:
    """Be one process of the recorder, until ``stop`` is set or the supervisor is no more."""

    def follow() -> None:
        sys.stdin.read()
        stop.set()

    from videostore.app.recorder import run_recorder

    Thread(target=follow, name="supervisor", daemon=True).start()
    name = crew.part_name(number)
    with site.duty(name), Parts(site, role="recorder", share=crew.Share(site, number)) as parts:
        run_recorder(parts, stop)


def _run_retention(parts: Parts, stop: Stop) -> None:
    walls, interval = parts.walls, parts.site.settings.retention.sweep
    show_disks(disks({name: path for name, path in places(parts.site).items() if name != "spool"}))
    show_backups(parts.site)
    service = RetentionService(sweep(parts), clock=parts.clock, interval=interval)
    with (
        metrics_of(parts.site, "retention", asked=asked_of(parts, "retention")) as metrics,
        _beside("walls", None if walls is None else partial(walls.watch, host_time)),
        _beside("anchoring", parts.anchoring.run if parts.site.settings.ledger.anchors else None),
    ):
        announce(parts.site, "retention", {"metrics": metrics})
        service.run(stop)


@contextmanager
def _beside(name: str, run: Callable[[Stop], None] | None) -> Iterator[None]:
    """Run something else meanwhile, in a thread: whatever becomes of it, keys are destroyed on time."""
    if run is None:
        yield
        return
    end = Stop()
    thread = Thread(target=run, args=(end,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_PATIENCE_SECONDS)


def _run_all(site: Site, stop: Stop) -> None:
    """One process a role. One that dies is started again; one that cannot start ends all."""
    with site.duty("all"), ExitStack() as children:
        running: dict[str, subprocess.Popen[bytes]] = {}
        for role in ROLES:
            running[role] = _start(site, role)
            children.callback(_end_role, running, role)
        while not stop.wait(0.2):
            for role, child in running.items():
                code = child.poll()
                if code is None:
                    continue
                refused = code == PromiseBroken.exit_code  # the others go on: retention above all
                if code > 1 and not refused:  # it said why, and would say it again
                    sys.exit(code)
                log.error("role.died", role=role, exit_code=code)
                stop.wait(_REFUSED_SECONDS if refused else 1.0)
                if not stop.is_set():
                    running[role] = _start(site, role)


def _start(site: Site, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "videostore.cli.main", "run", role, "--site", str(site.root)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program


def _end_role(running: Mapping[str, subprocess.Popen[bytes]], role: str) -> None:
    child = running[role]
    child.terminate()
    try:
        child.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


_PATIENCE_SECONDS = 20
_REFUSED_SECONDS = 60
