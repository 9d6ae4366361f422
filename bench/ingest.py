"""What recording costs, against others on the same cameras in the same run: ``python bench/ingest.py``.

Each contestant records the same RTSP cameras (``bench/cameras.py``: 1920x1080, 25 frames a second, H.264,
4 Mbit/s over TCP) for the same time, one after the other. videostore hashes, seals (age) and syncs every
keyframe interval and every segment to disk, uploads to a directory store and writes its catalogue; the others
copy the stream into MP4 files and do none of these. ``floor`` does them in C, without packing and upload.

CPU seconds are those of the contestant's processes over ``--seconds`` of steady recording, its children
included, from the kernel; what the cameras cost is measured apart. PSS and threads are read at the end. Then
the cameras send no more, so that every frame that was sent can be stored; ``frames_sent`` and
``frames_stored`` are of the whole run. The latency is from the arrival of the frame that ends a keyframe
interval until that interval is synced on disk: null where nothing is synced. The last line with ``--json`` is
one object, a key for each contestant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

from videostore import app as composition
from videostore.config.site import Site
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, Span

SETTINGS = """\
version: 1
site: bench
recorder: {segment: 10s}
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
"""
HERE = Path(__file__).parent
CAMERAS_A_SENDER = 32
WARM_UP, QUIET = 12.0, 2.0  # seconds before the measured time, and between the last frame and the end
TICKS = os.sysconf("SC_CLK_TCK")


class Cameras:
    """The cameras as processes of their own, so that their cost is nobody's."""

    def __init__(self, count: int, *, bursts: bool) -> None:
        command = [sys.executable, str(HERE / "cameras.py"), *(["--bursts"] if bursts else [])]
        self._senders = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(0, count, CAMERAS_A_SENDER)
        ]
        ports = [json.loads(self._hear(sender))["port"] for sender in self._senders]
        self.urls = [f"rtsp://127.0.0.1:{ports[at // CAMERAS_A_SENDER]}/{at}" for at in range(count)]

    def ask(self, command: str) -> tuple[int, float]:
        """Return how many frames were sent, and what that cost in CPU seconds."""
        answers = []
        for sender in self._senders:
            assert sender.stdin is not None
            print(command, file=sender.stdin, flush=True)
            answers.append(json.loads(self._hear(sender)))
        return sum(one["frames"] for one in answers), sum(one["cpu_s"] for one in answers)

    def end(self) -> None:
        for sender in self._senders:
            sender.communicate("end\n")

    @staticmethod
    def _hear(sender: subprocess.Popen[str]) -> str:
        assert sender.stdout is not None
        return sender.stdout.readline()


@dataclass
class Measured:
    """``count`` is called when all processes have ended, ``latency`` before."""

    commands: Sequence[Sequence[str]]
    count: Callable[[], int]
    latency: Callable[[], tuple[float | None, float | None]] = lambda: (None, None)
    environment: dict[str, str] = field(default_factory=dict)


def videostore(urls: list[str], directory: Path) -> Measured:
    root = directory / "site"
    composition.create(root, name="bench", overrides={"videostore.yaml": SETTINGS})
    site = Site.load(root)
    for number, url in enumerate(urls):
        site.cameras.add(Camera(uuid4(), f"camera{number}", url))

    def count() -> int:
        with composition.Parts(site) as parts:
            ever = Span(EPOCH, composition.host_time())
            segments = parts.catalogue.segments([camera.id for camera in site.cameras.all()], ever)
            open_ = parts.keyrings[Kind.VIDEO].open
            movies = (open_(one.key_id, parts.store.get(one.object_key)) for one in segments)
            return sum(cmaf.parse(movie).frames for movie in movies)

    def latency() -> tuple[float | None, float | None]:
        url = site.running()["recorder"]["metrics"]
        with urllib.request.urlopen(url) as answer:
            buckets = buckets_of(answer.read().decode(), "videostore_durable_seconds")
        return quantile(buckets, 0.5), quantile(buckets, 0.99)

    command = [sys.executable, "-m", "videostore.cli.main", "run", "recorder", "--site", str(root)]
    return Measured([command], count, latency)


