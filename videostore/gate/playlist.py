"""HLS playlists (RFC 8216 and its second edition) of what a serving holds.

On the time line of a playlist a hole takes no time: a discontinuity stands there, and the time of day that
every part tells jumps. Why there is a hole is told as a date range. Every part names its own init, so that a
change of format within a serving plays on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from videostore.domain.segment import Gap, Span
from videostore.gate.footage import GAP, Part, Serving

CLASS_OF_GAPS = "videostore.gap"


def media_playlist(serving: Serving, gaps: Sequence[Gap], *, more: bool, joined: bool = False) -> str:
    """Return the playlist of a serving; ``more`` if parts may still be added to it. ``joined``: no part is
    said to stand apart, for a player that ends there; time stamps go on over a hole, and so does the film.
    """
    parts = serving.parts
    longest = max((part.span.duration for part in parts), default=timedelta(seconds=1))
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:8",
        f"#EXT-X-TARGETDURATION:{int(longest.total_seconds()) + 1}",
        f"#EXT-X-PLAYLIST-TYPE:{'EVENT' if more else 'VOD'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        *(_date_range(gap, serving.grant.request.span) for gap in gaps),
    ]
    for index, part in enumerate(parts):
        if index and not joined and _apart(parts[index - 1], part):
            lines.append("#EXT-X-DISCONTINUITY")
        lines += [
            *(["#EXT-X-GAP"] if part.gone else []),
            f'#EXT-X-MAP:URI="{index}.init.mp4"',
            f"#EXT-X-PROGRAM-DATE-TIME:{_time(part.span.start)}",
            f"#EXTINF:{part.span.duration.total_seconds():.6f},",
            f"{index}.m4s",
        ]
    return "\n".join([*lines, *([] if more else ["#EXT-X-ENDLIST"]), ""])


def variant_playlist(serving: Serving, uri: str) -> str:
    """Return a playlist that says nothing but where the other is, and how many bits a second it takes."""
    seconds = serving.offset(len(serving.parts)).total_seconds() or 1.0
    bits = 8 * sum(part.segment.size_bytes for part in serving.parts) / seconds
    stream = f"#EXT-X-STREAM-INF:BANDWIDTH={max(1, int(bits))}"
    return "\n".join(["#EXTM3U", "#EXT-X-VERSION:8", "#EXT-X-INDEPENDENT-SEGMENTS", stream, uri, ""])


def _apart(before: Part, after: Part) -> bool:
    return abs(after.span.start - before.span.end) > GAP


def _date_range(gap: Gap, asked: Span) -> str:
    span = gap.span.intersection(asked)
    assert span is not None
    return (
        f'#EXT-X-DATERANGE:ID="{gap.reason.value}-{span.start:%Y%m%dT%H%M%S.%f}",CLASS="{CLASS_OF_GAPS}",'
        f'START-DATE="{_time(span.start)}",DURATION={span.duration.total_seconds():.3f},'
        f'X-REASON="{gap.reason.value}"'
    )


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
