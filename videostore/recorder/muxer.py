"""Frames into fragmented MP4 (CMAF), by libav; frames are copied, never encoded again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import av.audio
import av.container
import av.error
import av.video

from videostore.domain.errors import CameraStreamInvalid
from videostore.ports import Packet, SoundInfo, StreamInfo
from videostore.recorder.aac import UNIT_SAMPLES, silent_film
from videostore.recorder.cutter import Group
from videostore.recorder.native import parameters

_OPTIONS = {"movflags": "cmaf+empty_moov+frag_keyframe+skip_trailer"}
_WITH_SOUND = {
    "movflags": "default_base_moof+empty_moov+frag_keyframe+skip_trailer+frag_discont",
    "use_editlist": "1",
    "avoid_negative_ts": "disabled",
}
"""A CMAF track stands alone, this is two. Only told of a break libav keeps the time before the first sound;
and players disagree about when pictures with negative composition offsets are shown."""

_START_OF_FRAME = re.compile(rb"\xff\xc0(.{17})", re.DOTALL)


def parameter_sets(codec: str, keyframe: bytes) -> tuple[bytes, ...]:
    """Return what of a keyframe says how it is to be decoded, empty if it carries nothing of the kind.

    ``keyframe`` is a byte stream with start codes (ITU-T H.264, H.265, annex B), or a JPEG, whose start of
    frame it is (ITU-T T.81, B.2.2).
    """
    if codec == "mjpeg":
        return tuple(_START_OF_FRAME.findall(keyframe)[:1])
    return tuple(parameters.sets(codec, keyframe))


class Muxer:
    """Writes each group of one stream as a fragmented MP4 of one fragment, its first frame at time zero."""

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._template: av.video.stream.VideoStream | None = None
        self._sound = _describe_sound(info.sound) if info.sound else None

    def mux(self, group: Group) -> bytes:
        """Raises CameraStreamInvalid if the frames are not what the stream said they are."""
        try:
            if self._template is None:
                self._template = self._describe(group.packets[0])
            return self._write(group, self._template)
        except av.error.FFmpegError as error:
            raise CameraStreamInvalid(
                f"the camera's frames cannot be packed: {error.strerror}", hint="The recorder connects again."
            ) from error

    def _describe(self, keyframe: Packet) -> av.video.stream.VideoStream:
        """Have libav read the parameter sets: from the keyframe, else from the stream's own header."""
        for data in (keyframe.data, self._info.extradata + keyframe.data):
            container = av.open(io.BytesIO(data), format=self._info.codec)
            stream = container.streams.video[0]
            if stream.codec_context.width and (stream.codec_context.extradata or self._info.codec == "mjpeg"):
                return stream
        raise CameraStreamInvalid("the camera sends no parameter sets", hint="Restart the camera.")

    def _write(self, group: Group, template: av.video.stream.VideoStream) -> bytes:
        buffer = io.BytesIO()
        options = _WITH_SOUND if self._sound else _OPTIONS
        with av.open(buffer, "w", format="mp4", options=options) as output:
            stream = output.add_stream_from_template(template)
            stream.time_base = self._info.time_base
            times = _times(group)
            early = -times[0][1]  # a fragment is decoded from zero on: so much later is all shown, and heard
            packets = []
            for packet, (pts, dts, duration) in zip(group.packets, times, strict=True):
                copy = av.Packet(packet.data)
                copy.stream, copy.time_base = stream, self._info.time_base
                copy.pts, copy.dts, copy.duration = pts, dts, duration
                copy.is_keyframe = packet.keyframe
                packets.append((dts * self._info.time_base, copy))
            packets += self._beside(output, group, early * self._info.time_base)
            for _, copy in sorted(packets, key=lambda one: one[0]):
                output.mux(copy)
        return buffer.getvalue()

    def _beside(
        self, output: av.container.OutputContainer, group: Group, later: Fraction
    ) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
        """Add a track for the sound, there or not: one header serves all groups. Yield when, and packet."""
        if self._sound is None or self._info.sound is None:
            return
        stream = output.add_stream_from_template(self._sound)
        stream.codec_context.extradata = self._info.sound.extradata
        stream.codec_context.bit_rate = 0
        stream.time_base = self._info.sound.time_base
        for unit in group.sound:
            copy = av.Packet(unit.data)
            copy.stream, copy.time_base = stream, stream.time_base
            copy.pts = copy.dts = unit.at + int(later / stream.time_base)
            copy.duration, copy.is_keyframe = UNIT_SAMPLES, True
            yield copy.dts * stream.time_base, copy


def _describe_sound(sound: SoundInfo) -> av.audio.stream.AudioStream:
    """Return a stream of such sound, for a header to be made of."""
    return av.open(io.BytesIO(silent_film(sound)), format="aac").streams.audio[0]


def _times(group: Group) -> list[tuple[int, int, int]]:
    """Return ``(pts, dts, duration)`` of each frame in ticks, the keyframe shown at zero.

    RTP says when a frame is shown, not when it is decoded: frames are decoded one after the other, at the
    moments at which the frames of the group are shown, and early enough for each.
    """
    start = group.packets[0].pts
    shown = [packet.pts - start for packet in group.packets]
    decoded = [one - min(shown) for one in sorted(shown)]
    early = max(0, *(dts - pts for pts, dts in zip(shown, decoded, strict=True)))
    durations = [
        after - before for before, after in pairwise([*decoded, max(group.duration, decoded[-1] + 1)])
    ]
    return [(pts, dts - early, length) for pts, dts, length in zip(shown, decoded, durations, strict=True)]
