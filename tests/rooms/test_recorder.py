"""The recorder: every frame that arrived is in a sealed segment, whatever happens; the rest is a gap."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from threading import Barrier, Event, Thread
from uuid import uuid4

import av
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.catalogue import MemoryCatalogue
from tests.fakes.segment_store import MemorySegmentStore
from tests.premises import ledger_in
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.errors import (
    CameraStreamInvalid,
    CameraUnreachable,
    CatalogueUnavailable,
    DiskFull,
    KeyUnavailable,
    StoreUnavailable,
)
from videostore.domain.segment import MICROSECOND, Gap, GapReason, KeyId, Span
from videostore.ports import Packet, StreamInfo
from videostore.recorder import session as session_module
from videostore.recorder import supervisor
from videostore.recorder.cutter import JUMP, REORDER, SLEW, TOLERANCE, Cutter, Group, Timeline
from videostore.recorder.growing import SMALLEST
from videostore.recorder.muxer import Muxer, _times
from videostore.recorder.record import Progress
from videostore.recorder.session import CameraSession, Recording
from videostore.recorder.spool import Spool, facts_of
from videostore.recorder.supervisor import Recorder
from videostore.recorder.upload import Bandwidth, Uploader
from videostore.store.directory import DirectoryStore
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import FRAME_RATE, GOP, HEIGHT, WIDTH, stream

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
TICKS = 90_000 // FRAME_RATE
TIME_BASE = Fraction(1, 90_000)
CAMERA = Camera(uuid4(), "lobby", "rtsp://127.0.0.1/lobby", "")


def packet(number, *, keyframe=None, at=START, claimed=None, picture=None):
    frames = (picture or stream()).frames
    units = frames[number % len(frames)]
    return Packet(
        data=b"".join(b"\x00\x00\x00\x01" + unit for unit in units),
        pts=number * TICKS,
        keyframe=number % GOP == 0 if keyframe is None else keyframe,
        received_at=at + number * SECOND / FRAME_RATE,
        claimed_at=claimed,
    )


def ticks(duration):
    return int(duration.total_seconds() * 90_000)


INFO = StreamInfo("h264", WIDTH, HEIGHT, TIME_BASE, b"")


FILLER = b"\x00\x00\x00\x01\x0c" + SMALLEST * b"\xff" + b"\x80"
"""A unit that nobody shows (ITU-T H.264, 7.3.2.7): with it a group is large."""


def heavy(packets, *, every=GOP):
    """Make the groups that begin with each so-many-th frame large."""
    return [
        one if number % every else replace(one, data=one.data + FILLER) for number, one in enumerate(packets)
    ]


# --- cutter ---


@given(st.lists(st.integers(13, 40), min_size=1, max_size=6), st.integers(0, 5))
def test_groups_hold_every_frame_from_the_first_keyframe_on_once_and_in_order(lengths, before):
    cutter, groups, number = Cutter(TIME_BASE), [], 0
    numbers = []
    for position in range(before):
        assert cutter.add(packet(position, keyframe=False)) is None
        number += 1
    for length in lengths:
        for position in range(length):
            numbers.append(number)
            groups.append(cutter.add(packet(number, keyframe=position == 0)))
            number += 1
    groups = [group for group in [*groups, cutter.flush()] if group]
    assert [len(group.packets) for group in groups] == lengths
    assert [one.pts // TICKS for group in groups for one in group.packets] == numbers
    assert all(group.packets[0].keyframe for group in groups)
    assert sum(group.duration for group in groups) == len(numbers) * TICKS


@pytest.mark.parametrize("step", [0, -ticks(REORDER) - 1, ticks(JUMP) + 1, 2**33])
def test_timestamps_that_jump_end_the_connection(step):
    cutter = Cutter(TIME_BASE)
    cutter.add(packet(0))
    with pytest.raises(CameraStreamInvalid):
        cutter.add(replace(packet(1), pts=step))


def test_a_camera_that_sends_no_keyframe_is_told_of():
    cutter = Cutter(TIME_BASE)
    cutter.add(packet(0))
    later = (packet(number, keyframe=False) for number in range(1, 61 * FRAME_RATE))
    with pytest.raises(CameraStreamInvalid, match="no keyframe for 60 s"):
        list(map(cutter.add, later))


offsets = st.timedeltas(-timedelta(days=400), timedelta(days=400))


@pytest.mark.parametrize(
    ("came", "kept"),
    [([0, 3, 1, 2], 4), ([0, 3, 1], 1), ([0, 3], 1), ([0, 3, 1, 2, 6], 4), ([0, 1, 2, 9], 4)],
)
def test_a_stream_that_ends_among_b_frames_ends_where_no_frame_is_missing(came, kept):
    """Without B-frames a hole is a frame that was lost, and what comes after it is kept. Of two frames nobody
    can tell: the second is left to the gap."""
    cutter = Cutter(TIME_BASE)
    for number in came:
        cutter.add(packet(number, keyframe=number == 0))
    group = cutter.flush()
    assert [one.pts // TICKS for one in group.packets] == came[:kept]
    assert group.duration >= max(came[:kept]) * TICKS


def test_a_stream_known_to_have_b_frames_may_end_before_the_first_of_a_group():
    cutter = Cutter(TIME_BASE)
    for number in (0, *(start + step for start in range(0, 24, 3) for step in (3, 1, 2)), 25, 28):
        cutter.add(packet(number, keyframe=number in {0, 25}))
    assert [one.pts // TICKS for one in cutter.flush().packets] == [25]


@given(st.permutations(range(12)), st.integers(1, 9000))
def test_whatever_the_order_of_decoding_no_frame_is_shown_before_it_is_decoded(order, frame):
    """Nor is one decoded out of turn, and together the frames last as long as their group."""
    shown = [0, *((number + 1) * frame for number in order)]
    packets = [replace(packet(0, keyframe=not pts), pts=1000 + pts) for pts in shown]
    times = _times(Group(packets, 13 * frame))
    assert [pts for pts, _, _ in times] == shown
    assert all(dts <= pts for pts, dts, _ in times)
    assert all(after[1] == before[1] + before[2] > before[1] for before, after in pairwise(times))
    assert sum(duration for _, _, duration in times) == 13 * frame


def alone(received, claimed):
    return Group([replace(packet(0), received_at=received, claimed_at=claimed)], 90_000)


@given(st.lists(st.tuples(offsets, st.timedeltas(timedelta(0), timedelta(seconds=3))), min_size=1))
def test_no_clock_of_a_camera_places_footage_after_its_receipt(measurements):
    timeline, received = Timeline(max_offset=timedelta(seconds=2)), START
    for offset, waited in measurements:
        received += waited + SECOND
        claimed = received + offset
        start = timeline.place(alone(received, claimed), TIME_BASE)
        assert start <= received
        timeline.ended(start + SECOND)


@given(st.lists(st.timedeltas(-TOLERANCE / 2, TOLERANCE / 2), min_size=2))
def test_segments_of_one_connection_stay_together_while_clocks_agree(jitter):
    timeline = Timeline(max_offset=timedelta(seconds=2))
    end = None
    for number, late in enumerate(jitter):
        received = START + number * SECOND + TOLERANCE
        start = timeline.place(alone(received, START + number * SECOND + late), TIME_BASE)
        if end is not None:
            assert abs(start - end) <= TOLERANCE
        end = start + SECOND
        timeline.ended(end)


def test_a_drifting_clock_is_followed_in_small_steps():
    timeline = Timeline(max_offset=timedelta(seconds=2))
    first = timeline.place(alone(START, START), TIME_BASE)
    timeline.ended(first + SECOND)
    later = START + SECOND + timedelta(milliseconds=300)
    assert timeline.place(alone(later, later), TIME_BASE) == START + SECOND + SLEW


@given(st.lists(st.lists(st.timedeltas(timedelta(0), TOLERANCE / 2), min_size=4, max_size=4), min_size=2))
def test_a_frame_that_was_stamped_late_makes_no_segments_overlap(lateness):
    """As long as one frame of each group is stamped in time."""
    timeline, end = Timeline(max_offset=timedelta(seconds=2)), None
    for number, late in enumerate(lateness):
        late[number % 4] = timedelta(0)
        begins = START + number * SECOND
        frames = [
            replace(packet(0, keyframe=not at), pts=at * 22_500, received_at=begins + at * SECOND / 4 + one)
            for at, one in enumerate(late)
        ]
        assert timeline.place(Group(frames, 90_000), TIME_BASE) == begins
        assert end in {None, begins}
        end = begins + SECOND
        timeline.ended(end)


def test_a_camera_that_sends_what_it_had_kept_is_placed_by_its_first_frame():
    kept = [replace(packet(0, keyframe=not at), pts=at * 90_000, received_at=START) for at in range(4)]
    assert Timeline(max_offset=SECOND).place(Group(kept, 360_000), TIME_BASE) == START


# --- muxer: real decoders agree ---


def groups(count):
    cutter = Cutter(TIME_BASE)
    found = [cutter.add(packet(number)) for number in range(count * GOP + 1)]
    return [group for group in found if group]


def test_ffprobe_and_libav_agree_with_us_about_a_group(tmp_path, ffprobe_program):
    film = tmp_path / "group.mp4"
    film.write_bytes(Muxer(INFO).mux(groups(1)[0]))
    answer = probe(ffprobe_program, film)
    assert answer["codec_name"] == "h264"
    assert (answer["width"], answer["height"]) == (WIDTH, HEIGHT)
    assert int(answer["nb_read_frames"]) == GOP
    assert float(answer["duration"]) == pytest.approx(1.0)
    assert frame_numbers(film) == list(range(GOP))


def probe(program, film):
    command = [program, "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(film)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    (answer,) = json.loads(done.stdout)["streams"]
    return answer


def test_frames_that_are_none_are_refused():
    group = groups(1)[0]
    broken = replace(group, packets=[replace(one, data=b"not a frame") for one in group.packets])
    with pytest.raises(CameraStreamInvalid):
        Muxer(INFO).mux(broken)


# --- session ---


class Film:
    """A CameraSource that plays frames; then hangs up, or what ``ends`` says."""

    def __init__(self, *parts, ends=None):
        self.parts = list(parts)
        self.stop = Event()
        self.info = INFO
        self.ends = ends or CameraUnreachable("hung up")

    def open(self, camera, credentials):
        if not self.parts:
            self.stop.set()
            raise CameraUnreachable("away")
        return _Part(self, self.parts.pop(0))


class _Part:
    def __init__(self, film, packets):
        self.film, self.info, self._packets = film, film.info, packets

    def packets(self) -> Iterator[Packet]:
        yield from self._packets
        raise self.film.ends

    def close(self):
        pass


class Hours:
    """Published hour keys whose private halves the test keeps. ``missing`` has none."""

    def __init__(self):
        self.identities = {}
        self.missing = False

    def recipient(self, key_id):
        if self.missing:
            raise KeyUnavailable("no key")
        identity = self.identities.setdefault(key_id, pyrage.x25519.Identity.generate())
        return str(identity.to_public())

    def open(self, segment, sealed):
        return pyrage.decrypt(sealed, [self.identities[segment.key_id]])


class Desk:
    """A spool, keys and a clock, to record films with."""

    def __init__(self, root):
        self.spool = Spool(root / "spool")
        self.hours = Hours()
        self.now = START

    def session(self, film, *, segment=2 * SECOND):
        recording = Recording(
            source=film,
            spool=self.spool,
            keys=self.hours,
            key_id=lambda _camera, moment: KeyId.covering(moment, HOUR),
            segment=segment,
            max_clock_offset=2 * SECOND,
            now=lambda: self.now,
        )
        return CameraSession(CAMERA, recording, credentials=lambda: None)

    def record(self, *parts, **how):
        film = Film(*parts, ends=how.pop("ends", None))
        self.session(film, **how).run(film.stop)
        return self.spool.pending()

    def opened(self, segment):
        return self.hours.open(segment, self.spool.read(segment))

    def gaps(self):
        return sorted(gap for _, gap in self.spool.gaps())


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "_pause", lambda failures: 0.0)
    return Desk(tmp_path)


def frames(count, first=0, **how):
    return [packet(number, **how) for number in range(first, first + count)]


def test_every_frame_is_in_a_segment_and_segments_touch(desk, tmp_path):
    segments = desk.record(frames(5 * GOP + 7))
    assert [one.sequence for one in segments] == [0, 1, 2]
    assert [one.span.duration.total_seconds() for one in segments] == pytest.approx(
        [2, 2, 1 + 7 / FRAME_RATE]
    )
    assert segments[0].span.start == START
    assert all(a.span.end == b.span.start for a, b in pairwise(segments))
    numbers = []
    for segment in segments:
        film = tmp_path / "film.mp4"
        film.write_bytes(desk.opened(segment))
        numbers += frame_numbers(film)
    assert numbers == [number % len(stream().frames) for number in range(5 * GOP + 7)]
    assert desk.gaps() == []


class Counted(bytes):
    """Bytes of a frame that say how many of their kind there are."""

    there = 0

    def __init__(self, *_):
        Counted.there += 1

    def __del__(self):
        Counted.there -= 1


def test_frames_are_in_memory_only_until_their_group_is_kept(desk):
    most = 0

    def sends():
        nonlocal most
        for one in heavy(frames(5 * GOP)):
            most = max(most, Counted.there)
            yield replace(one, data=Counted(one.data))

    desk.record(sends(), segment=MINUTE)
    assert most <= GOP + 1


def test_large_groups_and_small_ones_make_the_same_segments(desk, tmp_path):
    segments = desk.record(heavy(frames(7 * GOP), every=3 * GOP), segment=3 * SECOND)
    assert [one.span.duration.total_seconds() for one in segments] == [3, 3, 1]
    numbers = []
    for segment in segments:
        (tmp_path / "film.mp4").write_bytes(desk.opened(segment))
        numbers += frame_numbers(tmp_path / "film.mp4")
    assert numbers == [number % len(stream().frames) for number in range(7 * GOP)]
    assert not list((tmp_path / "spool" / "open").rglob("*.*"))


def test_a_disk_that_fills_in_a_segment_loses_the_group_that_found_no_room(desk, tmp_path):
    """What of the segment was on the disk is a segment; the next connection begins another."""
    desk.spool = Spool(tmp_path / "spool", limit_bytes=4 * SMALLEST)
    first, *_ = desk.record(heavy(frames(5 * GOP)), segment=10 * SECOND)
    (tmp_path / "film.mp4").write_bytes(desk.opened(first))
    kept = frame_numbers(tmp_path / "film.mp4")
    assert kept == list(range(2 * GOP))
    assert first.span == Span(START, START + 2 * SECOND)
    assert not list((tmp_path / "spool" / "open").rglob("*.*"))
    assert desk.spool.size_bytes() == sum(one.size_bytes for one in desk.spool.pending()) <= 4 * SMALLEST


@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 2), ("hevc", 0), ("hevc", 3), ("mjpeg", 0)])
def test_segments_of_every_codec_decode_one_by_one_and_joined(desk, tmp_path, codec, b_frames):
    film = stream(4, codec=codec, b_frames=b_frames)

    def sent(number):
        units = film.frames[number]
        data = units[0] if codec == "mjpeg" else b"".join(b"\x00\x00\x00\x01" + unit for unit in units)
        at = START + number * SECOND / FRAME_RATE
        keyframe = codec == "mjpeg" or number % GOP == 0
        return Packet(data, film.numbers[number] * TICKS, keyframe, at, at)

    camera = Film([sent(number) for number in range(4 * GOP)])
    camera.info = replace(INFO, codec=codec)
    desk.session(camera).run(camera.stop)
    segments = desk.spool.pending()
    movies = [cmaf.parse(desk.opened(segment)) for segment in segments]
    assert [one.origin for one in movies] == [
        cmaf.origin_of(one.camera_id, one.span.start) for one in segments
    ]
    assert movies[0].frames >= 2 * GOP
    one_by_one = []
    for movie in movies:
        (tmp_path / "film.mp4").write_bytes(cmaf.join(movie.init, movie.fragments))
        one_by_one += frame_numbers(tmp_path / "film.mp4")
    assert one_by_one == list(range(4 * GOP))
    fragments = [fragment for movie in movies for fragment in movie.fragments]
    (tmp_path / "film.mp4").write_bytes(cmaf.join(movies[0].init, fragments))
    assert frame_numbers(tmp_path / "film.mp4") == one_by_one


def test_the_age_program_opens_a_segment_and_two_decoders_agree_on_what_is_in_it(
    desk, tmp_path, age_program, ffprobe_program
):
    (segment,) = desk.record(frames(2 * GOP))
    identity = tmp_path / "identity"
    identity.write_text(f"{desk.hours.identities[segment.key_id]}\n")
    film = tmp_path / "segment.mp4"
    subprocess.run(
        [age_program, "-d", "-i", identity, "-o", film], input=desk.spool.read(segment), check=True
    )
    answer = probe(ffprobe_program, film)
    with av.open(str(film)) as container:
        decoded = list(container.decode(video=0))
        video = container.streams.video[0]
        assert video.codec_context.name == answer["codec_name"] == "h264"
        assert len(decoded) == int(answer["nb_read_frames"]) == 2 * GOP
        ours = segment.span.duration.total_seconds()
        assert float(video.duration * video.time_base) == float(answer["duration"]) == ours == 2.0


def test_only_sealed_bytes_are_on_the_disk_at_any_time(desk, tmp_path):
    film, seen = heavy(frames(5 * GOP), every=2 * GOP), {}

    def sent():
        for one in film:
            yield one
            files = (path for path in (tmp_path / "spool").rglob("*.age*"))
            seen.update({(path, len(body)): body for path in files if (body := path.read_bytes())})

    desk.record(sent(), segment=3 * SECOND)
    assert {path.suffix for path, _ in seen} == {".age", ".grows", ".ends"}
    for (path, _), body in seen.items():
        assert path.suffix == ".ends" or body.startswith(b"age-encryption.org/v1\n")
        assert b"moof" not in body
        assert b"avcC" not in body
        assert FILLER[:64] not in body


def test_the_name_of_a_spooled_file_says_everything_about_it(desk):
    segment = desk.record(frames(GOP))[0]
    assert segment.camera_id == CAMERA.id
    assert segment.sha256 == hashlib.sha256(desk.spool.read(segment)).hexdigest()
    assert segment.key_id == KeyId.covering(START, HOUR)


def test_a_connection_that_breaks_leaves_a_gap_with_its_reason(desk):
    later = START + 10 * SECOND
    segments = desk.record(frames(GOP), frames(GOP, at=later))
    assert [one.span.start for one in segments] == [START, later]
    assert desk.gaps() == [Gap(Span(START + SECOND, later), CAMERA.id, GapReason.CAMERA_UNREACHABLE)]


def test_a_recorder_that_was_not_running_leaves_a_gap_with_that_reason(desk):
    desk.record(frames(GOP))
    desk.now = START + HOUR
    desk.record(frames(GOP, at=START + HOUR))
    assert desk.gaps() == [Gap(Span(START + SECOND, START + HOUR), CAMERA.id, GapReason.RECORDER_DOWN)]


def test_an_outage_is_on_record_while_it_goes_on(desk):
    """Also after a restart in the middle of it: no second is counted twice."""
    desk.record(frames(GOP))
    desk.now = START + MINUTE
    desk.record()
    assert desk.gaps() == [Gap(Span(START + SECOND, START + MINUTE), CAMERA.id, GapReason.RECORDER_DOWN)]
    desk.now = START + 2 * MINUTE
    film = Film([])
    desk.session(film).run(film.stop)
    assert sum((gap.span.duration for gap in desk.gaps()), timedelta(0)) == 2 * MINUTE - SECOND


def test_a_camera_that_never_answered_has_a_gap_from_when_it_was_to_be_recorded(desk):
    class Away(Film):
        def open(self, camera, credentials):
            desk.now += MINUTE
            if desk.now >= START + 3 * MINUTE:
                self.stop.set()
            raise CameraUnreachable("away")

    film = Away()
    desk.session(film).run(film.stop)
    reasons = {gap.reason for gap in desk.gaps()}
    assert reasons == {GapReason.CAMERA_UNREACHABLE}
    assert [gap.span for gap in desk.gaps()] == [
        Span(START + at * MINUTE, START + (at + 1) * MINUTE) for at in range(3)
    ]


def test_a_camera_that_hangs_does_not_keep_its_footage_from_being_spooled(desk):
    """Nor does it write any more when it comes back."""
    hangs, goes_on = Event(), Event()

    class Hanging(Film):
        def open(self, camera, credentials):
            def packets():
                yield from frames(GOP + 5)
                hangs.set()
                goes_on.wait()
                yield from frames(GOP, GOP + 5)

            return _Part(self, packets())

    session = desk.session(Hanging())
    stop = Event()
    thread = Thread(target=session.run, args=[stop])
    thread.start()
    hangs.wait()
    stop.set()
    session.finish()
    (segment,) = desk.spool.pending()
    assert segment.span == Span(START, START + (GOP + 5) * SECOND / FRAME_RATE)
    goes_on.set()
    thread.join()
    assert desk.spool.pending() == [segment]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CameraStreamInvalid("nonsense"), GapReason.STREAM_ERROR),
        (DiskFull("full"), GapReason.SPOOL_OVERRUN),
        (KeyUnavailable("none"), GapReason.RECORDER_DOWN),
        (RuntimeError("a bug"), GapReason.STREAM_ERROR),
    ],
)
def test_each_failure_has_its_reason(desk, error, reason):
    desk.record(frames(GOP), frames(GOP, at=START + HOUR), ends=error)
    assert [gap.reason for gap in desk.gaps()] == [reason]


def test_without_a_key_nothing_is_written_in_the_clear(desk, tmp_path):
    desk.hours.missing = True
    assert desk.record(frames(3 * GOP)) == []
    assert not list((tmp_path / "spool").rglob("*.age"))


def test_numbers_go_on_after_a_restart(desk):
    desk.record(frames(GOP))
    desk.spool.drop(desk.spool.pending()[0])
    assert [one.sequence for one in desk.record(frames(GOP, at=START + HOUR))] == [1]


def test_a_segment_is_sealed_to_the_key_of_its_first_frame(desk):
    before = START + HOUR - SECOND
    segments = desk.record(frames(4 * GOP, at=before))
    assert [one.key_id.start for one in segments] == [START, START + HOUR]
    assert segments[0].span.end > START + HOUR


def test_a_picture_that_changes_its_size_begins_a_segment_with_a_header_of_its_own(desk, tmp_path):
    small = stream(2, 320, 180)
    film = [*frames(3 * GOP), *frames(2 * GOP, 3 * GOP, picture=small), *frames(GOP, 5 * GOP)]
    segments = desk.record(film, segment=10 * SECOND)
    sizes = []
    for segment in segments:
        path = tmp_path / "film.mp4"
        path.write_bytes(desk.opened(segment))
        with av.open(str(path)) as container:
            sizes.append((container.streams.video[0].width, sum(1 for _ in container.decode(video=0))))
    assert sizes == [(WIDTH, 3 * GOP), (320, 2 * GOP), (WIDTH, GOP)]
    assert all(one.span.end == following.span.start for one, following in pairwise(segments))


# --- spool ---


def sealed_segment(number, *, start=START, length=SECOND, camera=CAMERA):
    body = f"sealed {number} {length}".encode()
    span = Span(start + number * SECOND, start + number * SECOND + length)
    key_id = KeyId.covering(span.start, HOUR)
    return facts_of(body, camera_id=camera.id, span=span, sequence=number, key_id=key_id), body


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def test_groups_that_a_crash_left_become_segments(spool, tmp_path):
    for number in range(3):
        spool.keep_group(*sealed_segment(number))
    after = Spool(tmp_path / "spool")
    assert after.recover() == 3
    assert [one.sequence for one in after.pending()] == [0, 1, 2]
    assert (after.progress(CAMERA.id).next_sequence, after.progress(CAMERA.id).end) == (3, START + 3 * SECOND)
    assert after.recover() == 0


def test_groups_of_a_segment_that_is_whole_are_dropped_and_not_stored_twice(spool, tmp_path):
    parts = [sealed_segment(number) for number in range(2)]
    for part in parts:
        spool.keep_group(*part)
    whole, body = sealed_segment(0, length=2 * SECOND)
    spool.commit(whole, body, groups=[])  # power fails before the groups are dropped
    after = Spool(tmp_path / "spool")
    assert after.recover() == 0
    assert after.pending() == [whole]


def test_half_written_files_are_removed(spool, tmp_path):
    spool.commit(*sealed_segment(0), groups=[])
    (ready,) = (tmp_path / "spool" / "ready").iterdir()
    (ready / ".half.tmp").write_bytes(b"half")
    spool.recover()
    assert len(list(ready.iterdir())) == 1


def test_retention_in_another_process_takes_what_is_due_and_nothing_else(spool, tmp_path):
    spool.commit(*sealed_segment(0), groups=[])
    spool.keep_group(*sealed_segment(1))
    spool.commit(*sealed_segment(0, start=START + HOUR), groups=[])
    other = Spool(tmp_path / "spool")
    first, second = other.key_ids()
    assert (first.start, second.start) == (START, START + HOUR)
    assert other.remove(first) == 2
    assert other.remove(first) == 0
    assert [one.key_id for one in Spool(tmp_path / "spool").pending()] == [second]


def test_a_segment_that_retention_took_is_not_there(spool):
    segment, body = sealed_segment(0)
    spool.commit(segment, body, groups=[])
    spool.remove(segment.key_id)
    assert spool.read(segment) is None


def test_a_damaged_note_of_progress_counts_as_none(spool, tmp_path):
    spool.commit(*sealed_segment(0), groups=[])
    (note,) = (tmp_path / "spool" / "cameras").iterdir()
    note.write_text("{")
    assert spool.progress(CAMERA.id) == Progress()


def test_gaps_wait_until_they_are_taken(spool):
    gap = Gap(Span(START, START + SECOND), CAMERA.id, GapReason.PACKET_LOSS)
    spool.add_gap(gap)
    spool.add_gap(gap)
    assert [one for _, one in spool.gaps()] == [gap]


def roomy(tmp_path, segments):
    """Return a spool with room for so many of the segments that ``sealed_segment`` makes."""
    return Spool(tmp_path / "spool", limit_bytes=segments * len(sealed_segment(0)[1]))


def test_a_full_spool_gives_up_the_oldest_and_says_which_span_is_lost(tmp_path):
    spool = roomy(tmp_path, 3)
    for number in range(5):
        spool.commit(*sealed_segment(number), groups=[])
    assert [one.sequence for one in spool.pending()] == [2, 3, 4]
    lost = [gap for _, gap in spool.gaps()]
    assert [(gap.span.start, gap.reason) for gap in lost] == [
        (START + number * SECOND, GapReason.SPOOL_OVERRUN) for number in range(2)
    ]
    assert spool.size_bytes() == 3 * len(sealed_segment(0)[1])


def test_the_segment_being_recorded_is_never_given_up(tmp_path):
    spool = roomy(tmp_path, 2)
    for number in range(2):
        spool.keep_group(*sealed_segment(number))
    with pytest.raises(DiskFull):
        spool.keep_group(*sealed_segment(2))
    assert len(spool.held(CAMERA.id)) == 2


def test_what_was_given_up_is_a_gap_in_the_catalogue_and_leaves_nothing_behind(tmp_path):
    spool = roomy(tmp_path, 1)
    for number in range(3):
        spool.commit(*sealed_segment(number), groups=[])
    store, catalogue = MemorySegmentStore(), MemoryCatalogue()
    Uploader(spool, store, catalogue, ledger_in(tmp_path), now=lambda: START).upload_all()
    assert len(store.bodies) == 1
    assert catalogue.held_gaps == {Gap(Span(START, START + 2 * SECOND), CAMERA.id, GapReason.SPOOL_OVERRUN)}
    assert not list((tmp_path / "spool" / "lost").rglob("*.age"))


def test_room_that_uploads_and_retention_made_is_used_again(tmp_path):
    spool = roomy(tmp_path, 2)
    for number in range(10):
        spool.commit(*sealed_segment(number), groups=[])
        if number % 2:
            Spool(tmp_path / "spool").remove(sealed_segment(number)[0].key_id)  # another process
            spool.size_bytes()
        else:
            spool.drop(sealed_segment(number)[0])
    assert list(spool.gaps()) == []


# --- upload ---


class Depot:
    """A spool with three segments, and where they go."""

    def __init__(self, spool, ledger):
        self.spool = spool
        self.store, self.catalogue = MemorySegmentStore(), MemoryCatalogue()
        self.segments = [sealed_segment(number) for number in range(3)]
        for one in self.segments:
            spool.commit(*one, groups=[])
        self.ledger = ledger_in(ledger)
        self.uploader = Uploader(spool, self.store, self.catalogue, self.ledger, now=lambda: START)

    def complete(self):
        facts = {segment.object_key for segment, _ in self.segments}
        return facts == set(self.store.bodies) == set(self.catalogue.rows) and self.spool.pending() == []


@pytest.fixture
def depot(spool, tmp_path):
    return Depot(spool, tmp_path)


def test_segments_go_to_the_store_then_the_catalogue_then_leave_the_spool(depot):
    assert depot.uploader.upload_all() == 3
    assert depot.complete()


@pytest.mark.parametrize("down", ["store", "catalogue"])
def test_what_cannot_be_confirmed_stays_in_the_spool(depot, down):
    getattr(depot, down).down = True
    with pytest.raises(StoreUnavailable if down == "store" else CatalogueUnavailable):
        depot.uploader.upload_all()
    assert len(depot.spool.pending()) == 3
    getattr(depot, down).down = False
    depot.uploader.upload_all()
    assert depot.complete()


def test_a_power_cut_at_any_step_of_an_upload_is_finished_by_the_next_start(tmp_path):
    class Cut(BaseException):
        """The power fails: nothing catches it."""

    def cutting(after, depot):
        """Let the power fail after so many steps."""
        left = iter(range(after))

        def step(call):
            def stepped(*args, **kwargs):
                if next(left, None) is None:
                    raise Cut
                return call(*args, **kwargs)

            return stepped

        uploader = depot.uploader
        for owner, name in (
            (uploader._store, "put"),
            (uploader._catalogue, "add"),
            (uploader._spool, "drop"),
        ):
            setattr(owner, name, step(getattr(owner, name)))

    for after in range(9):
        depot = Depot(Spool(tmp_path / str(after) / "spool"), tmp_path / str(after))
        cutting(after, depot)
        with pytest.raises(Cut):
            depot.uploader.upload_all()
        again = Spool(tmp_path / str(after) / "spool")
        again.recover()
        depot.spool = again
        for port in (depot.store, depot.catalogue):
            vars(port).pop("put", None)
            vars(port).pop("add", None)
        Uploader(again, depot.store, depot.catalogue, depot.ledger, now=lambda: START).upload_all()
        assert depot.complete(), after


def test_after_an_outage_the_newest_footage_goes_first_and_all_of_it_arrives(spool, tmp_path):
    for number in range(450):
        spool.commit(*sealed_segment(number), groups=[])
    store, catalogue = MemorySegmentStore(), MemoryCatalogue()
    order = []
    add = catalogue.add
    catalogue.add = lambda segment: (order.append(segment.sequence), add(segment))
    uploader = Uploader(spool, store, catalogue, ledger_in(tmp_path), now=lambda: START)
    while uploader.upload_all():
        pass
    assert order[:3] == [449, 448, 447]
    assert sorted(order) == list(range(450))


def test_a_recorder_that_stops_uploads_nothing_beside_what_the_store_still_takes(desk, depot, monkeypatch):
    monkeypatch.setattr(supervisor, "_PATIENCE_SECONDS", 0.0)
    taking, go_on, stop, asked = Event(), Event(), Event(), []
    put = depot.store.put

    def slow(key, body, **facts):
        asked.append(key)
        taking.set()
        assert go_on.wait(60)
        put(key, body, **facts)

    monkeypatch.setattr(depot.store, "put", slow)
    before = set(threading.enumerate())
    recorder = Recorder(
        desk.session(Film()).recording, depot.uploader, cameras=list, credentials=lambda _: None
    )
    running = Thread(target=recorder.run, args=[stop])
    running.start()
    assert taking.wait(60)
    others = set(threading.enumerate()) - before - {running}
    stop.set()
    running.join(60)
    assert not running.is_alive()
    go_on.set()
    for one in others:
        one.join(60)
    assert len(asked) == 1


def test_so_many_segments_are_on_their_way_at_once_and_no_more(spool, tmp_path):
    for number in range(12):
        spool.commit(*sealed_segment(number), groups=[])
    store, catalogue, together = MemorySegmentStore(), MemoryCatalogue(), Barrier(4, timeout=90)
    put = store.put

    def put_when_four_do(*args, **kwargs):
        together.wait()
        put(*args, **kwargs)

    store.put = put_when_four_do
    ledger = ledger_in(tmp_path)
    assert Uploader(spool, store, catalogue, ledger, now=lambda: START, at_once=4).upload_all() == 12
    assert together.n_waiting == 0
    assert len(store.bodies) == len(catalogue.rows) == 12


def test_a_store_that_goes_down_under_many_uploads_loses_none(spool, tmp_path):
    for number in range(40):
        spool.commit(*sealed_segment(number), groups=[])
    store, catalogue = MemorySegmentStore(), MemoryCatalogue()
    put, left = store.put, iter(range(10))

    def put_until_down(*args, **kwargs):
        store.down = store.down or next(left, None) is None
        put(*args, **kwargs)

    store.put = put_until_down
    uploader = Uploader(spool, store, catalogue, ledger_in(tmp_path), now=lambda: START, at_once=4)
    with pytest.raises(StoreUnavailable):
        uploader.upload_all()
    assert set(catalogue.rows) <= set(store.bodies)
    assert len(spool.pending()) + len(catalogue.rows) == 40
    store.down, store.put = False, put
    uploader.upload_all()
    assert len(catalogue.rows) == 40


def test_a_segment_that_the_spool_altered_is_told_and_holds_up_no_other(depot, tmp_path):
    altered = next((tmp_path / "spool" / "ready").rglob("*.age"))
    altered.write_bytes(bytes(altered.stat().st_size))
    assert [depot.uploader.upload_all(), depot.uploader.upload_all()] == [2, 0]
    assert len(depot.store.bodies) == len(depot.catalogue.rows) == 2
    assert len(depot.spool.pending()) == 1


@pytest.fixture
def beside(depot, tmp_path):
    """A depot whose store is a directory on the spool's disk."""
    depot.store = DirectoryStore.create(tmp_path / "store")
    depot.uploader = Uploader(depot.spool, depot.store, depot.catalogue, depot.ledger, now=lambda: START)
    return depot


