"""One stream of a connection: its packets, the reports about them, and the camera's clock that they tell."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from videostore.recorder.native import rtcp
from videostore.recorder.native.rtp import Depacketizer, Receiver
from videostore.recorder.native.sdp import Media


class Feed:
    """``depacketizer`` puts together what the packets hold; ``report_channel`` is where reports go to."""

    def __init__(self, media: Media, depacketizer: Depacketizer) -> None:
        self.media = media
        self.receiver = Receiver(media.payload_type, depacketizer)
        self.keep = depacketizer.keep
        self.report_channel = 0
        self._report: rtcp.SenderReport | None = None
        self._reported = 0.0
        self._clock: tuple[datetime, int, int] | None = None  # of the report: wall clock, ticks and source
        self._counted = (0, 0)

    def told(self, report: rtcp.SenderReport) -> None:
        """Take what the camera reports."""
        self._report, self._reported, self._clock = report, time.monotonic(), None

    def claimed(self, timestamp: int) -> datetime | None:
        """Return when that was by the camera's clock, None if it did not tell."""
        if self._report is None:
            return None
        if self._clock is None:
            wall = rtcp.wall_clock(self._report)
            if wall is None:
                return None
            self._clock = wall, self.receiver.ticks(self._report.timestamp), self.receiver.ssrc
        wall, ticks, source = self._clock
        if source != self.receiver.ssrc:
            return None  # of a source that is gone; the next report is of this one
        try:
            return wall + timedelta(seconds=(timestamp - ticks) / self.media.clock_hz)
        except OverflowError:
            return None

    def report(self, ours: int, monotonic: float) -> bytes:
        """Return a receiver report (RFC 3550, 6.4.2), as it is sent. ``ours`` is who reports."""
        receiver = self.receiver
        received, lost = receiver.received, receiver.lost
        since, missing = received - self._counted[0], lost - self._counted[1]
        self._counted = received, lost
        report = self._report
        body = rtcp.receiver_report(
            ours,
            receiver.ssrc,
            fraction_lost=min(255, 256 * missing // max(1, since + missing)),
            lost=lost,
            highest=receiver.highest,
            last=report.ntp >> 16 & 0xFFFFFFFF if report else 0,
            delay=int((monotonic - self._reported) * 65536) if report else 0,
        )
        return bytes([0x24, self.report_channel]) + len(body).to_bytes(2, "big") + body
