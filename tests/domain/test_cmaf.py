"""Segments are taken apart and moved without a codec, and refuse to be anything else."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from videostore.domain.cmaf import join, parse
from videostore.domain.errors import SealBroken

FPS, GOP, FRAMES = 25, 10, 40


def encoded(frames: int = FRAMES, *, rate_hz: int = 0) -> bytes:
    """Return a fragmented MP4 of ``frames`` pictures, a keyframe and a fragment every GOP of them; with sound
    if ``rate_hz``, so many samples a second."""
    out = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(out, "w", format="mp4", options=flags) as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"bf": "0", "g": str(GOP), "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if rate_hz:
            track = container.add_stream("aac", rate=rate_hz, layout="mono")
        for index in range(frames):
            if rate_hz:
                heard = av.AudioFrame.from_ndarray(
                    np.zeros((1, rate_hz // FPS), dtype=np.float32), format="fltp", layout="mono"
                )
                heard.sample_rate, heard.pts, heard.time_base = (
                    rate_hz,
                    index * rate_hz // FPS,
                    Fraction(1, rate_hz),
                )
                container.mux([one for one in track.encode(heard) if one.pts >= 0])
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index * 5 % 256, dtype=np.uint8))
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if rate_hz:
            container.mux(track.encode())
    return out.getvalue()


SEGMENT = encoded()
RATES = [8_000, 44_100, 48_000]
AUDIBLE = {rate_hz: encoded(rate_hz=rate_hz) for rate_hz in RATES}


def decoded(data: bytes) -> list[float]:
    """Return the time of every picture that a decoder finds."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_a_segment_is_an_init_and_a_fragment_for_each_keyframe():
    movie = parse(SEGMENT)
    assert len(movie.fragments) == FRAMES // GOP
    assert movie.frames == FRAMES
    assert movie.duration / movie.timescale == pytest.approx(FRAMES / FPS)
    assert movie.fragments[0].start == 0


def test_joined_again_it_decodes_to_the_same_pictures():
    movie = parse(SEGMENT)
    assert decoded(join(movie.init, movie.fragments)) == decoded(SEGMENT)


def test_segments_of_one_stream_concatenate_into_one_that_plays():
    movie = parse(SEGMENT)
    times = decoded(join(movie.init, [*movie.fragments, *movie.fragments]))
    assert times == pytest.approx([index / FPS for index in range(2 * FRAMES)])


def test_a_fragment_can_be_dropped_and_the_rest_moves_up():
    movie = parse(SEGMENT)
    assert len(decoded(join(movie.init, movie.fragments[1:]))) == FRAMES - GOP


def begins(data: bytes, kind: str) -> list[float]:
    """Return when each packet of a track begins, in seconds."""
    with av.open(io.BytesIO(data)) as container:
        track = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        return [float(one.pts * track.time_base) for one in container.demux(track) if one.size]


@pytest.mark.parametrize("rate_hz", RATES)
def test_sound_moves_with_its_picture_to_a_sample(rate_hz):
    movie = parse(AUDIBLE[rate_hz])
    assert movie.frames == FRAMES
    assert movie.duration / movie.timescale == pytest.approx(FRAMES / FPS)
    heard = begins(AUDIBLE[rate_hz], "audio")
    twice = join(movie.init, [*movie.fragments, *movie.fragments])
    assert decoded(twice) == pytest.approx([index / FPS for index in range(2 * FRAMES)])
    wanted = sorted([*heard, *(at + FRAMES / FPS for at in heard)])
    assert sorted(begins(twice, "audio")) == pytest.approx(wanted, abs=1.01 / rate_hz)


@pytest.mark.parametrize("rate_hz", RATES)
def test_without_its_first_fragment_the_rest_moves_up_picture_and_sound(rate_hz):
    movie = parse(AUDIBLE[rate_hz])
    early = movie.fragments[0].duration / movie.timescale
    one_by_one = [join(movie.init, [fragment]) for fragment in movie.fragments]
    rest = join(movie.init, movie.fragments[1:])
    assert begins(rest, "video")[0] == 0
    before = len(begins(one_by_one[0], "audio"))
    wanted = [max(0, at - early) for at in begins(AUDIBLE[rate_hz], "audio")[before:]]
    assert begins(rest, "audio") == pytest.approx(wanted, abs=1.01 / rate_hz)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_however_often_a_fragment_is_moved_its_sound_stays_beside_it(places):
    """A thing that is moved and moved again is where it would be if moved once, to a sample a move."""
    fragment = parse(AUDIBLE[44_100]).fragments[1]
    moved = fragment
    for place in places:
        moved = moved.moved(start=place, number=1)
    once = fragment.moved(start=places[-1], number=1)
    assert abs(_sound_start(moved.data) - _sound_start(once.data)) <= len(places)


def _sound_start(data: bytes) -> int:
    return int.from_bytes(data[(at := data.rindex(b"tfdt") + 8) : at + 8], "big")


@pytest.mark.parametrize("rate_hz", RATES)
def test_without_its_sound_the_picture_is_the_same_and_nothing_else_is_left(rate_hz):
    movie = parse(AUDIBLE[rate_hz])
    mute = movie.muted()
    data = join(mute.init, mute.fragments)
    assert len(data) == len(join(movie.init, movie.fragments))
    with av.open(io.BytesIO(data)) as container:
        assert [track.type for track in container.streams] == ["video"]
    assert decoded(data) == decoded(AUDIBLE[rate_hz])
    assert parse(data).fragments[0].beside == {}
    assert parse(SEGMENT).muted() == parse(SEGMENT)


def test_sound_alone_is_no_segment():
    with pytest.raises(SealBroken):
        parse(AUDIBLE[8_000].replace(b"vide", b"soun"))


LAST = SEGMENT.rindex(b"mfra") - 4
"""Where the last frame ends: an index of no use to us follows."""


@settings(max_examples=200)
@given(st.integers(0, LAST - 1))
@example(LAST - 1)
def test_a_segment_cut_short_is_noticed_or_only_shorter(at):
    try:
        movie = parse(SEGMENT[:at])
    except SealBroken:
        return
    assert movie.frames < FRAMES or SEGMENT[at + 4 : at + 8] == b"mfra", "an index alone loses no frame"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_segment_are_refused(data):
    with pytest.raises(SealBroken):
        parse(data)
