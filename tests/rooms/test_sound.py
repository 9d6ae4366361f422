"""Sound: beside the picture to a tenth of a second, cut with it, and only where it is wanted."""

from __future__ import annotations

import io
import json
import struct
import subprocess
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rooms.test_native import boxes, told
from tests.rooms.test_recorder import INFO, SECOND, START, TICKS, Desk
from tests.rooms.test_recorder import Film as Camera
from videostore.domain import cmaf
from videostore.domain.film import Film
from videostore.domain.segment import Span
from videostore.ports import Packet, SoundInfo
from videostore.recorder import session as session_module
from videostore.recorder.aac import UNIT_SAMPLES, can_be_kept
from videostore.recorder.muxer import Muxer
from videostore.recorder.native.mp4 import Packer
from videostore.recorder.sound import BELIEVED, CLOSE, JITTER, LATEST, Duet, Track
from videostore.synthetic.film import frame_numbers, out_of_step
from videostore.synthetic.stream import FRAME_RATE, GOP, stream
from videostore.synthetic.tone import LOOP_SECONDS, tone

LIP_SYNC = 0.1
"""Seconds. ITU-R BT.1359 finds 0.045 early to 0.125 late hard to notice."""
CODECS = ["aac", "pcm_alaw", "pcm_mulaw"]


def sound_info(codec):
    heard = tone(codec)
    return SoundInfo(codec, heard.rate_hz, 1, Fraction(1, heard.rate_hz), heard.config)


def pictures(seconds, film=None, *, claims=True):
    """The frames of a loop, each with when it was captured."""
    film = film or stream(LOOP_SECONDS)
    delay = max(number - place for place, number in enumerate(film.numbers))
    for place in range(seconds * FRAME_RATE):
        number = film.numbers[place]
        data = b"".join(b"\x00\x00\x00\x01" + unit for unit in film.frames[place])
        at = START + number * SECOND / FRAME_RATE
        came = START + (place + delay) * SECOND / FRAME_RATE
        yield Packet(data, number * TICKS + 7, place % GOP == 0, came, at if claims else None)


def sounds(seconds, codec, *, claims=True, zero=123_456, clock=timedelta(0)):
    """The packets of the loop; their time stamps begin anywhere, and arrive when the last sample is heard."""
    heard = tone(codec)
    for place in range(seconds * heard.rate_hz // heard.samples):
        at = START + place * heard.samples * SECOND / heard.rate_hz
        pts, came = zero + place * heard.samples, at + heard.samples * SECOND / heard.rate_hz
        yield Packet(heard.units[place], pts, True, came, at + clock if claims else None, sound=True)


def together(*tracks):
    return sorted((one for track in tracks for one in track), key=lambda one: one.received_at)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "_pause", lambda failures: 0.0)
    return Desk(tmp_path)


def recorded(desk, packets, heard, **info):
    camera = Camera(packets)
    camera.info = replace(INFO, sound=sound_info(heard), **info)
    desk.session(camera).run(camera.stop)
    return [desk.opened(segment) for segment in desk.spool.pending()]


def joined(movies):
    parsed = [cmaf.parse(movie) for movie in movies]
    assert len({movie.init for movie in parsed}) == 1
    return cmaf.join(parsed[0].init, [one for movie in parsed for one in movie.fragments])


@pytest.mark.parametrize("claims", [True, False])
@pytest.mark.parametrize("codec", CODECS)
def test_sound_keeps_step_with_the_picture_in_each_segment_and_joined(desk, tmp_path, codec, claims):
    packets = together(pictures(6, claims=claims), sounds(6, codec, claims=claims))
    movies = recorded(desk, packets, codec)
    assert len(movies) == 3
    for at, movie in enumerate([*movies, joined(movies)]):
        film = tmp_path / f"{at}.mp4"
        film.write_bytes(movie)
        steps = out_of_step(film)
        assert len(steps) == (6 if at == 3 else 2)
        assert max(map(abs, steps)) < LIP_SYNC
    assert frame_numbers(tmp_path / "3.mp4") == list(range(6 * FRAME_RATE))


