"""What makes a film an ONVIF export file: who exported what, the start time, signatures over the whole file.

Source: ONVIF Export File Format Specification 26.06. The ``meta`` box is the last of the file, so that a
film can be signed as it is written, and again by whoever receives it: each signature covers the file as it
was when it was made, its own bits zero. It is RSASSA-PSS with SHA-256 and a salt of 20 bytes.

Pure: signing and checking are done by ``signing``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from videostore.domain.errors import SealBroken, SignatureInvalid
from videostore.domain.film import EPOCH_1904, box, boxes
from videostore.domain.segment import MICROSECOND

ORIGINAL, VIEWING_COPY = "videostore export", "videostore viewing copy, not evidence:"
"""What the remark of the first signature begins with: the footage itself, or frames that were drawn into."""
_EPOCH_1601 = datetime(1601, 1, 1, tzinfo=UTC)
_SCHEME = struct.pack(">III", 0, 0x6F656666, 0x00010000)
_HANDLER = box(b"hdlr", bytes(8), b"null", bytes(12), b"\0")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who exported which camera when (``SurveillanceExportBox``)."""

    unit: str
    operator: str
    exported_at: datetime
    source: str
    source_url: str
    track_ids: Sequence[int]

    def to_box(self) -> bytes:
        seconds = (self.exported_at - EPOCH_1904) // timedelta(seconds=1)
        entries = [
            struct.pack(">H", number) + _text(self.source) + _text(self.source_url) + _text("") + _text("")
            for number in self.track_ids
        ]
        return box(
            b"suep",
            struct.pack(">I", 1 << 24),
            _text(self.unit) + _text("") + _text(""),
            struct.pack(">Q", seconds) + _text(self.operator),
            struct.pack(">I", len(entries)),
            *entries,
        )


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature: ``certificate`` (DER) of the signer, the time of the film's media zero, a remark."""

    signature: bytes
    certificate: bytes
    starts: datetime
    track_id: int
    remark: str

    def to_box(self) -> bytes:
        start = (self.starts - _EPOCH_1601) // MICROSECOND * 10
        return box(
            b"sinf",
            box(b"cstb", struct.pack(">IIQ", 1, self.track_id, start)),
            box(b"schm", _SCHEME),
            box(
                b"schi",
                box(b"sibo", self.signature),
                box(b"cert", self.certificate),
                box(b"auib", _text(self.remark)),
            ),
        )


@dataclass(frozen=True, slots=True)
class Meta:
    """The ``meta`` box of a file: its provenance (``suep``, as it stands) and its signatures, in order."""

    provenance: bytes
    signatures: Sequence[Signed]

    def to_box(self) -> bytes:
        protection = box(b"ipro", struct.pack(">IH", 0, 1), *(one.to_box() for one in self.signatures))
        return box(b"meta", bytes(4), _HANDLER, self.provenance, protection)

    def as_signed(self, number: int) -> bytes:
        """Return this box as signature ``number`` covers it: without later ones, its own bits zero."""
        *before, own = self.signatures[: number + 1]
        return replace(self, signatures=[*before, replace(own, signature=bytes(len(own.signature)))]).to_box()

    @property
    def viewing_copy(self) -> bool:
        """Say whether the film is a copy to look at, by what its first signer signed."""
        return any(one.remark.startswith(VIEWING_COPY) for one in self.signatures[:1])

    @classmethod
    def parse(cls, content: bytes) -> Meta:
        """Read the content of a ``meta`` box. Raises SignatureInvalid if it is not exactly as above."""
        try:
            named = dict(boxes(content[4:]))
            signatures = [_signed(inner) for name, inner in boxes(named[b"ipro"][6:]) if name == b"sinf"]
            meta = cls(box(b"suep", named[b"suep"]), signatures)
        except (KeyError, ValueError, struct.error, OverflowError, SealBroken) as error:
            raise SignatureInvalid(f"this is no export of videostore: {error}") from error
        if meta.to_box()[8:] != content:
            raise SignatureInvalid("the file's own description is not as it was written")
        return meta


def operator_of(provenance: bytes) -> dict[str, str]:
    """Return what a ``suep`` box says, as text."""
    unit, _, _, rest = provenance[12:].split(b"\0", 3)
    seconds, text = struct.unpack(">Q", rest[:8])[0], rest[8:].split(b"\0")
    exported_at = EPOCH_1904 + timedelta(seconds=seconds)
    return {"unit": unit.decode(), "operator": text[0].decode(), "exported_at": exported_at.isoformat()}


def _signed(content: bytes) -> Signed:
    named = dict(boxes(content))
    parts = dict(boxes(named[b"schi"]))
    _, track_id, start = struct.unpack(">IIQ", named[b"cstb"])
    return Signed(
        signature=parts[b"sibo"],
        certificate=parts[b"cert"],
        starts=_EPOCH_1601 + start // 10 * MICROSECOND,
        track_id=track_id,
        remark=parts[b"auib"].rstrip(b"\0").decode(),
    )


def _text(text: str) -> bytes:
    return text.replace("\0", "").encode() + b"\0"
