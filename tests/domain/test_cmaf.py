"""Segments are taken apart and moved without a codec, and refuse to be anything else."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videostore.domain.cmaf import join, parse
from videostore.domain.errors import SealBroken

FPS, GOP, FRAMES = 25, 10, 40


def encoded(frames: int = FRAMES) -> bytes:
    """Return a fragmented MP4 of ``frames`` pictures, a keyframe and a fragment every GOP of them."""
    out = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(out, "w", format="mp4", options=flags) as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"bf": "0", "g": str(GOP), "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index * 5 % 256, dtype=np.uint8))
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return out.getvalue()


SEGMENT = encoded()


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


@settings(max_examples=200)
@given(st.integers(0, len(SEGMENT) - 1))
def test_a_segment_cut_short_is_noticed_or_only_shorter(at):
    try:
        movie = parse(SEGMENT[:at])
    except SealBroken:
        return
    assert movie.frames < FRAMES


@given(st.binary(max_size=200))
def test_bytes_that_are_no_segment_are_refused(data):
    with pytest.raises(SealBroken):
        parse(data)
