"""How long an officer waits: ``python bench/gate.py --cameras 1000 --days 30 --viewers 50``.

A whole site with the gate as a process of its own. The catalogue is filled with rows for every camera and day
(``--old-segment`` long; those of the cameras that are looked for have 10 s on their last day, as a recorder
makes them); what is viewed and exported is real, sealed footage, 1280x720 in segments of 10 s.

search: from request to answer, over HTTPS, its record in the ledger included: a camera for a day, a group of
twenty for twenty minutes, everything on one floor for five minutes, in turn.
first frame: from asking for the footage to the first decoded frame, all viewers at once: request, grant,
viewing, playlist, init, segment, decoder. Viewers share the machine with the gate: what a search and a
viewing cost each of them in CPU stands beside (``…_cpu_ms``), and says more than the wait on a busy machine.
export ratios: speed of an export against copying the same film (with fsync), and against ``ffmpeg -c copy``
of the same footage from an open file; 1 is as fast, 0.5 half as fast. Neither of them opens a seal or signs.

The last line with ``--json`` is one object.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shutil
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import av

from videostore import app as composition
from videostore.config.cameras import write_cameras
from videostore.config.site import Site
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, MICROSECOND, KeyId, Segment, Span
from videostore.ports import Packet, StreamInfo
from videostore.recorder.cutter import Cutter
from videostore.recorder.muxer import Muxer
from videostore.recorder.spool import facts_of
from videostore.sealing import seal
from videostore.signing import SigningKey
from videostore.synthetic.stream import FRAME_RATE, GOP, stream

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
SEGMENT = 10 * SECOND
FILM = timedelta(minutes=5)
VIEWED = 10
"""Cameras with real footage; the viewers share them."""
NEAR = 50
"""Cameras whose last day has a row for every ten seconds."""
PASSWORD = "correct horse battery staple"
SETTINGS = """\
version: 1
site: bench
metrics: {recorder: "127.0.0.1:0", retention: "127.0.0.1:0", gate: "127.0.0.1:0"}
gate: {listen: "127.0.0.1:0"}
"""
ACCESS = """\
version: 1
notice: notice/notice.md
approvers: {{delegate: "{approver}"}}
second_person: []
"""


def make_site(root: Path, count: int) -> tuple[Site, str]:
    """Make a site with cameras and one officer. Returns it and the secret of her authenticator."""
    keys = {name: SigningKey.create(root / f"{name}.key") for name in ("delegate", "alice")}
    overrides = {
        "videostore.yaml": SETTINGS,
        "policies/access.yaml": ACCESS.format(approver=keys["delegate"].public),
    }
    composition.create(root / "site", name="bench", overrides=overrides)
    site = Site.load(root / "site")
    cameras = [
        Camera(
            uuid4(),
            f"camera{number}",
            "rtsp://127.0.0.1/none",
            group=f"group{number // 20}",
            place=f"building {number // 100}, floor {number // 20}",
        )
        for number in range(count)
    ]
    write_cameras(site.root / "cameras.yaml", cameras)
    staff, now = composition.staff(site), composition.host_time()
    secret = staff.add("alice", department="DSS", password=PASSWORD, public_key=keys["alice"].public)
    paper = staff.approve("alice", "delegate", keys["delegate"], valid=Span(now, now + DAY), now=now)
    body = {"staff_id": "alice", "approval_id": paper.id, "approver": "delegate"}
    composition.record(site, Event.STAFF_APPROVED, **body)
    staff.acknowledge("alice", keys["alice"], notice_sha256=site.access().notice_sha256, now=now)
    return site, secret


def fill(site: Site, days: int, old: timedelta, until: datetime) -> int:
    """Write the rows, in the order of their keys, straight into the database. Returns how many."""
    cameras = sorted(site.cameras.all(), key=lambda camera: str(camera.id))
    near = {camera.id for camera in site.cameras.all()[:NEAR]}
    path = next(site.root.glob("*.db"))
    with sqlite3.connect(path, isolation_level=None) as database:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
            database.execute(f"PRAGMA {pragma}")
        indexes = database.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND sql NOTNULL")
        indexes = [one for one in indexes if one[0].startswith("segments_")]
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        columns = ", ".join(row[1] for row in database.execute("PRAGMA table_info(segments)"))
        marks = ", ".join("?" * (columns.count(",") + 1))
        database.execute("BEGIN")
        for day in range(days, 0, -1):
            begin = until - day * DAY
            for camera in cameras:
                length = SEGMENT if day == 1 and camera.id in near else old
                database.executemany(
                    f"INSERT INTO segments ({columns}) VALUES ({marks})", _rows(camera, begin, length)
                )
        database.execute("COMMIT")
        for _, sql in indexes:
            database.execute(sql)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("ANALYZE")
        return int(database.execute("SELECT count(*) FROM segments").fetchone()[0])


def _rows(camera: Camera, begin: datetime, length: timedelta) -> Iterator[tuple[Any, ...]]:
    """Yield rows of one day. Their hashes are those of no object: nobody opens them."""
    hour = timedelta(hours=1)
    for number in range(int(DAY / length)):
        start = begin + number * length
        segment = Segment(camera.id, Span(start, start + length), number, hour, 1, "0" * 64)
        key_start = (segment.key_id.start - EPOCH) // MICROSECOND
        us = (start - EPOCH) // MICROSECOND
        yield (segment.object_key, str(camera.id), us, us + length // MICROSECOND, key_start, 3600, 1, 0, 0)


def footage() -> bytes:
    """Return a segment of ten seconds, as the recorder makes it."""
    loop, base = stream(width=1280, height=720), Fraction(1, 90_000)
    cutter, muxer = Cutter(base), Muxer(StreamInfo("h264", 1280, 720, base, b""))
    movies = []
    for number in range(10 * GOP + 1):
        units = loop.frames[number % len(loop.frames)]
        data = b"".join(b"\0\0\0\1" + unit for unit in units)
        at = EPOCH + number * SECOND / FRAME_RATE
        group = cutter.add(Packet(data, number * 90_000 // FRAME_RATE, number % GOP == 0, at, None))
        if group:
            movies.append(cmaf.parse(muxer.mux(group)))
    return cmaf.join(movies[0].init, [fragment for movie in movies for fragment in movie.fragments])


def store(site: Site, movie: bytes, span: Span) -> None:
    """Seal and store real footage of the viewed cameras."""
    with composition.Parts(site) as parts:
        keys, policy = parts.published(Kind.VIDEO), parts.policies()[Kind.VIDEO]
        for camera in site.cameras.all()[:VIEWED]:
            segments = []
            for number in range(int(span.duration / SEGMENT)):
                part = Span(span.start + number * SEGMENT, span.start + (number + 1) * SEGMENT)
                key_id = KeyId.covering(part.start, policy.key_period)
                sealed = seal(movie, recipient=keys.recipient(key_id))
                segment = facts_of(sealed, camera_id=camera.id, span=part, sequence=number, key_id=key_id)
                parts.store.put(segment.object_key, sealed, sha256=segment.sha256)
                segments.append(segment)
            parts.catalogue.adopt(segments)


@contextmanager
def gate(site: Site) -> Iterator[str]:
    command = [sys.executable, "-m", "videostore.cli.main", "run", "gate", "--site", str(site.root)]
    with (site.root / "gate.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while "gate" not in site.running():
            if process.poll() is not None:
                sys.exit((site.root / "gate.log").read_text())
            time.sleep(0.1)
        yield str(site.running()["gate"]["gate"])
    finally:
        process.terminate()
        process.wait()


class Viewer:
    """A player's connection, which costs next to nothing beside what it asks for."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str) -> None:
        self._http = http.client.HTTPSConnection(urlsplit(url).netloc, context=context, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http.connect()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, body: Any = None) -> bytes:
        sent = None if body is None else json.dumps(body)
        self._http.request("GET" if body is None else "POST", path, sent, self._headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:300]!r}")
        return content

    def post(self, path: str, **body: Any) -> Any:
        return json.loads(self.get(path, body))

    def stream(self, path: str) -> Iterator[bytes]:
        self._http.request("POST", path, "{}", self._headers)
        answer = self._http.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        while chunk := answer.read1(1 << 20):
            yield chunk


