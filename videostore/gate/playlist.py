"""HLS playlists (RFC 8216) of what a serving holds."""

from __future__ import annotations

from videostore.gate.footage import Serving


def playlist(serving: Serving) -> str:
    """Every part with its own init, so that a change of format is only a discontinuity."""
    parts = [serving.part(index) for index in range(len(serving.segments))]
    longest = max((part.duration.total_seconds() for part in parts), default=1.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{int(longest) + 1}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
    ]
    for index, part in enumerate(parts):
        lines += [
            *(["#EXT-X-DISCONTINUITY"] if index else []),
            f'#EXT-X-MAP:URI="{index}.init.mp4"',
            f"#EXT-X-PROGRAM-DATE-TIME:{part.start.isoformat(timespec='milliseconds')}",
            f"#EXTINF:{part.duration.total_seconds():.6f},",
            f"{index}.m4s",
        ]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])
