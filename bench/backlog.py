"""What waits is worked off, and costs the present nothing: ``python bench/backlog.py store`` and ``folder``.

``store``: the spool holds a day of segments of some cameras, because the store was down, and is still. A real
recorder process starts and records live cameras beside it; then the store comes back. Measured: how long
the start takes, memory, whether a live frame was lost, whether the newest came first, how fast it drains. The
backdated segments are small, since a day at full rate is tens of gigabytes: what is tested is their number.

``folder``: so many files, of a hundred cameras, wait in a drop folder. Measured: how long a real recorder
process takes for them, memory, and that every frame of every file is in the store once, with no file left or
refused. A key covers the whole UTC day, since a new site has none for the time before.

The last line with ``--json`` is one object; the exit code is 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from videostore import app as composition
from videostore.config.site import Site
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, Gap, GapReason, Segment, Sha256Hex, Span
from videostore.synthetic.accounting import account
from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import FRAME_RATE, stream

SETTINGS = """\
version: 1
site: backlog
recorder: {segment: 10s}
folders: {nvr: {path: nvr, pattern: "{camera}/%Y-%m-%d/%H-%M-%S", settle: 1s}}
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
"""
RETENTION = """\
version: 1
video: {keep: 30d, lead: 15m, key_period: 24h}
entry_exit: {keep: 24h, lead: 15m, key_period: 1h}
"""
OVERRIDES = {"videostore.yaml": SETTINGS, "policies/retention.yaml": RETENTION}
SEGMENT = timedelta(seconds=10)
FILE_CAMERAS = 100
BODY_BYTES = 2048
LIVE_SECONDS = 30.0
FILE_SECONDS = 5


class Recorder:
    """The real program, as a process. ``peak_mb`` is the most memory (PSS) it was seen to use."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "videostore.cli.main", "run", "recorder", "--site", str(root)]
        with (root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.peak_mb = 0.0

    def until(self, done: Callable[[], bool], *, seconds: float) -> float:
        """Wait for ``done``; return how long it took. Exits if it takes longer than ``seconds``."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > seconds or self._process.poll() is not None:
                sys.exit(f"not done after {time.monotonic() - began:.0f} s: {done.__doc__ or done.__name__}")
            self.measure()
            time.sleep(0.2)
        return time.monotonic() - began

    def measure(self) -> None:
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        pss = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        self.peak_mb = max(self.peak_mb, pss)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


# --- the store was down for a day ---


def store(options: argparse.Namespace, root: Path) -> dict[str, object]:
    site = Site.load(root)
    sources = [SyntheticCamera(f"camera{number}", stream()) for number in range(options.cameras)]
    with SyntheticServer(sources) as server, composition.Parts(site) as parts:
        cameras = [site.cameras.add(Camera(uuid4(), one.path, server.url(one.path))) for one in sources]
        began = time.monotonic()
        waiting = fill(parts, cameras, timedelta(hours=options.hours))
        print(f"{waiting} segments wait after {time.monotonic() - began:.0f} s", flush=True)
        (root / "store").rename(root / "store.away")
        recorder = Recorder(root)
        ids = {camera.id for camera in cameras}
        ready = root / "spool" / "ready"

        def recording() -> bool:
            return sum(len(list(ready.glob(f"{one}/*"))) for one in ids) >= waiting + len(ids)

        start = recorder.until(recording, seconds=600)
        quiet = recorder.peak_mb
        recorder.until(_after(LIVE_SECONDS), seconds=600)
        (root / "store.away").rename(root / "store")
        span = Span(EPOCH, composition.host_time() + timedelta(days=1))

        def uploading() -> bool:
            return bool(parts.catalogue.segments(ids, span))

        recorder.until(uploading, seconds=600)
        first = parts.catalogue.segments(ids, span)
        oldest_first_hours = (composition.host_time() - min(one.span.start for one in first)) / timedelta(
            hours=1
        )

        def drained() -> bool:
            return sum(len(list(ready.glob(f"{one}/*"))) for one in ids) <= len(ids)

        drain = recorder.until(drained, seconds=3600)
        recorder.end()
        lost, sent = 0, 0
        for camera, source in zip(cameras, sources, strict=True):
            live = [one for one in parts.catalogue.segments([camera.id], span) if one.size_bytes > BODY_BYTES]
            open_ = parts.keyrings[Kind.VIDEO].open
            stored = ((one.span, open_(one.key_id, parts.store.get(one.object_key))) for one in live)
            end = max((one.span.end for one in live), default=EPOCH)
            after = Gap(Span(end, span.end), camera.id, GapReason.RECORDER_DOWN)
            before = Gap(Span(EPOCH, min(one.span.start for one in live)), camera.id, GapReason.RECORDER_DOWN)
            found = account([stream()], source.sent, stored, [before, after])
            lost, sent = lost + found.unaccounted, sent + found.sent
        kept = sum(1 for one in parts.catalogue.segments(ids, span) if one.size_bytes == BODY_BYTES)
        return {
            "segments_waited": waiting,
            "start_seconds": round(start, 1),
            "memory_mb": round(quiet, 1),
            "memory_peak_mb": round(recorder.peak_mb, 1),
            "first_upload_hours_old": round(oldest_first_hours, 2),
            "drain_seconds": round(drain, 1),
            "drained_per_second": round(waiting / drain, 1),
            "live_frames": sent,
            "live_frames_lost": lost,
            "missing": waiting - kept + lost,
        }


def fill(parts: composition.Parts, cameras: list[Camera], length: timedelta) -> int:
    """Spool ``length`` of segments of each camera, as if recorded until now, without waiting for the disk."""
    now, count, spool = composition.host_time(), int(length / SEGMENT), parts.spool
    period = parts.policies()[Kind.VIDEO].key_period
    real, os.fsync = os.fsync, lambda _: None
    try:
        for number in range(count):
            start = now - (count - number) * SEGMENT
            for camera in cameras:
                body = os.urandom(BODY_BYTES)
                digest = Sha256Hex(hashlib.sha256(body).hexdigest())
                one = Segment(camera.id, Span(start, start + SEGMENT), number, period, BODY_BYTES, digest)
                spool.commit(one, body, groups=[])
    finally:
        os.fsync = real
    return count * len(cameras)


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


# --- files wait in a drop folder ---


def folder(options: argparse.Namespace, root: Path) -> dict[str, object]:
    site = Site.load(root)
    names = [f"camera{number}" for number in range(FILE_CAMERAS)]
    ids = [site.cameras.add(Camera(uuid4(), name, f"folder://nvr/{name}")).id for name in names]
    film = _film(root / "film.mp4")
    rounds = -(-options.files // FILE_CAMERAS)
    begin = composition.host_time().replace(microsecond=0) - timedelta(seconds=FILE_SECONDS * rounds)
    for number in range(options.files):
        start = begin + timedelta(seconds=FILE_SECONDS * (number // FILE_CAMERAS))
        camera = root / "nvr" / names[number % FILE_CAMERAS]
        name = camera / f"{start:%Y-%m-%d}" / f"{start:%H-%M-%S}.mp4"
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(film, name)
    with composition.Parts(site) as parts:
        for ring in parts.keyrings.values():
            ring.create_ahead()
        recorder = Recorder(root)

        def taken() -> bool:
            return not any((root / "nvr").glob("camera*/*/*.mp4"))

        seconds = recorder.until(taken, seconds=7200)

        def uploaded() -> bool:
            return not any((root / "spool" / "ready").glob("*/*"))

        uploads = recorder.until(uploaded, seconds=600)
        recorder.end()
        span = Span(EPOCH, composition.host_time())
        segments = parts.catalogue.segments(ids, span)
        open_ = parts.keyrings[Kind.VIDEO].open
        frames = sum(
            cmaf.parse(open_(one.key_id, parts.store.get(one.object_key))).frames for one in segments
        )
        gaps = parts.catalogue.gaps(ids, span)
    refused = sum(1 for one in (root / "nvr" / ".refused").rglob("*") if one.is_file())
    return {
        "files": options.files,
        "seconds": round(seconds, 1),
        "ms_per_file": round(1000 * seconds / options.files, 1),
        "upload_seconds_after": round(uploads, 1),
        "memory_peak_mb": round(recorder.peak_mb, 1),
        "segments": len(segments),
        "frames": frames,
        "files_refused": refused,
        "gap_seconds": round(sum(gap.span.duration.total_seconds() for gap in gaps), 1),
        "missing": options.files * FILE_SECONDS * FRAME_RATE - frames,
    }


def _film(path: Path) -> Path:
    """Write a film of FILE_SECONDS, as an NVR would."""
    raw = path.with_suffix(".h264")
    frames = stream().frames[: FILE_SECONDS * FRAME_RATE]
    raw.write_bytes(b"".join(b"\x00\x00\x00\x01" + unit for units in frames for unit in units))
    command = [
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        "-r",
        str(FRAME_RATE),
        "-i",
        str(raw),
        "-c",
        "copy",
    ]
    subprocess.run([*command, str(path)], check=True)
    raw.unlink()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["store", "folder"])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="backlog-"))
    composition.create(directory / "site", name="backlog", overrides=OVERRIDES)
    facts = {"store": store, "folder": folder}[options.what](options, directory / "site")
    for name, value in facts.items():
        print(f"{name:<28}{value}")
    if options.json:
        print(json.dumps(facts))
    if facts["missing"]:
        print(f"something is missing; look at {directory / 'site'}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
