"""Drop folders: every file is taken in or refused with a reason, none twice, none outlives its time."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from threading import Event, Thread
from uuid import uuid4
from zoneinfo import ZoneInfo

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rooms.test_recorder import Hours
from tests.servers import until
from videostore.domain.camera import Camera, check_stream_url
from videostore.domain.errors import CameraNotRtsp, DiskFull, KeyDestroyed, KeyUnavailable
from videostore.domain.segment import GapReason, KeyId
from videostore.recorder.dropped import (
    LITTLE_OFF,
    Folder,
    FolderHolding,
    Outcome,
    Pattern,
    in_zone,
    judge,
)
from videostore.recorder.folder import DropFolder
from videostore.recorder.session import Recording
from videostore.recorder.spool import Spool
from videostore.synthetic.film import frame_numbers, out_of_step
from videostore.synthetic.stream import FRAME_RATE, GOP, stream
from videostore.synthetic.tone import LOOP_SECONDS, loop

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=count) for count in (1, 60, 3600, 86400))
ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime.now(UTC).replace(microsecond=0)
LOBBY = Camera(uuid4(), "lobby", "folder://nvr/lobby")
GATE = Camera(uuid4(), "gate", "folder://nvr/gate", enabled=False)


# --- rules ---

NOON = datetime.fromisoformat("2026-11-24T12:30:05+01:00")
LOCAL = NOON.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{camera}/%Y-%m-%d/%H-%M-%S", "lobby/2026-11-24/12-30-05", ("lobby", LOCAL)),
        ("{camera}_%Y%m%d%H%M%S_*", "a.b_20261124123005_001", ("a.b", LOCAL)),
        ("%Y%m%dT%H%M%S%z/{camera}", "20261124T123005+0100/x", ("x", NOON)),
        ("{camera}/*", "lobby/whatever", ("lobby", None)),
        ("{camera}/%Y-%m-%d", "lobby/2026-13-24", None),
        ("{camera}/%Y", "lobby/deeper/2026", None),
    ],
)  # fmt: skip
def test_a_pattern_reads_camera_and_time_or_nothing(pattern, path, found):
    assert Pattern(pattern, ZoneInfo("UTC")).read(path) == found


@pytest.mark.parametrize("pattern", ["%Y", "{camera}{camera}", "{camera}/%q"])
def test_a_pattern_that_cannot_work_is_refused(pattern):
    with pytest.raises(ValueError, match=r"pattern|\{camera\}"):
        Pattern(pattern, ZoneInfo("UTC"))


moments = st.datetimes(LOCAL.replace(month=1), LOCAL.replace(year=2027))


@given(moments)
def test_the_hour_that_comes_twice_is_told_apart_by_when_the_file_was_complete(local):
    for fold in (0, 1):
        true = local.replace(tzinfo=ZURICH, fold=fold).astimezone(UTC)
        assert abs(in_zone(local, ZURICH, complete=true + MINUTE) - true) <= HOUR
        if (
            local.replace(tzinfo=ZURICH, fold=0).utcoffset()
            > local.replace(tzinfo=ZURICH, fold=1).utcoffset()
        ):
            assert in_zone(local, ZURICH, complete=true + MINUTE) == true


@given(
    st.timedeltas(-40 * DAY, 40 * DAY),
    st.timedeltas(timedelta(0), HOUR),
    st.timedeltas(-40 * DAY, timedelta(0)),
)
def test_no_claim_of_a_file_makes_its_footage_younger_than_its_receipt(claimed, duration, received):
    outcome, start = judge(
        [None, NOW + claimed], duration=duration, received=NOW + received, now=NOW, keep=30 * DAY
    )
    if outcome is Outcome.TAKEN:
        assert start <= NOW + claimed
        assert start + duration <= NOW + received
        assert NOW - start < 30 * DAY
    else:
        assert start is None


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ([], Outcome.NO_TIME),
        ([None, NOW - HOUR], Outcome.TAKEN),
        ([NOW - HOUR, NOW - 40 * DAY], Outcome.TAKEN),
        ([NOW + LITTLE_OFF - MINUTE], Outcome.TAKEN),
        ([NOW + LITTLE_OFF], Outcome.IN_FUTURE),
        ([NOW - 30 * DAY], Outcome.PAST_DEADLINE),
    ],
)
def test_each_verdict(claims, outcome):
    assert judge(claims, duration=MINUTE, received=NOW, now=NOW, keep=30 * DAY)[0] is outcome


@pytest.mark.parametrize("url", ["folder://nvr", "folder:///lobby", "folder://nvr/", "folder://nvr/a/b"])
def test_a_camera_of_a_folder_names_both(url):
    check_stream_url("folder://nvr/lobby")
    with pytest.raises(CameraNotRtsp):
        check_stream_url(url)


# --- files ---


def film(path, *, codec="h264", b_frames=0, frames=5 * GOP, heard="", **metadata):
    """Write a film of synthetic pictures, as an NVR would; with sound of the codec ``heard``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = stream(LOOP_SECONDS if heard else 10, codec=codec, b_frames=b_frames)
    data = [
        units[0] if codec == "mjpeg" else b"".join(b"\x00\x00\x00\x01" + unit for unit in units)
        for units in source.frames[:frames]
    ]
    template = av.open(io.BytesIO(data[0]), format=codec).streams.video[0]
    with av.open(str(path), "w") as output:
        output.metadata.update(metadata)
        track = output.add_stream_from_template(template)
        track.time_base = Fraction(1, FRAME_RATE)
        if heard:
            output.mux(sound(output.add_stream(heard, rate=16_000, layout="mono"), frames / FRAME_RATE))
        for place, one in enumerate(data):
            packet = av.Packet(one)
            packet.stream, packet.time_base = track, Fraction(1, FRAME_RATE)
            packet.pts, packet.dts, packet.duration = source.numbers[place] + 3, place, 1
            packet.is_keyframe = codec == "mjpeg" or place % GOP == 0
            output.mux(packet)
    return path


