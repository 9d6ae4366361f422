"""Synthetic cameras: what they send can be read back frame by frame, and checked against what left."""

from __future__ import annotations

import socket
from contextlib import suppress

import numpy as np
import pytest

from videostore.synthetic.film import breaks, frame_numbers
from videostore.synthetic.server import SyntheticServer
from videostore.synthetic.stream import FRAME_RATE, GOP, HEIGHT, WIDTH, picture, read_frame_number, stream


@pytest.mark.parametrize("number", [0, 1, 249, 2**15, 2**16 - 1])
def test_a_picture_carries_its_number(number):
    image = picture(number)
    assert image.shape == (HEIGHT, WIDTH)
    assert read_frame_number(image) == number


def test_pictures_move_and_show_a_clock():
    one, later = picture(0), picture(FRAME_RATE)
    assert np.mean(one != later) > 0.5
    assert not np.array_equal(one[:64, :220], later[:64, :220])


def test_the_encoded_loop_begins_each_second_with_a_keyframe_and_decodes_alone(tmp_path):
    loop = stream(2)
    assert len(loop.frames) == 2 * FRAME_RATE
    for number, units in enumerate(loop.frames):
        assert (5 in {unit[0] & 0x1F for unit in units}) == (number % GOP == 0)
    film = tmp_path / "film.h264"
    film.write_bytes(b"".join(b"\x00\x00\x00\x01" + unit for frame in loop.frames for unit in frame))
    assert frame_numbers(film) == list(range(2 * FRAME_RATE))


def test_breaks_are_counted_and_the_loop_is_none():
    assert breaks([3, 4, 0, 1], loop=5) == 0
    assert breaks([3, 4, 1, 1], loop=5) == 2
    assert breaks([], loop=5) == 0


def test_the_port_is_free_again_when_the_server_ends():
    with SyntheticServer([]) as server:
        port = server.port
    with SyntheticServer([], port=port) as again:
        assert again.port == port
        with pytest.raises(OSError, match="in use"), SyntheticServer([], port=port):
            pass


def test_a_client_that_comes_while_the_server_ends_is_sent_away():
    server = SyntheticServer([]).__enter__()
    with socket.socket() as client:
        client.settimeout(60)

        def come_and_end():
            client.connect((server.host, server.port))
            server._loop.call_soon(server._stop.set)  # in the round in which the client is let in

        server._loop.call_soon_threadsafe(come_and_end)
        server._thread.join()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
