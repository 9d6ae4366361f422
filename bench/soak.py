"""Record many cameras under random faults, and account for every frame they sent: ``python bench/soak.py``.

A real recorder process records synthetic cameras of every kind (H.264 with and without B-frames, H.265,
MJPEG; TCP and UDP). Meanwhile, at random: cameras stall, hang up, hang in DESCRIBE, lose packets, jump in
time, change their picture and lie about the time; in the first half of the run the recorder is killed
and restarted, and the store goes away. In the end every frame that left a camera must be stored, byte for
byte, or lie in a gap with a reason; if one does not, the exit code is 1, and the site stays for a look.

Memory growth is the slope of the recorder's PSS over the second half, when it is not restarted; below ten
minutes it is mostly noise. The last line with ``--json`` is one object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np

from videostore import app as composition
from videostore.config.site import Site
from videostore.domain.camera import Camera, Transport
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, Gap, GapReason, Span
from videostore.synthetic.accounting import Account, account
from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import Stream, stream

SETTINGS = """\
version: 1
site: soak
recorder: {segment: 10s, stall: 3s}
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
"""
FILMS: dict[str, Callable[[], Stream]] = {
    "h264": lambda: stream(4),
    "h264-b": lambda: stream(4, b_frames=2),
    "hevc": lambda: stream(4, codec="hevc"),
    "mjpeg": lambda: stream(4, 320, 176, codec="mjpeg"),
    "h264-small": lambda: stream(4, 320, 180),
}
KINDS = ["h264", "h264", "h264-b", "hevc", "mjpeg"]
"""Of the cameras, in turn."""
SECONDS_BETWEEN = 40.0
"""Mean time between two faults of one camera."""
FAULTS: dict[str, tuple[dict[str, object], float]] = {
    "stall": ({"silent": True}, 8.0),
    "abort": ({"away": True}, 3.0),
    "hang": ({"silent": True, "hangs": "DESCRIBE"}, 12.0),
    "loss": ({"loss": 0.01}, 15.0),
    "jump": ({"jump_seconds": 86_400.0}, 10.0),
    "clock": ({"clock_offset_seconds": -7200.0}, 15.0),
    "picture": ({"film": "h264-small"}, 8.0),
}
"""What is set, and for how many seconds."""
OUTAGES = {"kill": 1.0, "restart": 1.0, "store away": 10.0}


# --- the cameras: a process of their own ---


def serve(count: int) -> None:
    """Be the cameras: obey the lines of stdin, then print what was sent."""
    sources = [SyntheticCamera(f"camera{number}", FILMS[_kind(number)]()) for number in range(count)]
    with SyntheticServer(sources) as server:
        print(json.dumps([server.url(source.path) for source in sources]), flush=True)
        for line in sys.stdin:
            number, changes = json.loads(line)
            for name, value in changes.items():
                setattr(sources[number], *(("stream", FILMS[value]()) if name == "film" else (name, value)))
    print(json.dumps([source.sent for source in sources]), flush=True)


def _kind(number: int) -> str:
    return KINDS[number % len(KINDS)]


class Cameras:
    def __init__(self, count: int) -> None:
        command = [sys.executable, __file__, "--serve", str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.urls: list[str] = json.loads(self._process.stdout.readline())

    def change(self, number: int, changes: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, changes]) + "\n")
        self._process.stdin.flush()

    def end(self) -> list[list[tuple[int, float]]]:
        answer = json.loads(self._process.communicate()[0])
        return [[(number, captured) for number, captured in sent] for sent in answer]


# --- the recorder ---


class Recorder:
    """The real program, as a process. ``memory`` is ``(Unix time, PSS in MB)`` of its present life."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.memory: list[tuple[float, float]] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "videostore.cli.main", "run", "recorder", "--site", str(self._root)]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.memory = []

    def end(self, how: signal.Signals) -> float:
        """Return how many seconds it took."""
        began = time.monotonic()
        self._process.send_signal(how)
        self._process.wait()
        return time.monotonic() - began

    def measure(self) -> None:
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        pss = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        self.memory.append((time.time(), pss))


# --- the run ---