def test_sound_keeps_step_where_frames_are_shown_out_of_order(desk, tmp_path):
    packets = together(pictures(6, stream(LOOP_SECONDS, b_frames=2)), sounds(6, "aac"))
    (tmp_path / "film.mp4").write_bytes(joined(recorded(desk, packets, "aac")))
    steps = out_of_step(tmp_path / "film.mp4")
    assert len(steps) == 6
    assert max(map(abs, steps)) < LIP_SYNC


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["aac", "pcm_alaw"])
def test_an_exported_film_keeps_step_from_where_it_was_cut(desk, tmp_path, codec, b_frames):
    packets = together(pictures(6, stream(LOOP_SECONDS, b_frames=b_frames)), sounds(6, codec))
    movies = [cmaf.parse(movie) for movie in recorded(desk, packets, codec)]
    film = Film(movies[0].init, asked=Span(START + 1.2 * SECOND, START + 4.7 * SECOND))
    starts = [segment.span.start for segment in desk.spool.pending()]
    body = [
        film.add(at, [one.data for one in movie.fragments]) for at, movie in zip(starts, movies, strict=True)
    ]
    (tmp_path / "film.mp4").write_bytes(b"".join([film.head, *body, film.tail()]))
    steps = out_of_step(tmp_path / "film.mp4")
    assert len(steps) == 4
    assert max(map(abs, steps)) < LIP_SYNC


def test_every_picture_a_keyframe_has_its_sound_too(desk, tmp_path):
    film = stream(4, codec="mjpeg")
    frames = [
        replace(one, data=film.frames[at % 100][0], keyframe=True) for at, one in enumerate(pictures(4))
    ]
    movies = recorded(desk, together(frames, sounds(4, "aac")), "aac", codec="mjpeg")
    assert units(joined(movies)) == list(tone("aac").units[: len(units(joined(movies)))])
    assert out_of_step_units(joined(movies)) < LIP_SYNC