def sound(track, seconds):
    """Encode so much of the loop; the picture begins three frames after time zero, and so does this."""
    whole = loop(16_000)[: int(seconds * 16_000)]
    for at in range(0, len(whole), 1024):
        part = whole[None, at : at + 1024]
        alike = part if track.name == "aac" else (part * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            alike, format="fltp" if track.name == "aac" else "s16", layout="mono"
        )
        frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
        frame.pts = at + 3 * 16_000 // FRAME_RATE
        yield from track.encode(frame)
    yield from track.encode(None)


class Nvr:
    """A folder, a spool behind it, and the time under the test's hand."""

    def __init__(self, root):
        self.root = root / "nvr"
        self.root.mkdir()
        self.spool, self.hours = Spool(root / "spool"), Hours()
        self.now, self.lobby, self.keeps = NOW, LOBBY, {}
        pattern = Pattern("{camera}/%Y-%m-%d/%H-%M-%S", ZoneInfo("UTC"))
        self.folder = Folder("nvr", self.root, pattern, 10 * SECOND, MINUTE)
        self.holding = FolderHolding(self.folder, key_id=lambda _part, moment: KeyId.covering(moment, HOUR))
        self.stored = []
        self.open()

    def open(self):
        recording = Recording(
            source=None,
            spool=self.spool,
            keys=self.hours,
            key_id=lambda _camera, moment: KeyId.covering(moment, HOUR),
            segment=2 * SECOND,
            max_clock_offset=2 * SECOND,
            now=lambda: self.now,
        )
        self.drop = DropFolder(
            self.folder,
            recording,
            cameras=lambda: [self.lobby, GATE],
            there=lambda camera, span: [
                one.span for one in [*self.stored, *self.spool.whole(camera.id, span)]
            ],
            keep=lambda camera_id: self.keeps.get(camera_id, 30 * DAY),
        )

    def path(self, start, camera="lobby", suffix=".mp4"):
        return self.root / camera / f"{start:%Y-%m-%d}" / f"{start:%H-%M-%S}{suffix}"

    def leave(self, start, *, camera="lobby", suffix=".mp4", **how):
        path = film(self.path(start, camera, suffix), **how)
        return self.complete(path, start + 6 * SECOND)

    def complete(self, path, moment):
        os.utime(path, (moment.timestamp(), moment.timestamp()))
        return path

    def take(self):
        self.drop.look()
        return self.drop.take()

    def refused(self):
        found = (self.root / ".refused").rglob("*.*")
        return {path.relative_to(self.root / ".refused").as_posix() for path in found}

    def segments(self):
        return self.spool.pending()

    def movies(self):
        return [self.hours.open(segment, self.spool.read(segment)) for segment in self.segments()]

    def numbers(self, tmp_path):
        found = []
        for movie in self.movies():
            (tmp_path / "film.mp4").write_bytes(movie)
            found += frame_numbers(tmp_path / "film.mp4")
        return found


@pytest.fixture
def nvr(tmp_path):
    return Nvr(tmp_path)


THEN = NOW - HOUR