def test_a_store_on_the_disk_of_the_spool_gets_the_file_itself(beside, tmp_path):
    written = {path.name: path.stat().st_ino for path in (tmp_path / "spool" / "ready").rglob("*.age")}
    assert beside.uploader.upload_all() == 3
    assert {path.name: path.stat().st_ino for path in (tmp_path / "store").rglob("*.age")} == written
    assert beside.spool.pending() == []
    assert [beside.store.get(one.object_key) for one, _ in beside.segments] == [
        body for _, body in beside.segments
    ]


def test_a_file_that_is_not_as_it_was_written_is_not_linked(beside, tmp_path):
    altered = next((tmp_path / "spool" / "ready").rglob("*.age"))
    altered.write_bytes(bytes(altered.stat().st_size))
    os.utime(altered, (1, 1))
    assert beside.uploader.upload_all() == 2
    assert len(list(beside.store.objects())) == len(beside.catalogue.rows) == 2


def test_what_a_killed_recorder_left_is_read_before_it_is_stored(beside, tmp_path):
    """Who wrote it is not there any more to vouch for it."""
    altered = next((tmp_path / "spool" / "ready").rglob("*.age"))
    altered.write_bytes(bytes(altered.stat().st_size))
    again = Spool(tmp_path / "spool")
    again.recover()
    Uploader(again, beside.store, beside.catalogue, beside.ledger, now=lambda: START).upload_all()
    assert len(list(beside.store.objects())) == len(beside.catalogue.rows) == 2


