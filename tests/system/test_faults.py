"""What cameras do wrong, all at once, against one recorder: every frame is stored or in a gap with a reason.

One recorder, a camera for each fault, and one without any: whatever happens to the others, it loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event, Thread
from uuid import uuid4

import pytest

from tests.cameras import self_signed
from tests.premises import HOUR, Premises
from tests.servers import until
from videostore.domain.camera import Camera, Transport
from videostore.domain.segment import Gap, GapReason, KeyId, Span
from videostore.recorder import session, sources
from videostore.recorder.choice import ChosenSource
from videostore.recorder.native import source as native_source
from videostore.recorder.session import Recording
from videostore.recorder.sources import RtspSource
from videostore.recorder.supervisor import Recorder
from videostore.recorder.upload import Uploader
from videostore.synthetic.accounting import account
from videostore.synthetic.film import out_of_step
from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import Stream, stream
from videostore.synthetic.tone import LOOP_SECONDS, tone

HEALTHY, FAULTY, HEALED = 3.0, 4.0, 5.0  # seconds before, during and after the faults
STALL = timedelta(seconds=1)
EVER = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@dataclass
class Fault:
    """``at_first`` holds from the start, ``begins`` and ``ends`` change the camera while it runs.

    ``reasons`` are those its gaps may have: START for what comes before the first keyframe and after the
    last frame, and the fault's own. ``pieces`` is how many uninterrupted runs of footage there are.
    """

    reasons: set[GapReason]
    pieces: int
    at_first: dict[str, object] = field(default_factory=dict)
    begins: Callable[[SyntheticCamera], None] = lambda camera: None
    ends: Callable[[SyntheticCamera], None] = lambda camera: None
    transport: Transport = Transport.TCP
    login: tuple[str, str] | None = None
    film: Callable[[], Stream] = stream
    sound: bool = False
    others: Callable[[], list[Stream]] = list
    by_libav: bool = False


def setting(**values):
    def change(camera):
        for name, value in values.items():
            setattr(camera, name, value)

    return change


def small():
    return stream(4, 320, 180)


def rich():
    return stream(4, 1280, 720)


def newer():
    return stream(4, codec="hevc", b_frames=2)


def as_long_as_sound():
    return stream(LOOP_SECONDS)


START = GapReason.RECORDER_DOWN
FAULTS = {
    "none": Fault({START}, 1),
    "stall": Fault(
        {START, GapReason.CAMERA_UNREACHABLE}, 2, begins=setting(silent=True), ends=setting(silent=False)
    ),
    "abort": Fault(
        {START, GapReason.CAMERA_UNREACHABLE, GapReason.STREAM_ERROR},
        2,
        begins=setting(away=True),
        ends=setting(away=False),
    ),
    "hang in DESCRIBE": Fault(
        {START, GapReason.CAMERA_UNREACHABLE},
        2,
        begins=setting(silent=True, hangs="DESCRIBE"),
        ends=setting(silent=False, hangs=""),
    ),
    "loss": Fault({START, GapReason.PACKET_LOSS}, 1, {"loss": 0.01}, film=rich),
    "loss of datagrams": Fault(
        {START, GapReason.PACKET_LOSS}, 1, {"loss": 0.01}, film=rich, transport=Transport.UDP
    ),
    "timestamp jump": Fault({START, GapReason.STREAM_ERROR}, 2, begins=setting(jump_seconds=3600.0)),
    "timestamp jump back": Fault({START, GapReason.STREAM_ERROR}, 2, begins=setting(jump_seconds=-3600.0)),
    "resolution change": Fault(
        {START}, 1, begins=lambda camera: setattr(camera, "stream", small()), others=lambda: [small()]
    ),
    "codec change": Fault(
        {START, GapReason.CAMERA_UNREACHABLE, GapReason.STREAM_ERROR},
        2,
        begins=lambda camera: setting(away=True, stream=newer())(camera),
        ends=setting(away=False),
        others=lambda: [newer()],
    ),
    "start inside a group": Fault({START}, 1, {"mid_gop": True}),
    "wrong password": Fault(
        {GapReason.CAMERA_UNREACHABLE},
        0,
        {"user": "officer", "password": "right"},
        login=("officer", "wrong"),
    ),
    "datagrams": Fault({START}, 1, transport=Transport.UDP),
    "a clock of its own": Fault({START}, 1, {"clock_offset_seconds": 7200.0}),
    "no sender reports": Fault({START}, 1, {"reports": False}),
    "B-frames": Fault({START}, 1, film=lambda: stream(4, b_frames=2)),
    "H.265": Fault({START}, 1, film=lambda: stream(4, codec="hevc")),
    "MJPEG": Fault({START}, 1, film=lambda: stream(4, codec="mjpeg")),
    "sound": Fault({START}, 1, {"tone": tone("aac")}, film=as_long_as_sound, sound=True),
    "sound in datagrams": Fault(
        {START},
        1,
        {"tone": tone("pcm_mulaw")},
        transport=Transport.UDP,
        film=as_long_as_sound,
        sound=True,
    ),
    "sound and no reports": Fault(
        {START}, 1, {"tone": tone("aac"), "reports": False}, film=as_long_as_sound, sound=True
    ),
    "sound of G.711": Fault({START}, 1, {"tone": tone("pcm_alaw")}, film=as_long_as_sound, sound=True),
    "sound that does not arrive": Fault(
        {START}, 1, {"tone": tone("aac"), "sound_loss": 0.1}, film=as_long_as_sound, sound=True
    ),
    "loss beside sound": Fault(
        {START, GapReason.PACKET_LOSS}, 1, {"tone": tone("aac"), "loss": 0.01}, film=rich, sound=True
    ),
    "stall of the picture alone": Fault(
        {START, GapReason.CAMERA_UNREACHABLE},
        2,
        {"tone": tone("aac")},
        begins=setting(blind=True),
        ends=setting(blind=False),
        film=as_long_as_sound,
        sound=True,
    ),
    "sound not wanted": Fault({START}, 1, {"tone": tone("aac")}),
    "wrong certificate": Fault({GapReason.CAMERA_UNREACHABLE}, 0),
}
UNTRUSTED = ("wrong certificate", "wrong certificate by libav")
OF_BOTH = ("stall", "abort", "hang in DESCRIBE", "loss", "timestamp jump", "resolution change",
           "codec change", "start inside a group", "B-frames", "wrong certificate", "sound",
           "sound not wanted", "loss beside sound", "stall of the picture alone")  # fmt: skip
FAULTS |= {f"{name} by libav": replace(FAULTS[name], by_libav=True) for name in OF_BOTH}
"""Cameras have the receiver that is chosen for them; these are given to libav as well."""
FAULTS["stall of the picture alone by libav"].reasons = {
    *FAULTS["stall of the picture alone"].reasons,
    GapReason.STREAM_ERROR,  # it asks for a stream of which nothing is seen yet
}


BY_ARRIVAL = {"a clock of its own", "no sender reports", "sound and no reports"} | {
    name for name, fault in FAULTS.items() if fault.by_libav
}
"""Nothing is believed of when these captured, or at first: arrival is all there is."""


ON_TIME = STALL.total_seconds() / 4
"""Seconds: a run whose cameras sent later is judged for want of a better one."""


class Sent(list[tuple[int, float]]):
    """As ``SyntheticCamera.sent``; ``late`` is by how many seconds a picture left after its time, at most."""

    late = 0.0

    def append(self, picture):
        self.late = max(self.late, time.time() - picture[1])
        super().append(picture)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as opened:
        for adapter in (sources, native_source):
            patch.setattr(adapter, "_OPENING", timedelta(seconds=2))
        patch.setattr(session, "_LONGEST_PAUSE", 1.0)  # so that all come back before the end
        runs = []
        while len(runs) < 4:  # cameras that a busy machine held up have faults that nobody asked for
            runs.append(Run(root / str(len(runs)), opened))
            if runs[-1].late < ON_TIME:
                break
        yield min(runs, key=lambda run: run.late)


class Run:
    def __init__(self, root, opened):
        root.mkdir()
        self.premises = Premises(root)
        now = datetime.now(UTC)
        self.premises.clock.at = now
        for ring in self.premises.keyrings.values():
            ring.create_ahead()
        context, _ = self_signed(root)
        self.sources = {name: _source(name, fault) for name, fault in FAULTS.items()}
        trusted = [one for name, one in self.sources.items() if name not in UNTRUSTED]
        plain = opened.enter_context(SyntheticServer(trusted))
        secret = opened.enter_context(
            SyntheticServer([self.sources[name] for name in UNTRUSTED], tls=context)
        )
        self.cameras = {}
        for name, fault in FAULTS.items():
            server = secret if name in UNTRUSTED else plain
            path = self.sources[name].path
            self.cameras[name] = Camera(
                uuid4(), path, server.url(path), transport=fault.transport, sound=fault.sound
            )
        self._record()

    def _record(self):
        premises = self.premises

        def now():
            return datetime.now(UTC)

        recording = Recording(
            source=self,
            spool=premises.spool,
            keys=premises.published(),
            key_id=lambda _camera, moment: KeyId.covering(moment, HOUR),
            segment=timedelta(seconds=2),
            max_clock_offset=timedelta(seconds=2),
            now=now,
        )
        how = {"stall": STALL, "now": now, "root": premises.root}
        self.libav, self.chosen = RtspSource(**how), ChosenSource(**how)
        logins = {self.cameras[name]: fault.login for name, fault in FAULTS.items()}
        uploader = Uploader(premises.spool, premises.store, premises.catalogue, premises.ledger, now=now)
        recorder = Recorder(
            recording,
            uploader,
            cameras=lambda: list(self.cameras.values()),
            credentials=logins.get,
        )
        before, self.began = set(threading.enumerate()), datetime.now(UTC)
        stop, wait = Event(), Event()
        thread = Thread(target=recorder.run, args=[stop])
        thread.start()
        wait.wait(HEALTHY)
        self._until_recorded(since=self.began)
        for name, fault in FAULTS.items():
            fault.begins(self.sources[name])
        wait.wait(FAULTY)
        for name, fault in FAULTS.items():
            fault.ends(self.sources[name])
        healed = datetime.now(UTC)
        wait.wait(HEALED)
        self._until_recorded(since=healed)
        self.ended = datetime.now(UTC)
        stop.set()
        thread.join()
        for one in set(threading.enumerate()) - before:
            if one.name == "upload" or one.name.startswith("camera "):
                one.join(60)  # the recorder waits for none that is slow to end
        while uploader.upload_all():  # what it left for its next start
            pass

    def _until_recorded(self, *, since):
        """Wait until there is footage that begins ``since`` then of every camera that can be recorded: on a
        busy machine that takes longer than on another."""
        cameras = [camera for name, camera in self.cameras.items() if FAULTS[name].pieces]

        def is_recorded(camera):
            waits = self.premises.spool.held(camera.id)
            stored = self.premises.catalogue.segments([camera.id], Span(since, EVER.end))
            return any(one.span.start >= since for one in [*waits, *stored])

        until(lambda: all(map(is_recorded, cameras)), seconds=60)

    @property
    def late(self):
        """Return by how many seconds a picture left after its time, at most."""
        return max(one.sent.late for name, one in self.sources.items() if "B-frames" not in name)

    def held_up(self, name):
        """Return by how many seconds a busy machine may have put footage of a camera out of its place: it
        sends late, and receives late."""
        return 2 * self.late if name in BY_ARRIVAL else 0.0

    def open(self, camera, credentials):
        """Be the CameraSource: each camera has the receiver that is asked of it."""
        by_libav = any(FAULTS[name].by_libav for name, one in self.cameras.items() if one is camera)
        return (self.libav if by_libav else self.chosen).open(camera, credentials)

    def segments(self, name):
        return self.premises.catalogue.segments([self.cameras[name].id], EVER)

    def gaps(self, name):
        return self.premises.catalogue.gaps([self.cameras[name].id], EVER)

    def stored(self, name):
        ring = next(iter(self.premises.keyrings.values()))
        return [
            (one.span, ring.open(one.key_id, self.premises.store.get(one.object_key)))
            for one in self.segments(name)
        ]

    def account(self, name):
        fault = FAULTS[name]
        stored = self.stored(name)
        after = Gap(Span(self.ended, EVER.end), self.cameras[name].id, GapReason.RECORDER_DOWN)
        films = [fault.film(), *fault.others()]
        return account(films, self.sources[name].sent, stored, [*self.gaps(name), after])


def _source(name, fault):
    source = SyntheticCamera(name.replace(" ", "-").lower(), fault.film(), sent=Sent())
    setting(**fault.at_first)(source)
    return source


@pytest.mark.parametrize("name", FAULTS)
def test_every_frame_that_was_sent_is_stored_or_in_a_gap(outcome, name):
    found = outcome.account(name)
    assert found.unaccounted == 0
    assert found.stored > 0 or not FAULTS[name].pieces
    assert found.stored + found.in_gaps == found.sent


@pytest.mark.parametrize("name", FAULTS)
def test_the_gaps_have_the_reason_of_the_fault_and_no_other(outcome, name):
    found, possible = {gap.reason for gap in outcome.gaps(name)}, FAULTS[name].reasons
    assert found <= possible
    assert found - {START} or possible == {START}


@pytest.mark.parametrize("name", FAULTS)
def test_footage_is_in_as_many_pieces_as_the_fault_breaks_it_into(outcome, name):
    segments = outcome.segments(name)
    holes = [(later.span.start - earlier.span.end).total_seconds() for earlier, later in pairwise(segments)]
    least, most = (sum(hole > bound for hole in holes) for bound in (0.1 + outcome.held_up(name), 0.1))
    assert least + bool(segments) <= FAULTS[name].pieces <= most + bool(segments)


@pytest.mark.parametrize("name", FAULTS)
def test_footage_and_gaps_together_leave_no_hole(outcome, name):
    spans = sorted(one.span for one in [*outcome.segments(name), *outcome.gaps(name)])
    end = spans[0].end
    for span in spans[1:]:
        assert span.start - end < timedelta(milliseconds=100), name
        end = max(end, span.end)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if "loss" not in name])
def test_nothing_is_stored_that_was_not_sent(outcome, name):
    assert outcome.account(name).strange == 0


@pytest.mark.parametrize(
    "name", [name for name, fault in FAULTS.items() if fault.sound and "loss" not in name]
)
def test_what_is_heard_and_what_is_seen_keep_step(outcome, tmp_path, name):
    steps = []
    for at, (_, movie) in enumerate(outcome.stored(name)):
        (tmp_path / f"{at}.mp4").write_bytes(movie)
        steps += out_of_step(tmp_path / f"{at}.mp4")
    assert len(steps) >= (5 if outcome.late < ON_TIME else 2)
    assert max(map(abs, steps)) < 0.1 + outcome.held_up(name), steps  # seconds


@pytest.mark.parametrize("name", [name for name in FAULTS if "not wanted" in name])
def test_sound_that_is_not_wanted_is_not_asked_for(outcome, name):
    assert outcome.sources["sound"].heard > 0
    assert outcome.sources[name].heard == 0
    assert all(b"soun" not in movie for _, movie in outcome.stored(name))