class Soak:
    def __init__(self, count: int, seconds: float, luck: random.Random, directory: Path) -> None:
        self._count, self._seconds, self._luck = count, seconds, luck
        self._root = directory / "site"
        self.injected: Counter[str] = Counter()
        composition.create(self._root, name="soak", overrides={"videostore.yaml": SETTINGS})
        self._site = Site.load(self._root)
        self._cameras = Cameras(count)
        for number, url in enumerate(self._cameras.urls):
            transport = Transport.UDP if number % 4 == 1 else Transport.TCP
            self._site.cameras.add(Camera(uuid4(), f"camera{number}", url, transport=transport))

    def run(self) -> dict[str, object]:
        recorder = Recorder(self._root)
        began = time.monotonic()
        plan = sorted(self._plan(), key=lambda step: step[0])
        measured = 0.0
        while (now := time.monotonic() - began) < self._seconds:
            while plan and plan[0][0] <= now:
                plan.pop(0)[1](recorder)
            if now - measured > 1:
                recorder.measure()
                measured = now
            time.sleep(0.05)
        for _, step in plan:  # what has begun ends
            step(recorder)
        time.sleep(2)
        drained = recorder.end(signal.SIGTERM)
        sent = self._cameras.end()
        accounts, gap_seconds = self._account(sent)
        half = [(at, pss) for at, pss in recorder.memory if at > recorder.memory[-1][0] - self._seconds / 2]
        slope = np.polyfit(*np.array(half).T, 1)[0] * 3600 if len(half) > 2 else 0.0
        return {
            "cameras": self._count,
            "seconds": self._seconds,
            "frames_sent": sum(one.sent for one in accounts),
            "frames_stored": sum(one.stored for one in accounts),
            "frames_in_gaps": sum(one.in_gaps for one in accounts),
            "frames_unaccounted": sum(one.unaccounted for one in accounts),
            "frames_damaged": sum(one.strange for one in accounts),
            "gap_seconds": gap_seconds,
            "memory_mb": round(recorder.memory[-1][1], 1),
            "memory_growth_mb_per_hour": round(float(slope), 1),
            "drain_seconds": round(drained, 1),
            "faults_injected": sum(self.injected.values()),
            "faults": dict(sorted(self.injected.items())),
        }

    def _plan(self) -> list[tuple[float, Callable[[Recorder], None]]]:
        """Return what happens when, in seconds from the start; nothing begins in the last tenth."""
        steps: list[tuple[float, Callable[[Recorder], None]]] = []
        last = self._seconds * 0.9
        for number in range(self._count):
            at = self._luck.expovariate(1 / SECONDS_BETWEEN)
            while at < last:
                name = self._luck.choice(list(FAULTS))
                changes, length = FAULTS[name]
                steps.append((at, self._begin(name, number, changes)))
                at += min(length, last - at)
                normal = {key: getattr(_NORMAL, key) for key in changes if key != "film"}
                if name == "picture":
                    normal = {"film": _kind(number)}
                steps.append((at, self._end(number, normal)))
                at += self._luck.expovariate(1 / SECONDS_BETWEEN)
        for name, length in OUTAGES.items():
            at = self._luck.uniform(0.1, 0.4) * self._seconds
            steps.append((at, self._outage(name)))
            if name == "store away":
                steps.append((at + length, lambda _: _back(self._root / "store")))
        return steps

    def _begin(self, name: str, number: int, changes: dict[str, object]) -> Callable[[Recorder], None]:
        def step(_: Recorder) -> None:
            if name == "picture" and _kind(number) not in {"h264", "h264-b"}:
                return  # such a camera would change its codec inside a connection
            self.injected[name] += 1
            self._cameras.change(number, changes)

        return step

    def _end(self, number: int, changes: dict[str, object]) -> Callable[[Recorder], None]:
        return lambda _: self._cameras.change(number, changes)

    def _outage(self, name: str) -> Callable[[Recorder], None]:
        def step(recorder: Recorder) -> None:
            self.injected[name] += 1
            if name == "store away":
                (self._root / "store").rename(self._root / "store.away")
                return
            recorder.end(signal.SIGKILL if name == "kill" else signal.SIGTERM)
            recorder.start()

        return step

    def _account(self, sent: list[list[tuple[int, float]]]) -> tuple[list[Account], dict[str, float]]:
        accounts: list[Account] = []
        seconds: Counter[str] = Counter()
        films = [film() for film in FILMS.values()]
        with composition.Parts(self._site) as parts:
            now = composition.host_time()
            open_ = parts.keyrings[Kind.VIDEO].open
            for camera, frames in zip(self._site.cameras.all(), sent, strict=True):
                gaps = parts.catalogue.gaps([camera.id], Span(EPOCH, now))
                segments = parts.catalogue.segments([camera.id], Span(EPOCH, now))
                stored = ((one.span, open_(one.key_id, parts.store.get(one.object_key))) for one in segments)
                for gap in gaps:
                    seconds[gap.reason.value] += gap.span.duration.total_seconds()
                end = max((one.span.end for one in [*segments, *gaps]), default=EPOCH)
                after = Gap(Span(end, max(now, end)), camera.id, GapReason.RECORDER_DOWN)
                accounts.append(found := account(films, frames, stored, [*gaps, after]))
                for moment in found.lost:
                    print(f"{camera.name} {camera.id}: lost {_show(moment)}", file=sys.stderr)
        return accounts, {name: round(value, 1) for name, value in sorted(seconds.items())}


_NORMAL = SyntheticCamera("normal", FILMS["h264"]())


def _show(moment: float) -> str:
    return (EPOCH + timedelta(seconds=moment)).isoformat(timespec="milliseconds")


def _back(store: Path) -> None:
    away = store.with_name("store.away")
    if away.exists():
        away.rename(store)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's faults; printed with each run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    facts = Soak(options.cameras, options.seconds, random.Random(seed), directory).run() | {"seed": seed}
    for name, value in facts.items():
        shown = "" if isinstance(value, dict) else value
        print(f"{name:<28}{shown}")
        for part, amount in value.items() if isinstance(value, dict) else ():
            print(f"    {part:<24}{amount}")
    if options.json:
        print(json.dumps(facts))
    if facts["frames_unaccounted"]:
        print(f"not accounted for; the site and the recorder's log: {directory / 'site'}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