def test_room_for_new_footage_is_not_made_of_what_the_store_has_linked(tmp_path):
    """The catalogue is down: the segment waits in the spool and is in the store, one file."""
    spool, store = roomy(tmp_path, 1), DirectoryStore.create(tmp_path / "store")
    segment, body = sealed_segment(0)
    spool.commit(segment, body, groups=[])
    assert store.link(segment.object_key, spool.as_sealed(segment))
    spool.commit(*sealed_segment(1), groups=[])
    assert [one.sequence for one in spool.pending()] == [1]
    assert store.get(segment.object_key) == body
    assert list(spool.gaps()) == []


def test_uploads_take_no_more_of_the_network_than_they_may():
    at = 100.0
    bandwidth = Bandwidth(1_000_000, elapsed=lambda: at)
    assert [bandwidth.delay(500_000) for _ in range(3)] == [0.0, 0.5, 1.0]
    at = 200.0
    assert [bandwidth.delay(2_000_000), bandwidth.delay(1)] == [0.0, 2.0]
    assert Bandwidth(0).delay(10**12) == 0.0


def test_gaps_reach_the_catalogue_even_when_the_store_is_down(depot):
    gap = Gap(Span(START, START + MICROSECOND), CAMERA.id, GapReason.RECORDER_DOWN)
    depot.spool.add_gap(gap)
    depot.store.down = True
    with pytest.raises(StoreUnavailable):
        depot.uploader.upload_all()
    assert depot.catalogue.held_gaps == {gap}
    assert list(depot.spool.gaps()) == []