class Officer:
    """One login at the gate."""

    def __init__(self, site: Site, url: str, secret: str) -> None:
        authority = composition.own_certificate(site).authority
        self._context = ssl.create_default_context(cafile=str(authority))
        self._url, self._token = url, ""
        code = composition.current_code(secret, now=composition.host_time())
        with self.another() as http:
            self._token = http.post("/v1/login", staff_id="alice", password=PASSWORD, code=code)["token"]
        self.http = self.another()
        incident = self.http.post("/v1/incidents", purpose="search", reference="bench")
        self.incident_id = incident["incident_id"]

    def another(self) -> Viewer:
        """Return a connection of its own, as each viewer has one."""
        return Viewer(self._url, self._context, self._token)

    def begin(self, http: Viewer, camera: str, span: Span, mode: str = "view") -> Any:
        asked = {"start": span.start.isoformat(), "end": span.end.isoformat(), "cameras": [camera]}
        request = http.post("/v1/requests", incident_id=self.incident_id, mode=mode, **asked)
        kind = "viewings" if mode == "view" else "exports"
        return http.post(f"/v1/grants/{request['grant']['grant_id']}/{kind}", camera=camera)


def search(officer: Officer, until: datetime, rounds: int) -> list[float]:
    """Return how long each search took, in ms."""
    day, near, floor = (Span(until - length, until) for length in (DAY - FILM, 20 * 60 * SECOND, FILM))
    asked = [
        ({"cameras": ["camera7"]}, day),
        ({"group": "group1"}, near),
        ({"place": "building 0, floor 2"}, floor),
    ]
    taken = []
    for number in range(rounds):
        query, span = asked[number % len(asked)]
        body = {**query, "start": span.start.isoformat(), "end": span.end.isoformat()}
        began = time.perf_counter()
        officer.http.post("/v1/search", incident_id=officer.incident_id, **body)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def first_frame(officer: Officer, camera: str, span: Span) -> float:
    """Return how long one viewer waited for a decoded frame, in ms."""
    with officer.another() as http:
        began = time.perf_counter()
        serving = officer.begin(http, camera, span)
        lines = http.get(serving["playlist"]).decode().splitlines()
        place = serving["playlist"].removesuffix("index.m3u8")
        init = next(line.split('"')[1] for line in lines if line.startswith("#EXT-X-MAP"))
        part = next(line for line in lines if line.endswith(".m4s"))
        data = http.get(place + init) + http.get(place + part)
        with av.open(io.BytesIO(data)) as container:
            next(container.decode(video=0))
        return 1000 * (time.perf_counter() - began)


