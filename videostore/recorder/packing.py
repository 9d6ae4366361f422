"""Who makes fragmented MP4 of a stream's groups: we ourselves of H.264 and H.265, libav of the rest."""

from __future__ import annotations

from typing import Protocol

from videostore.domain import cmaf
from videostore.ports import Packet, StreamInfo
from videostore.recorder.cutter import Group
from videostore.recorder.muxer import Muxer
from videostore.recorder.native import mp4
from videostore.recorder.native.parameters import Unreadable


class Packing(Protocol):
    """Makes segments of one format of a stream, one after the other."""

    def pack(self, group: Group) -> bytes:
        """Return a group as a movie of its own. Raises CameraStreamInvalid if its frames are not what the
        stream said they are."""

    def keep(self) -> None:
        """Take the group that was packed last into the segment."""

    def movie(self) -> bytes:
        """Return what was kept as one movie, its first frame at time zero; then begin anew."""


def choose(info: StreamInfo, keyframe: Packet) -> Packing:
    """Return what packs the groups from ``keyframe`` on, until the format of the picture changes."""
    if info.codec in mp4.CODECS and info.sound is None:
        try:
            return _Own(mp4.Packer(info, keyframe))
        except Unreadable:
            pass  # libav reads more dialects, and says what is wrong
    return _Libav(Muxer(info))


class _Own:
    def __init__(self, packer: mp4.Packer) -> None:
        self._packer = packer
        self._last: list[mp4.Fragment] = []
        self._fragments: list[mp4.Fragment] = []

    def pack(self, group: Group) -> bytes:
        self._last = [self._packer.pack(group)]
        return self._packer.movie(self._last)

    def keep(self) -> None:
        self._fragments += self._last

    def movie(self) -> bytes:
        fragments, self._fragments = self._fragments, []
        return self._packer.movie(fragments)


class _Libav:
    def __init__(self, muxer: Muxer) -> None:
        self._muxer = muxer
        self._last = b""
        self._movies: list[cmaf.Movie] = []

    def pack(self, group: Group) -> bytes:
        self._last = self._muxer.mux(group)
        return self._last

    def keep(self) -> None:
        self._movies.append(cmaf.parse(self._last))

    def movie(self) -> bytes:
        movies, self._movies = self._movies, []
        return cmaf.join(movies[0].init, [one for movie in movies for one in movie.fragments])