def ffmpeg(urls: list[str], directory: Path) -> Measured:
    """One process a camera, as most recorders do it."""
    commands = [
        ["ffmpeg", "-nostdin", "-loglevel", "error", *_ffmpeg_input(url), *_ffmpeg_output(directory, at, 0)]
        for at, url in enumerate(urls)
    ]
    return Measured(commands, lambda: files(directory))


def ffmpeg_shared(urls: list[str], directory: Path) -> Measured:
    """One process for all cameras."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error"]
    for url in urls:
        command += _ffmpeg_input(url)
    for at in range(len(urls)):
        command += _ffmpeg_output(directory, at, at)
    return Measured([command], lambda: files(directory))


def _ffmpeg_input(url: str) -> list[str]:
    return ["-rtsp_transport", "tcp", "-i", url]


def _ffmpeg_output(directory: Path, number: int, source: int) -> list[str]:
    how = ["-c", "copy", "-f", "segment", "-segment_time", "10", "-reset_timestamps", "1"]
    return ["-map", f"{source}:v", *how, f"{directory}/{number}-%d.mp4"]


def gstreamer(urls: list[str], directory: Path) -> Measured:
    """One process for all cameras, a pipeline for each in it."""
    command = ["gst-launch-1.0", "-q", "-e"]
    for at, url in enumerate(urls):
        command += [
            "rtspsrc",
            f"location={url}",
            *["protocols=tcp", "latency=0", "!", "rtph264depay", "!", "h264parse", "!"],
        ]
        command += ["splitmuxsink", "max-size-time=10000000000", f"location={directory}/{at}-%d.mp4"]
    return Measured([command], lambda: files(directory))


def pyav(urls: list[str], directory: Path) -> Measured:
    """One process, a thread for each camera."""
    return Measured(
        [[sys.executable, str(HERE / "ingest.py"), "--copy", str(directory), *urls]], lambda: files(directory)
    )


def copy(directory: Path, urls: list[str]) -> None:
    """Be the contestant ``pyav``, until SIGTERM."""
    from threading import Event, Thread

    import av

    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def one(number: int, url: str) -> None:
        source = av.open(url, options={"rtsp_transport": "tcp", "timeout": "1000000"})
        stream, part, target, began = source.streams.video[0], 0, None, 0.0
        with av.logging.Capture(), suppress(av.error.FFmpegError):  # the cameras hang up
            for packet in source.demux(stream):
                if packet.is_keyframe and (target is None or time.monotonic() - began >= 10):
                    if target is not None:
                        target.close()
                    target, began = av.open(f"{directory}/{number}-{part}.mp4", "w"), time.monotonic()
                    into, part = target.add_stream_from_template(stream), part + 1
                if target is not None and packet.size:
                    packet.dts = packet.dts if packet.dts is not None else packet.pts
                    packet.stream = into
                    target.mux(packet)
        if target is not None:
            target.close()

    threads = [Thread(target=one, args=pair) for pair in enumerate(urls)]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()


def floor(urls: list[str], directory: Path, *, step: int = 5) -> Measured:
    """What receiving, hashing, sealing and syncing cost in C; needs cc and libssl-dev."""
    program = directory / "floor"
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / "floor.c"), "-lcrypto"], check=True)
    command = [str(program), str(step), str(directory), *(url.rpartition(":")[2] for url in urls)]
    return Measured([command], lambda: int((directory / "frames").read_text()))


CONTESTANTS: dict[str, Callable[[list[str], Path], Measured]] = {
    "videostore": videostore,
    "ffmpeg": ffmpeg,
    "ffmpeg-shared": ffmpeg_shared,
    "gstreamer": gstreamer,
    "pyav": pyav,
    "floor-receive": partial(floor, step=1),
    "floor-parse": partial(floor, step=2),
    "floor-hash": partial(floor, step=3),
    "floor-seal": partial(floor, step=4),
    "floor": floor,
}


def run(name: str, count: int, seconds: float, *, bursts: bool) -> dict[str, float | int | None]:
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=os.environ.get("BENCH_DIRECTORY")))
    cameras = Cameras(count, bursts=bursts)
    try:
        measured = CONTESTANTS[name](cameras.urls, directory)
        with (directory / "log").open("wb") as log:
            processes = [subprocess.Popen(one, stdout=log, stderr=log) for one in measured.commands]
        roots = [process.pid for process in processes]
        time.sleep(WARM_UP)
        before, (_, sending) = cpu_s(roots), cameras.ask("cost")
        time.sleep(seconds)
        if ended := [one.args for one in processes if one.poll() is not None]:
            sys.exit(f"{name} ended by itself: {ended[0]}\n{(directory / 'log').read_text()[-2000:]}")
        cpu, (_, sent_for) = cpu_s(roots) - before, cameras.ask("cost")
        pss, threads, latency = pss_mb(roots), threads_of(roots), measured.latency()
        sent, _ = cameras.ask("pause")
        time.sleep(QUIET)
        for process in processes:
            process.send_signal(signal.SIGTERM if name != "gstreamer" else signal.SIGINT)
        time.sleep(1.0)
        cameras.ask("hang-up")  # some hear a signal only when something comes or ends
        for process in processes:
            process.wait(120)
        minutes = count * seconds / 60
        cost = (sent_for - sending) / minutes
        print(f"{name}: the cameras themselves cost {cost:.3f} CPU s a camera minute", file=sys.stderr)
        return {
            "cpu_s_per_camera_minute": round(cpu / minutes, 3),
            "pss_mb_per_camera": round(pss / count, 2),
            "threads": threads,
            "frames_sent": sent,
            "frames_stored": measured.count(),
            "durable_latency_p50_s": latency[0],
            "durable_latency_p99_s": latency[1],
        }
    finally:
        cameras.end()
        shutil.rmtree(directory)


def family(roots: Sequence[int]) -> Iterator[int]:
    """Yield processes and all that descend from them."""
    for pid in roots:
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            yield from family([int(child) for child in task.read_text().split()])


def cpu_s(roots: Sequence[int]) -> float:
    """User and system time of processes, of their children, and of children that ended."""
    total = 0
    for pid in family(roots):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(one) for one in fields[11:15])
    return total / TICKS


def threads_of(roots: Sequence[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in family(roots))


def pss_mb(roots: Sequence[int]) -> float:
    found = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family(roots))
    return sum(int(re.findall(r"(?m)^Pss:\s+(\d+)", text)[0]) for text in found) / 1024


def buckets_of(metrics: str, name: str) -> list[tuple[float, float]]:
    """Return upper bound (seconds) and cumulative count of a histogram."""
    found = re.findall(rf'(?m)^{name}_bucket\{{le="([^"]+)"\}} (\S+)$', metrics)
    return [(float(bound), float(count)) for bound, count in found]


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Interpolate within the bucket, as Prometheus does."""
    wanted, low, below = share * (buckets[-1][1] if buckets else 0), 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted > 0:
            high = bound if bound != float("inf") else low
            return round(low + (high - low) * (wanted - below) / (count - below), 4)
        low, below = bound, count
    return None


