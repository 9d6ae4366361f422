"""Who makes fragmented MP4 of a stream's groups: we ourselves of H.264 and H.265, libav of the rest."""

from __future__ import annotations

from typing import Protocol

from videostore.domain import cmaf
from videostore.ports import Packet, StreamInfo
from videostore.recorder.cutter import Group
from videostore.recorder.muxer import Muxer
from videostore.recorder.native import mp4
from videostore.recorder.native.mp4 import Piece
from videostore.recorder.native.parameters import Unreadable


class Packing(Protocol):
    """Makes segments of one format of a stream, one after the other."""

    def begin(self) -> None:
        """Begin a segment: the next group's first frame is at time zero."""

    def pack(self, group: Group) -> list[Piece]:
        """Return what a group adds to the segment, in pieces, with the header before the first. Raises
        CameraStreamInvalid if its frames are not what the stream said they are."""

    def alone(self, group: Group) -> bytes:
        """Return a small group as a movie of its own. Raises CameraStreamInvalid."""


def choose(info: StreamInfo, keyframe: Packet) -> Packing:
    """Return what packs the groups from ``keyframe`` on, until the format of the picture changes."""
    if info.codec in mp4.CODECS:
        try:
            return _Own(mp4.Packer(info, keyframe))
        except Unreadable:
            pass  # libav reads more dialects, and says what is wrong
    return _Libav(Muxer(info))


class _Own:
    def __init__(self, packer: mp4.Packer) -> None:
        self._packer = packer
        self._at = self._count = 0

    def begin(self) -> None:
        self._at = self._count = 0

    def pack(self, group: Group) -> list[Piece]:
        fragment = self._packer.pack(group)
        pieces = fragment.boxes(start=self._at, number=self._count + 1)
        if not self._count:
            pieces.insert(0, self._packer.header)
        self._at, self._count = self._at + fragment.duration, self._count + 1
        return pieces

    def alone(self, group: Group) -> bytes:
        return self._packer.movie([self._packer.pack(group)])


class _Libav:
    def __init__(self, muxer: Muxer) -> None:
        self._muxer = muxer
        self._at = self._count = 0

    def begin(self) -> None:
        self._at = self._count = 0

    def pack(self, group: Group) -> list[Piece]:
        movie = cmaf.parse(self._muxer.mux(group))
        pieces: list[Piece] = [] if self._count else [movie.init]
        for fragment in movie.fragments:
            self._count += 1
            pieces.append(fragment.moved(start=self._at, number=self._count).data)
            self._at += fragment.duration
        return pieces

    def alone(self, group: Group) -> bytes:
        return self._muxer.mux(group)
