"""A recorder of many cameras: several processes of up to ``recorder.cameras_per_process`` cameras each.

Each is a whole recorder of its share of the cameras, with their part of the spool; one that dies is started
again, and the others go on. What they show in metrics is shown as one. A process ends with its supervisor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Stop

from videostore import telemetry
from videostore.config.follow import Followed
from videostore.config.site import Site
from videostore.domain.camera import Camera, CameraId, is_dropped
from videostore.domain.errors import ConfigInvalid
from videostore.durable import write_file

log = telemetry.logger("app")

SHARES = "shares.json"

_PATIENCE_SECONDS = 20
_FOLLOW_SECONDS = 0.5
_PAUSE_SECONDS = 1.0


class Share:
    """The cameras of process ``number`` of a recorder that is ``of`` processes. What became of a camera is
    dealt with by the first."""

    def __init__(self, site: Site, number: int) -> None:
        self.number = number
        file = site.root / "run" / SHARES
        self._shares = Followed(file, lambda: read_shares(file))
        self.of = 1 + max(self._shares().values(), default=0)

    def holds(self, camera_id: CameraId) -> bool:
        return self._shares().get(str(camera_id), 0) == self.number


def read_shares(file: Path) -> dict[str, int]:
    """Return the number of the process that records each camera, by its UUID."""
    try:
        return {str(name): int(number) for name, number in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigInvalid(f"{file} cannot be read: {error}", hint="Start the recorder again.") from error


def size(site: Site) -> int:
    """Return how many processes the cameras of a site are recorded by."""
    return max(1, -(-len(_streams(site.cameras.all())) // site.settings.recorder.cameras_per_process))


def part_name(number: int) -> str:
    """Return the name under which a process of the recorder holds its duty and announces itself."""
    return f"recorder-{number}"


def run(
    site: Site,
    count: int,
    stop: Stop,
    *,
    cameras: Callable[[], Iterable[Camera]],
    beat: Callable[[], None],
) -> None:
    """Have ``count`` processes record until ``stop`` is set. ``beat`` is called while all of them run."""
    shares: dict[str, int] = {}
    _deal(site, shares, count, cameras())
    with ExitStack() as children:
        running: list[subprocess.Popen[bytes]] = []
        children.callback(_end, running)
        running.extend(_start(site, number) for number in range(count))
        died = [0.0] * count
        while not stop.wait(_FOLLOW_SECONDS):
            _deal(site, shares, count, cameras())
            for number, child in enumerate(running):
                if child.poll() is None:
                    continue
                if not died[number]:
                    died[number] = time.monotonic()
                    log.error("recorder.died", part=number, exit_code=child.returncode)
                elif time.monotonic() - died[number] >= _PAUSE_SECONDS:
                    died[number], running[number] = 0.0, _start(site, number)
            if not any(died):
                beat()


def _streams(cameras: Iterable[Camera]) -> Sequence[Camera]:
    return [one for one in cameras if one.enabled and not one.removed and not is_dropped(one)]


def _deal(site: Site, shares: dict[str, int], count: int, cameras: Iterable[Camera]) -> None:
    """Give each camera that has none the process with the fewest; no camera ever changes its process."""
    new = [one for one in cameras if str(one.id) not in shares]
    load = Counter(dict.fromkeys(range(count), 0))
    load.update(shares.values())
    for camera in new:
        number = min(load, key=lambda one: (load[one], one))
        shares[str(camera.id)] = 0 if is_dropped(camera) else number
        load[number] += not is_dropped(camera)
    if new or not (site.root / "run" / SHARES).exists():
        write_file(site.root / "run" / SHARES, json.dumps(shares).encode())


def _start(site: Site, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "videostore.cli.main", "run", "recorder", "--site", str(site.root)]
    return subprocess.Popen([*command, "--share", str(number)], stdin=subprocess.PIPE)  # noqa: S603 - our own program


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in running:
        child.terminate()
    for child in running:
        try:
            child.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
