"""Feed the receiver's parsers with whatever a fuzzer thinks of: ``python bench/fuzz.py [--seconds 60]``.

Guided by coverage (atheris: ``pip install atheris``); the everyday suite does a little of it by hypothesis.
Any exception that is not said in a parser's docstring ends it, with the input that caused it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports():
    from videostore.recorder.native import digest, parameters, rtcp, rtsp, sdp
    from videostore.recorder.native.frames import Doubt, H264Frames, H265Frames
    from videostore.recorder.native.interleaved import Interleaved
    from videostore.recorder.native.rtp import Receiver


def one_input(data: bytes) -> None:
    """The first byte chooses what the others are given to."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def message(data: bytes) -> None:
    try:
        found = rtsp.take(data)
    except rtsp.Malformed:
        return
    if found is not None:
        rtsp.session(found[0])
        rtsp.channels(found[0])


def question(data: bytes) -> None:
    text = data.decode("latin-1")
    digest.challenge([text, f"Digest {text}"])


def report(data: memoryview, start: int, end: int) -> int:
    list(rtcp.parse(bytes(data[start:end])))
    return end


def reports(data: bytes) -> None:
    for report in rtcp.parse(data):
        if isinstance(report, rtcp.SenderReport):
            rtcp.wall_clock(report)


def sets(data: bytes) -> None:
    for codec in ("h264", "hevc"):
        parameters.sets(codec, data)
        try:
            parameters.picture(codec, data)
        except parameters.Unreadable:
            continue


def connection(data: bytes, frames: type[H264Frames] | type[H265Frames]) -> None:
    """Take ``data`` apart as a connection that brings a stream, in reads of 100 bytes."""
    receiver = Receiver(96, frames(lambda _: None))
    parts = Interleaved({0: receiver.packets, 1: report}, message=str)
    tail = b""
    try:
        for at in range(0, len(data), 100):
            tail += data[at : at + 100]
            tail = tail[parts.feed(memoryview(tail)) :]
    except Doubt:
        return


TARGETS: list[Callable[[bytes], None]] = [
    lambda data: sdp.parse(data.decode("latin-1"), base="rtsp://camera/") and None,
    message,
    question,
    reports,
    sets,
    lambda data: connection(data, H264Frames),
    lambda data: connection(data, H265Frames),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds}", "-max_len=4096"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