def units(movie):
    with av.open(io.BytesIO(movie)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def out_of_step_units(movie):
    """How far the first access unit lies from the beginning of the picture."""
    with av.open(io.BytesIO(movie)) as container:
        return abs(float(container.streams.audio[0].start_time * container.streams.audio[0].time_base))


def test_aac_is_kept_byte_for_byte_and_none_is_heard_twice(desk):
    movies = recorded(desk, together(pictures(6), sounds(6, "aac")), "aac")
    sent = [one.data for one in sounds(6, "aac")]
    assert units(joined(movies))[: len(sent)] == sent


@pytest.mark.parametrize(
    ("codec", "b_frames", "heard"),
    [("h264", 0, "aac"), ("h264", 2, "aac"), ("h264", 2, "pcm_alaw"), ("hevc", 3, "aac")],
)
def test_both_tracks_are_heard_and_seen_when_libav_would_have_it(codec, b_frames, heard):
    """Its muxer's fragments moved one after the other by our own reader; ours as they are."""
    duet = Duet(replace(INFO, codec=codec, sound=sound_info(heard)))
    came = together(pictures(3, stream(3, codec=codec, b_frames=b_frames)), sounds(3, heard))
    groups = [group for one in came for group in duet.add(one)] + list(duet.flush())
    packer, muxer = Packer(duet.info, groups[0].packets[0]), Muxer(duet.info)
    fragments = [packer.pack(group) for group in groups]
    assert {min(one.offset for one in fragment.runs[0].samples) for fragment in fragments} == {0}
    movie = packer.movie(fragments)
    ours = decoded(movie)
    assert ours == decoded(joined([muxer.mux(group) for group in groups]))
    assert {track for track, *_ in ours} == {"video", "audio"}
    keyframes = [one[2] for one in ours if one[0] == "video" and len(one) == 5][::GOP]
    found = [(name, body) for name, _, body in boxes(movie)]
    assert [struct.unpack_from(">Q", body, 12)[0] for name, body in found if name == b"sidx"] == keyframes
    assert [struct.unpack_from(">Q", body, 16)[0] for name, body in found if name == b"prft"] == keyframes


def decoded(movie):
    """Return each packet: when it is decoded and shown, for how long, its bytes; and all that is decoded."""
    found = []
    with av.open(io.BytesIO(movie)) as container:
        for packet in container.demux():
            track = packet.stream.type
            if packet.size:
                found.append((track, packet.dts, packet.pts, packet.duration, bytes(packet)))
            found += [(track, frame.pts, frame.to_ndarray().tobytes()) for frame in packet.decode()]
    return sorted(found, key=lambda one: (one[0], len(one)))  # how they lie beside each other is free


def test_ffprobe_and_a_parser_that_shares_no_code_with_it_find_both_tracks(desk, tmp_path, ffprobe_program):
    movie = joined(recorded(desk, together(pictures(6), sounds(6, "aac")), "aac"))
    (tmp_path / "film.mp4").write_bytes(movie)
    command = [ffprobe_program, "-v", "warning", "-show_streams", "-of", "json", str(tmp_path / "film.mp4")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    seen = {one["codec_type"]: one for one in json.loads(done.stdout)["streams"]}
    assert {one["start_pts"] for one in seen.values()} == {0}
    assert (seen["audio"]["profile"], seen["audio"]["sample_rate"]) == ("LC", "16000")
    picture, heard = told(movie)
    assert (picture.format, int(picture.frame_count), picture.duration) == (
        "AVC",
        6 * FRAME_RATE,
        6_000,
    )  # ms
    assert (heard.codec_id, heard.channel_s, heard.sampling_rate) == ("mp4a-40-2", 1, 16_000)
    assert int(heard.frame_count) == len(units(movie))
    assert heard.duration == pytest.approx(6_000, abs=2 * 64)  # units of 64 ms


@pytest.mark.parametrize("codec", CODECS)
def test_where_nothing_was_heard_there_is_silence_so_that_browsers_show_the_picture(desk, codec):
    """Media Source Extensions play where every track has something to play."""
    heard = [one for one in sounds(6, codec) if not 1.5 * SECOND < one.received_at - START < 4.5 * SECOND]
    movie = joined(recorded(desk, together(pictures(6), heard), codec))
    with av.open(io.BytesIO(movie)) as container:
        track = container.streams.audio[0]
        times = [float(one.pts * track.time_base) for one in container.demux(track) if one.size]
    unit = UNIT_SAMPLES / tone(codec).rate_hz
    assert times[0] < unit
    assert max(after - before for before, after in pairwise(times)) < 2 * unit
    assert times[-1] > 6 - 2 * unit


@pytest.mark.parametrize("codec", CODECS)
def test_a_group_without_sound_has_the_header_of_the_others(desk, codec):
    heard = [one for one in sounds(6, codec) if not 2 * SECOND < one.received_at - START < 4 * SECOND]
    movies = recorded(desk, together(pictures(6), heard), codec)
    assert joined(movies)
    assert [cmaf.parse(movie).frames for movie in movies] == [2 * GOP] * 3


def test_a_camera_whose_sound_stops_loses_no_picture(desk):
    movies = recorded(desk, together(pictures(6), list(sounds(2, "aac"))), "aac")
    assert sum(cmaf.parse(movie).frames for movie in movies) == 6 * FRAME_RATE


def test_a_picture_waits_for_its_sound_no_longer_than_a_second():
    duet = Duet(replace(INFO, sound=sound_info("aac")))
    waited = [
        one.pts - group.packets[0].pts - group.duration for one in pictures(6) for group in duet.add(one)
    ]
    assert len(waited) == 4
    assert max(waited) <= (LATEST / SECOND) * 90_000 + TICKS


def test_without_sound_no_picture_waits():
    duet = Duet(INFO)
    found = [(one.pts, group) for one in pictures(3) for group in duet.add(one)]
    assert [pts == group.packets[0].pts + group.duration for pts, group in found] == [True, True]


# --- where sound belongs ---


def placed(packets, codec="aac"):
    """Return when each unit begins, in samples, with the picture at zero when it was captured at START."""
    track = Track(sound_info(codec), INFO.time_base)
    track.see(Packet(b"", 0, True, START, START))
    for one in packets:
        track.add(one)
    track.finish()
    return [unit.at for unit in track._units if unit.at > -UNIT_SAMPLES]  # at that an encoder begins


def test_a_hole_in_the_sound_stays_a_hole_of_its_length():
    came = list(sounds(4, "aac"))
    del came[10:20]
    assert placed(came) == [at * UNIT_SAMPLES for at in range(62) if not 10 <= at < 20]


@given(st.lists(st.timedeltas(-CLOSE, CLOSE), min_size=62, max_size=62))
def test_reports_that_are_not_exact_break_no_sound(errors):
    came = [
        replace(one, claimed_at=one.claimed_at + error / 2)
        for one, error in zip(sounds(4, "aac"), errors, strict=True)
    ]
    found = placed(came)
    assert [at - found[0] for at in found] == [at * UNIT_SAMPLES for at in range(62)]


@given(st.sampled_from([-1, 1]), st.integers(1, 5))
def test_a_clock_that_runs_faster_or_slower_is_followed(direction, milliseconds):
    """Each packet of 64 ms is that much too short or too long."""
    drift = direction * timedelta(milliseconds=milliseconds)
    came = [replace(one, claimed_at=one.claimed_at + at * drift) for at, one in enumerate(sounds(4, "aac"))]
    found = placed(came)
    assert all(after - before >= UNIT_SAMPLES for before, after in pairwise(found))
    end = (came[-1].claimed_at - START) / SECOND * 16_000
    assert abs(found[-1] - end) <= UNIT_SAMPLES + 2 * (CLOSE / SECOND) * 16_000


def test_clocks_of_one_camera_that_contradict_each_other_are_not_believed():
    wrong = list(sounds(4, "aac", clock=BELIEVED + SECOND))
    right = [replace(one, claimed_at=None) for one in wrong]
    assert placed(wrong) == placed(right)


def test_sound_that_arrives_unevenly_goes_on_evenly():
    came = [
        replace(one, claimed_at=None, received_at=one.received_at + (at % 3) * JITTER / 2)
        for at, one in enumerate(sounds(4, "aac"))
    ]
    found = placed(came)
    assert {after - before for before, after in pairwise(found)} == {UNIT_SAMPLES}


def test_g711_goes_on_after_a_hole_at_its_time():
    came = list(sounds(4, "pcm_alaw"))
    del came[25:50]  # a second
    found = placed(came, "pcm_alaw")
    steps = [after - before for before, after in pairwise(found)]
    assert sum(step != UNIT_SAMPLES for step in steps) == 1
    assert max(steps) == pytest.approx(8_000, abs=2 * UNIT_SAMPLES)


@pytest.mark.parametrize(
    ("sound", "kept"),
    [
        (sound_info("aac"), True),
        (sound_info("pcm_mulaw"), True),
        (replace(sound_info("aac"), extradata=b""), False),
        (replace(sound_info("aac"), extradata=b"\x2b\x11"), False),
        (replace(sound_info("pcm_alaw"), channels=6), False),
        (replace(sound_info("pcm_alaw"), codec="adpcm_g726"), False),
    ],
    ids=["AAC-LC", "G.711", "AAC that says nothing of itself", "HE-AAC", "six channels", "G.726"],
)
def test_what_can_be_kept(sound, kept):
    assert can_be_kept(sound) is kept
