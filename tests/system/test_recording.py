"""Records from real sockets with the real program, and kills it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cameras import serving
from tests.fakes.clock import SettableClock
from tests.servers import until
from tests.system.commands import facts, make_site, running, said, videostore
from videostore import app as composition
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.domain.coverage import State
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import GapReason, KeyId, Span
from videostore.recorder.cutter import TOLERANCE
from videostore.recorder.spool import facts_of
from videostore.recorder.upload import Uploader
from videostore.synthetic.film import breaks, frame_numbers
from videostore.synthetic.stream import FRAME_RATE, stream

LOOP = len(stream().frames)
EVER = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture
def cameras():
    with serving("lobby", "officer:open sesame@gate") as server:
        yield server


@pytest.fixture
def site(tmp_path, cameras):
    root = make_site(tmp_path / "site")
    (root / "secrets" / "gate").write_text("officer:open sesame")
    (root / "secrets" / "gate").chmod(0o600)
    said("camera", "add", "lobby", cameras.url("lobby"), site=root)
    said("camera", "add", "gate", cameras.url("gate"), "--credentials-file", "secrets/gate", site=root)
    return root


class Eye:
    """Looks at a site from inside, as no role of it can."""

    def __init__(self, root):
        self.site = Site.load(root)
        self.ids = {name: self.site.cameras.find(name).id for name in ("lobby", "gate")}

    def stored(self):
        with composition.Parts(self.site) as parts:
            return {name: parts.catalogue.segments([id_], EVER) for name, id_ in self.ids.items()}

    def spooled(self):
        with composition.Parts(self.site) as parts:
            return parts.spool.pending()

    def gaps(self, name):
        with composition.Parts(self.site) as parts:
            return parts.catalogue.gaps([self.ids[name]], EVER)

    def numbers(self, segments, directory):
        """Open segments and read the number that each frame carries."""
        found = []
        with composition.Parts(self.site) as parts:
            for segment in segments:
                film = directory / "film.mp4"
                film.write_bytes(
                    parts.keyrings[Kind.VIDEO].open(segment.key_id, parts.store.get(segment.object_key))
                )
                found.append(frame_numbers(film))
        return found


def test_a_killed_recorder_has_lost_at_most_two_seconds_and_no_closed_segment(site, cameras, tmp_path):
    eye = Eye(site)

    def enough(count):
        return lambda: all(len(segments) >= count for segments in eye.stored().values())

    with running(site, "recorder") as recorder:
        until(enough(2), seconds=60, why=recorder.log.read_text)
        sent = {name: list(camera.sent) for name, camera in cameras.cameras.items()}
        before, waiting = eye.stored(), eye.spooled()
        recorder.kill()
    with running(site, "recorder") as recorder:
        until(enough(len(before["lobby"]) + 3), seconds=60, why=recorder.log.read_text)
        assert recorder.end() == 0
    assert eye.spooled() == []
    after = eye.stored()
    for name, segments in after.items():
        keys = {segment.object_key for segment in segments}
        assert {segment.object_key for segment in before[name]} <= keys
        assert {one.object_key for one in waiting if one.camera_id == eye.ids[name]} <= keys
        begun = Span(segments[0].span.start, segments[-1].span.end)
        (gap,) = [gap for gap in eye.gaps(name) if begun.contains(gap.span)]
        assert gap.reason is GapReason.RECORDER_DOWN
        first_life = [segment for segment in segments if segment.span.end <= gap.span.start]
        numbers = [number for film in eye.numbers(first_life, tmp_path) for number in film]
        assert breaks(numbers, loop=LOOP) == 0
        assert len(sent[name]) - len(numbers) <= 2 * FRAME_RATE
        second_life = segments[len(first_life) :]
        # It may show only after the gap was written that the first frame was there before.
        assert second_life[0].span.start > gap.span.end - TOLERANCE
        assert breaks([one for film in eye.numbers(second_life, tmp_path) for one in film], loop=LOOP) == 0
        for one, following in pairwise(second_life):
            # The first frame may come late on a busy machine; the frames after it then move back, no further.
            assert abs(following.span.start - one.span.end) < TOLERANCE


def test_every_second_of_every_camera_is_explained(site, cameras, tmp_path):
    eye = Eye(site)
    with running(site, "recorder") as recorder:
        until(lambda: all(eye.stored().values()), seconds=60, why=recorder.log.read_text)
        cameras.cameras["gate"].away = True
        until(lambda: eye.gaps("gate"), seconds=60, why=recorder.log.read_text)
        while_it_runs = facts("coverage", "--from", "10m", site=site)
    picture, drawing = tmp_path / "line.png", tmp_path / "line.svg"
    said("coverage", "--from", "10m", "-o", picture, site=site)
    said("coverage", "--from", "10m", "--camera", "gate", "-o", drawing, site=site)
    for found in (while_it_runs, facts("coverage", "--from", "10m", site=site)):
        assert found.keys() == {"lobby", "gate"}
        for line in found.values():
            assert "unexplained" not in line["seconds"]
            assert sum(line["seconds"].values()) == pytest.approx(600)
        assert {"footage", "gap", "not-recorded"} <= found["gate"]["seconds"].keys()
    *until_then, after = [one["detail"] for one in found["gate"]["stretches"] if one["state"] == "gap"]
    assert after == "recorder-down"
    if until_then[0] == "recorder-down":  # unless a keyframe met the recorder at the door
        del until_then[0]
    assert until_then
    assert set(until_then) <= {"camera-unreachable", "stream-error"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert drawing.read_text().count("<rect") >= 5


class Meanwhile:
    """A catalogue beside which a recorder goes on: ``does`` comes after each answer, before whoever asked
    has it."""

    def __init__(self, catalogue, does):
        self._catalogue, self._does = catalogue, does

    def __getattr__(self, name):
        def ask(*args):
            found = getattr(self._catalogue, name)(*args)
            self._does()
            return found

        return ask


def test_footage_that_moves_while_it_is_asked_for_is_not_missed(tmp_path):
    settings = {"videostore.yaml": "version: 1\nsite: test\nkeyring: {ahead: 1h}\n"}
    composition.create(tmp_path / "site", name="test", overrides=settings)
    site, camera = Site.load(tmp_path / "site"), Camera(uuid4(), "lobby", "rtsp://127.0.0.1:1/x")
    start, length = datetime.now(UTC) - timedelta(minutes=1), timedelta(seconds=2)
    with composition.Parts(site) as parts:
        catalogue, numbers = parts.catalogue, count()
        parts.clock = SettableClock(start)
        parts.ledger.append(Event.CAMERA_ADDED, actor="operator", body={"camera_id": str(camera.id)})
        uploader = Uploader(parts.spool, parts.store, catalogue, parts.ledger, now=parts.clock.now)

        def record():
            number = next(numbers)
            span = Span(start + number * length, start + (number + 1) * length)
            key_id = KeyId.covering(span.start, timedelta(hours=1))
            segment = facts_of(b"sealed", camera_id=camera.id, span=span, sequence=number, key_id=key_id)
            parts.spool.commit(segment, b"sealed", groups=[])

        def goes_on():
            record()
            uploader.upload_all()

        record()
        record()
        parts.catalogue = Meanwhile(catalogue, goes_on)
        site.announce("recorder", {})
        first, last = composition.coverage(parts, camera, Span(start, start + 30 * length))
        assert (first.state, last.state) == (State.FOOTAGE, State.OPEN)
        assert first.span.duration >= 2 * length
        assert next(numbers) > 3, "it went on"


def test_passwords_are_in_no_process_list_no_log_and_no_catalogue(site, cameras, tmp_path):
    eye = Eye(site)
    with running(site, "recorder") as recorder:
        until(lambda: all(eye.stored().values()), seconds=60, why=recorder.log.read_text)
        cameras.cameras["gate"].away = True  # so that errors are logged too
        until(lambda: "camera.lost" in recorder.log.read_text(), seconds=60)
        own = Path(f"/proc/{recorder.process.pid}")
        processes = [(own / name).read_bytes() for name in ("cmdline", "environ")]
    everything = b"".join([*processes, *(path.read_bytes() for path in site.rglob("*") if _is_public(path))])
    assert b"rtsp://" in everything
    for secret in (b"open sesame", b"open%20sesame", b"officer:"):
        assert secret not in everything


def _is_public(path):
    return path.is_file() and "secrets" not in path.parts


def test_status_and_search_say_what_the_recorder_did(site):
    eye = Eye(site)
    with running(site, "recorder") as recorder:
        until(lambda: all(eye.stored().values()), seconds=60, why=recorder.log.read_text)
        status = facts("status", site=site)
        assert status["running"]["recorder"].startswith("http://127.0.0.1:")
        assert {row["camera"] for row in status["cameras"] if row["footage_until"]} == {"lobby", "gate"}
    assert facts("status", site=site)["running"] == {"recorder": "", "retention": "", "gate": ""}


def test_a_segment_taken_from_the_store_is_missed(site):
    eye = Eye(site)
    with running(site, "recorder") as recorder:
        until(lambda: all(eye.stored().values()), seconds=60, why=recorder.log.read_text)
        assert {row["verdict"] for row in facts("verify", "segments", site=site)} == {"whole"}
    found = facts("verify", "segments", site=site)
    assert {row["verdict"] for row in found} == {"whole"}
    next((site / "store").rglob("*.age")).unlink()
    done = videostore("verify", "segments", "--json", site=site)
    assert done.returncode == 70
    assert "segments are missing" in done.stderr
    assert [row["verdict"] for row in json.loads(done.stdout)].count("broken") == 1