@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [(".mp4", "h264", 0), (".mp4", "h264", 2), (".mkv", "hevc", 0), (".mkv", "h264", 2), (".ts", "h264", 0),
     (".ts", "hevc", 3), (".avi", "mjpeg", 0), (".avi", "h264", 0), (".mkv", "mjpeg", 0)],
)  # fmt: skip
def test_a_file_becomes_segments_under_its_capture_time_and_is_gone(nvr, tmp_path, suffix, codec, b_frames):
    path = nvr.leave(THEN, suffix=suffix, codec=codec, b_frames=b_frames)
    assert nvr.take() == 1
    assert not path.exists()
    segments = nvr.segments()
    assert segments[0].span.start == THEN
    assert all(one.span.end == other.span.start for one, other in pairwise(segments))
    assert abs(segments[-1].span.end - THEN - 5 * SECOND) <= timedelta(milliseconds=600)
    assert nvr.numbers(tmp_path) == list(range(5 * GOP))
    assert nvr.refused() == set()


@pytest.mark.parametrize(
    ("suffix", "heard"),
    [(".mp4", "aac"), (".ts", "aac"), (".mkv", "aac"), (".avi", "pcm_mulaw"), (".mov", "pcm_alaw")],
)
def test_sound_of_a_file_is_taken_in_where_it_is_wanted_and_nowhere_else(nvr, tmp_path, suffix, heard):
    nvr.leave(THEN, suffix=suffix, heard=heard)
    assert nvr.take() == 1
    assert all(b"soun" not in movie for movie in nvr.movies())
    nvr.lobby = replace(LOBBY, sound=True)
    nvr.leave(THEN + MINUTE, suffix=suffix, heard=heard)
    assert nvr.take() == 1
    steps = []
    for movie in nvr.movies()[3:]:
        (tmp_path / "film.mp4").write_bytes(movie)
        steps += out_of_step(tmp_path / "film.mp4")
    assert len(steps) == 5
    assert max(map(abs, steps)) < 0.1, steps  # seconds


def test_a_file_past_the_deadline_of_its_own_camera_is_not_taken(nvr):
    nvr.keeps = {LOBBY.id: DAY}
    old, young = nvr.leave(NOW - DAY), nvr.leave(THEN)
    assert nvr.take() == 2
    assert not old.exists()
    assert not young.exists()
    assert {one.span.start for one in nvr.segments()} <= {THEN + number * SECOND for number in range(6)}


def test_files_that_follow_each_other_are_one_record_and_a_hole_is_a_gap(nvr):
    for start in (THEN, THEN + 5 * SECOND, THEN + MINUTE):
        nvr.leave(start)
    assert nvr.take() == 3
    (gap,) = [gap for _, gap in nvr.spool.gaps()]
    assert (gap.span.start, gap.span.end) == (THEN + 10 * SECOND, THEN + MINUTE)
    assert gap.reason is GapReason.CAMERA_UNREACHABLE


def test_a_file_that_is_still_written_is_left_alone(nvr):
    path = film(nvr.path(NOW - 5 * SECOND))
    nvr.complete(path, NOW)
    assert nvr.take() == 0
    with path.open("ab") as file:
        file.write(b"more")
    nvr.complete(path, NOW)
    nvr.now += 9 * SECOND
    assert nvr.take() == 0
    assert path.exists()


def test_the_same_footage_again_is_a_duplicate_and_removed(nvr):
    path = nvr.leave(THEN)
    copy = shutil.copy2(path, nvr.root / "copy")
    nvr.take()
    once = nvr.segments()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(copy, path)
    assert nvr.take() == 1
    assert not path.exists()
    assert nvr.segments() == once


def test_a_take_that_was_interrupted_is_done_again_without_doubles(nvr, monkeypatch):
    nvr.leave(THEN)
    commit, left = Spool.commit, iter([True, True])

    def failing(spool, segment, sealed, **how):
        if next(left, None) is None:
            raise DiskFull("full")
        commit(spool, segment, sealed, **how)

    monkeypatch.setattr(Spool, "commit", failing)
    assert nvr.take() == 0
    monkeypatch.undo()
    nvr.open()  # the recorder starts again
    assert nvr.take() == 1
    spans = [one.span for one in nvr.segments()]
    assert spans == sorted(set(spans))
    assert all(one.end == other.start for one, other in pairwise(spans))


def test_footage_past_its_deadline_is_removed_at_once_and_never_stored(nvr):
    path = nvr.leave(NOW - 31 * DAY)
    assert nvr.take() == 1
    assert not path.exists()
    assert nvr.segments() == []


def test_footage_whose_key_is_destroyed_is_removed(nvr, monkeypatch):
    path = nvr.leave(THEN)

    def destroyed(key_id):
        raise KeyDestroyed("gone")

    monkeypatch.setattr(nvr.hours, "recipient", destroyed)
    assert nvr.take() == 1
    assert not path.exists()