def export(officer: Officer, camera: str, span: Span, target: Path) -> float:
    """Return how many seconds an export took."""
    began = time.perf_counter()
    serving = officer.begin(officer.http, camera, span, "export")
    path = f"/v1/servings/{serving['serving_id']}/films/0"
    with target.open("wb") as file:
        for chunk in officer.http.stream(path):
            file.write(chunk)
        os.fsync(file.fileno())
    return time.perf_counter() - began


class Cost:
    """CPU seconds of the gate and of this process, from one ``per`` to the next."""

    def __init__(self, gate_pid: int) -> None:
        self._stat = Path(f"/proc/{gate_pid}/stat")
        self._before = self._now()

    def per(self, what: str, count: int) -> dict[str, float]:
        now = self._now()
        spent = [1000 * (after - before) / count for after, before in zip(now, self._before, strict=True)]
        self._before = now
        return {f"{what}_gate_cpu_ms": round(spent[0], 1), f"{what}_client_cpu_ms": round(spent[1], 1)}

    def _now(self) -> tuple[float, float]:
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:2])


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of the faster of three runs."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    site, secret = make_site(root, options.cameras)
    until = composition.host_time().replace(second=0, microsecond=0)
    film = Span(until - FILM, until)
    began = time.perf_counter()
    rows = fill(site, options.days, options.old_segment * SECOND, film.start)
    load_s = time.perf_counter() - began
    movie = footage()
    store(site, movie, film)
    with gate(site) as url:
        officer = Officer(site, url, secret)
        search(officer, until, 6)  # once to warm the pages of the database
        cost = Cost(site.running()["gate"]["pid"])
        searches = search(officer, until, options.searches)
        costs = cost.per("search", len(searches))
        names = [camera.name for camera in site.cameras.all()[:VIEWED]]
        alone = [first_frame(officer, name, film) for name in names]
        cost.per("alone", 1)
        with ThreadPoolExecutor(options.viewers) as viewers:
            asked = [names[number % len(names)] for number in range(options.viewers * options.rounds)]
            frames = list(viewers.map(lambda name: first_frame(officer, name, film), asked))
        costs |= cost.per("first_frame", len(frames))
        target = root / "export.mp4"
        export_s = timed(lambda: export(officer, names[0], film, target))
    parsed = cmaf.parse(movie)
    count = int(film.duration / SEGMENT)
    clear = root / "clear.mp4"
    fragments = [replace(one) for _ in range(count) for one in parsed.fragments]
    clear.write_bytes(cmaf.join(parsed.init, fragments))
    command = ["ffmpeg", "-v", "error", "-y", "-i", clear, "-c", "copy", root / "remuxed.mp4"]
    copy_s = timed(lambda: copy(target, root / "copy.mp4"))
    ffmpeg_s = timed(lambda: subprocess.run(command, check=True))
    return {
        "cameras": options.cameras,
        "days": options.days,
        "viewers": options.viewers,
        "rows": rows,
        "load_s": round(load_s, 1),
        "search_p50_ms": round(statistics.median(searches), 1),
        "search_p99_ms": round(quantile(searches, 0.99), 1),
        "first_frame_p50_ms": round(statistics.median(frames), 1),
        "first_frame_p99_ms": round(quantile(frames, 0.99), 1),
        "first_frame_alone_ms": round(statistics.median(alone), 1),
        **costs,
        "export_mb": round(target.stat().st_size / 1e6, 1),
        "export_s": round(export_s, 2),
        "export_ratio_to_copy": round(copy_s / export_s, 3),
        "export_ratio_to_ffmpeg": round(ffmpeg_s / export_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2, help="viewings of each viewer")
    parser.add_argument("--old-segment", type=int, default=600, help="seconds of a row of the past")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as root:
        found = run(options, Path(root))
    for name, value in found.items():
        print(f"{name:<24}{value:>14}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