def files(directory: Path) -> int:
    return sum(count_frames(film) for film in directory.glob("*.mp4"))


def count_frames(film: Path) -> int:
    command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v", "-show_entries",
               "stream=nb_read_packets", "-of", "csv=p=0", str(film)]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().rstrip(",")
    return int(answer) if answer else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--peers", default="ffmpeg", help=f"comma-separated; known: {', '.join(list(CONTESTANTS)[1:])}"
    )
    parser.add_argument("--bursts", action="store_true", help="cameras write a frame at once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--copy", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.copy:
        copy(Path(options.copy[0]), options.copy[1:])
        return
    names = ["videostore", *(name for name in options.peers.split(",") if name)]
    if unknown := set(names) - set(CONTESTANTS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    results = {name: run(name, options.cameras, options.seconds, bursts=options.bursts) for name in names}
    ours = results["videostore"]
    print(f"{options.cameras} cameras, {options.seconds:.0f} s; ratio: videostore to each")
    print(f"{'':<26}" + "".join(f"{name:>14}{'ratio':>8}" for name in results))
    for row, value in ours.items():
        print(f"{row:<26}" + "".join(_cells(value, facts[row]) for facts in results.values()))
    if options.json:
        print(json.dumps(results))


def _cells(ours: float | None, theirs: float | None) -> str:
    ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
    return f"{'-' if theirs is None else theirs:>14}{ratio:>8}"


if __name__ == "__main__":
    main()