def test_without_a_key_a_new_file_waits_and_an_old_one_is_refused(nvr):
    nvr.hours.missing = True
    new, old = nvr.leave(NOW - MINUTE), nvr.leave(NOW - 2 * HOUR, camera="lobby")
    nvr.take()
    nvr.take()
    assert new.exists()
    assert not old.exists()
    assert {name.split("/")[0] for name in nvr.refused()} == {"no-key"}
    with pytest.raises(KeyUnavailable):
        nvr.hours.recipient(None)


def test_each_file_that_cannot_be_taken_is_refused_with_its_reason(nvr):
    nvr.leave(THEN, camera="unknown")
    nvr.leave(THEN, camera="gate")  # disabled
    nvr.leave(NOW + 2 * HOUR)
    nvr.complete(nvr.path(NOW + 2 * HOUR), NOW - MINUTE)
    whole = nvr.leave(THEN + MINUTE)
    partial = nvr.path(THEN + 2 * MINUTE)
    partial.write_bytes(whole.read_bytes()[:2000])
    nvr.complete(partial, THEN)
    sound = nvr.path(THEN + 3 * MINUTE)
    sound.write_bytes(b"not a film at all")
    nvr.complete(sound, THEN)
    assert nvr.take() == 6
    assert sorted(name.split("/")[0] for name in nvr.refused()) == [
        "in-future", "no-camera", "no-camera", "unreadable", "unreadable"
    ]  # fmt: skip
    assert len(nvr.segments()) == 3
    assert nvr.take() == 0  # what was refused is not tried again


@pytest.mark.parametrize("how", ["sidecar", "container", "none"])
def test_the_time_may_stand_beside_the_file_or_in_it(nvr, how):
    nvr.folder = Folder("nvr", nvr.root, Pattern("{camera}/*", ZoneInfo("UTC")), 10 * SECOND, MINUTE)
    nvr.open()
    metadata = {"creation_time": THEN.isoformat()} if how == "container" else {}
    path = film(nvr.root / "lobby" / "clip.mp4", **metadata)
    nvr.complete(path, THEN + MINUTE)
    if how == "sidecar":
        path.with_suffix(".json").write_text(json.dumps({"start": THEN.isoformat()}))
    assert nvr.take() == 1
    if how == "none":
        assert nvr.refused() == {"no-time/lobby/clip.mp4"}
    else:
        assert nvr.segments()[0].span.start == THEN
        assert list(path.parent.iterdir()) == []


def test_no_original_outlives_its_deadline_in_the_folder_refused_ones_included(nvr):
    nvr.leave(NOW - 31 * DAY, camera="unknown")
    young = nvr.leave(THEN, camera="unknown")
    stray = nvr.root / "notes.txt"
    stray.write_text("what an NVR leaves besides")
    nvr.complete(stray, NOW - 40 * DAY)
    nvr.take()
    assert len(nvr.refused()) == 2
    old = [key_id for key_id in nvr.holding.key_ids() if key_id.start < NOW - 30 * DAY]
    assert sum(nvr.holding.remove(key_id) for key_id in old) == 2
    assert nvr.refused() == {f"no-camera/{young.relative_to(nvr.root).as_posix()}"}
    assert nvr.holding.key_ids() == [KeyId.covering(THEN, HOUR)]


def test_a_refused_file_is_as_old_as_it_says_and_not_as_its_copy(nvr):
    """Its name goes on counting in .refused, and so does its sidecar."""
    then = NOW - 29 * DAY
    nvr.complete(nvr.leave(then, camera="unknown"), NOW - MINUTE)
    odd = nvr.complete(film(nvr.root / "clip.mp4"), NOW - MINUTE)
    odd.with_suffix(".json").write_text(json.dumps({"start": then.isoformat()}))
    assert nvr.take() == 2
    assert {name.split("/")[0] for name in nvr.refused()} == {"no-camera"}
    assert nvr.holding.key_ids() == [KeyId.covering(then, HOUR)]


def test_a_link_to_another_file_is_not_followed(nvr, tmp_path):
    elsewhere = film(tmp_path / "elsewhere.mp4")
    nvr.path(THEN).parent.mkdir(parents=True)
    nvr.path(THEN).symlink_to(elsewhere)
    nvr.now += HOUR
    assert nvr.take() == 0
    assert elsewhere.exists()


def test_files_are_noticed_while_it_runs_and_at_the_next_start(nvr):
    nvr.now = datetime.now(UTC) + MINUTE  # what is written now is complete
    nvr.leave(THEN)
    stop = Event()
    thread = Thread(target=nvr.drop.run, args=[stop])
    thread.start()
    try:
        until(lambda: len(nvr.segments()) == 3, seconds=60)
        later = nvr.leave(THEN + MINUTE)
        until(lambda: not later.exists(), seconds=60)
    finally:
        stop.set()
        thread.join()
    assert len(nvr.segments()) == 6
