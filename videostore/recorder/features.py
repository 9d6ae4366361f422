"""What the FFmpeg that PyAV carries can do, and what we need of it."""

from __future__ import annotations

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError

DECODERS = ("h264", "hevc", "mjpeg", "aac", "pcm_alaw", "pcm_mulaw")
FORMATS = ("rtsp", "mp4", "mpegts", "matroska", "avi")


def lacking() -> list[str]:
    """Return the decoders and formats that this FFmpeg does not have and that we record or take in."""
    missing = [name for name in DECODERS if not _decodes(name)]
    return missing + [
        name for name in FORMATS if not any(name in one.split(",") for one in av.formats_available)
    ]


def version() -> str:
    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def _decodes(name: str) -> bool:
    try:
        return Codec(name, "r").is_decoder
    except UnknownCodecError:
        return False
