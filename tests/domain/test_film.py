"""Films for export: cut to the frame, no sample touched, and every decoder agrees."""

from __future__ import annotations

from datetime import timedelta

import av
import pytest

from tests.rooms.test_playback import START, movies
from videostore.domain import cmaf
from videostore.domain.errors import SealBroken
from videostore.domain.film import Film
from videostore.domain.segment import Span
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import FRAME_RATE

SECOND = timedelta(seconds=1)
FRAME = SECOND / FRAME_RATE


def make(movie_list, asked):
    """Return a film of segments of one second each, back to back."""
    parsed = [cmaf.parse(movie) for movie in movie_list]
    film = Film(parsed[0].init, asked=asked)
    body = [
        film.add(START + number * SECOND, [fragment.data for fragment in movie.fragments])
        for number, movie in enumerate(parsed)
    ]
    return film, b"".join([film.head, *body, film.tail()])


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 100), (0, 1), (24, 26), (25, 50), (30, 31), (37, 88), (99, 100)],
)
def test_a_film_shows_exactly_the_frames_that_were_asked_for(first, last, tmp_path):
    film, data = make(movies(4), Span(START + first * FRAME, START + last * FRAME))
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    assert frame_numbers(path) == list(range(first, last))
    assert film.shown == Span(START + first * FRAME, START + last * FRAME)
    assert film.origin == START + first // 25 * SECOND


def test_no_byte_after_the_end_leaves(tmp_path):
    _, short = make(movies(4), Span(START, START + 30 * FRAME))
    last = cmaf.parse(movies(4)[1]).fragments[0].data[-200:]
    assert last not in short
    assert movies(4)[0][-200:] in short


def test_a_start_between_two_frames_shows_the_next(tmp_path):
    film, _ = make(movies(2), Span(START + 10.5 * FRAME, START + SECOND))
    assert film.shown.start == START + 11 * FRAME


def test_a_film_of_many_hours_counts_in_64_bits(tmp_path):
    parsed = cmaf.parse(movies(1)[0])
    film = Film(parsed.init, asked=Span(START, START + timedelta(hours=20)))
    hours = [START + timedelta(hours=number) for number in range(20)]
    data = [film.head, *(film.add(hour, [parsed.fragments[0].data]) for hour in hours)]
    path = tmp_path / "film.mp4"
    path.write_bytes(b"".join([*data, film.tail()]))
    with av.open(str(path)) as container:
        assert container.duration == (19 * 3600 + 1) * 1_000_000


@pytest.mark.parametrize("cut", [9, 60, 200, 500])
def test_what_is_no_segment_is_refused_and_never_crashes(cut):
    parsed = cmaf.parse(movies(1)[0])
    film = Film(parsed.init, asked=Span(START, START + SECOND))
    with pytest.raises(SealBroken):
        film.add(START, [parsed.fragments[0].data[:cut]])
    with pytest.raises(SealBroken):
        Film(parsed.init[:cut], asked=Span(START, START + SECOND))
