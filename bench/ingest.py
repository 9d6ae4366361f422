"""What recording costs, against ffmpeg on the same cameras in the same run: ``python bench/ingest.py``.

Each contestant records the same synthetic RTSP cameras (640x360, 25 frames a second, H.264 over TCP) for the
same time, one after the other. videostore hashes, seals (age) and syncs every keyframe interval to disk
and uploads to a directory store; ffmpeg (one process a camera, ``-c copy -f segment``) does none of these.

CPU seconds are those of the recording processes alone, from the kernel (``wait4``), start-up included;
PSS and threads are read just before the end. The last line with ``--json`` is one object, a key for each
contestant.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from videostore import app as composition
from videostore.config.site import Site
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, Span
from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import stream

SETTINGS = """\
version: 1
site: bench
recorder: {segment: 10s}
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
"""


def serve(count: int) -> None:
    """Be the cameras, until stdin ends; then print how many frames left. Runs as a process of its own."""
    loop = stream()
    cameras = [SyntheticCamera(f"camera{number}", loop) for number in range(count)]
    with SyntheticServer(cameras) as server:
        print(json.dumps([server.url(camera.path) for camera in cameras]), flush=True)
        sys.stdin.read()
    print(sum(len(camera.sent) for camera in cameras), flush=True)


class Cameras:
    """The cameras as a process, so that their cost is nobody's."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, __file__, "--serve", str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.urls: list[str] = json.loads(self._process.stdout.readline())

    def end(self) -> int:
        return int(self._process.communicate()[0])


def videostore(urls: list[str], directory: Path, seconds: float) -> dict[str, float]:
    root = directory / "site"
    composition.create(root, name="bench", overrides={"videostore.yaml": SETTINGS})
    site = Site.load(root)
    for number, url in enumerate(urls):
        site.cameras.add(Camera(uuid4(), f"camera{number}", url))
    command = [sys.executable, "-m", "videostore.cli.main", "run", "recorder", "--site", str(root)]
    facts = record([command], seconds, directory)
    with composition.Parts(site) as parts:
        segments = parts.catalogue.segments(
            [camera.id for camera in site.cameras.all()], Span(EPOCH, composition.host_time())
        )
        open_ = parts.keyrings[Kind.VIDEO].open
        movies = (open_(one.key_id, parts.store.get(one.object_key)) for one in segments)
        return {**facts, "frames_stored": sum(cmaf.parse(movie).frames for movie in movies)}


def ffmpeg(urls: list[str], directory: Path, seconds: float) -> dict[str, float]:
    commands = [
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", url, "-an", "-c", "copy",
         "-f", "segment", "-segment_time", "10", "-reset_timestamps", "1", f"{directory}/{number}-%d.mp4"]
        for number, url in enumerate(urls)
    ]  # fmt: skip
    facts = record(commands, seconds, directory)
    return {**facts, "frames_stored": sum(count_frames(film) for film in directory.glob("*.mp4"))}


CONTESTANTS = {"videostore": videostore, "ffmpeg": ffmpeg}


def record(commands: list[list[str]], seconds: float, directory: Path) -> dict[str, float]:
    """Run ``commands`` for ``seconds`` and measure them."""
    with (directory / "log").open("wb") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    time.sleep(seconds)
    pss = sum(_pss_mb(process.pid) for process in processes)
    threads = sum(len(list(Path(f"/proc/{process.pid}/task").iterdir())) for process in processes)
    cpu = 0.0
    for process in processes:
        process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(process.pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
        process.returncode = 0
    return {"cpu_s": cpu, "pss_mb": pss, "threads": threads}


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def count_frames(film: Path) -> int:
    command = ["ffprobe", "-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of",
               "csv=p=0", str(film)]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(answer) if answer else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--peers", default="ffmpeg", help="comma-separated; known: ffmpeg")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    results = {}
    for name in ["videostore", *options.peers.split(",")]:
        directory = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
        cameras = Cameras(options.cameras)
        try:
            facts = CONTESTANTS[name](cameras.urls, directory, options.seconds)
        finally:
            sent = cameras.end()
            shutil.rmtree(directory)
        minutes = options.cameras * options.seconds / 60
        results[name] = {
            "cpu_s_per_camera_minute": round(facts["cpu_s"] / minutes, 3),
            "pss_mb_per_camera": round(facts["pss_mb"] / options.cameras, 1),
            "threads": facts["threads"],
            "frames_sent": sent,
            "frames_stored": facts["frames_stored"],
        }
    ours = results["videostore"]
    print(f"{options.cameras} cameras, {options.seconds:.0f} s")
    print(f"{'':<26}" + "".join(f"{name:>14}{'ratio':>8}" for name in results))
    for row, value in ours.items():
        cells = (
            f"{facts[row]:>14}{value / facts[row] if facts[row] else 0:>8.2f}" for facts in results.values()
        )
        print(f"{row:<26}" + "".join(cells))
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
