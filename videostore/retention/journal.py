"""What retention has already proven, folded from the ledger, so that nothing is certified twice.

A pass may die between a deed and its record. The deed leaves a trace (a destroyed key's header, an
absent row); the next pass compares the traces with the ledger and writes what is missing.
"""

from __future__ import annotations

from videostore.domain.ledger import Event, Json
from videostore.domain.retention import Certificate, Kind
from videostore.ports import HourKey, Ledger

ACTOR = "retention"


class Journal:
    """Appends records of destroyed keys and certificates, each exactly once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read_to = -1
        self._destroyed: set[tuple[str, str]] = set()
        self._certified: set[str] = set()

    def record_destroyed(self, kind: Kind, key: HourKey) -> bool:
        """Write that ``key`` was destroyed, unless the ledger says so already. Returns whether it wrote."""
        self._catch_up()
        name = (kind.value, str(key.key_id))
        if name in self._destroyed or key.destroyed_at is None:
            return False
        body: dict[str, Json] = {
            "kind": kind.value,
            "key_id": str(key.key_id),
            "recipient": key.recipient,
            "deadline": key.deadline.isoformat(),
            "destroyed_at": key.destroyed_at.isoformat(),
        }
        self._ledger.append(Event.KEY_DESTROYED, actor=ACTOR, body=body)
        return True

    def certify(self, certificate: Certificate) -> bool:
        """Write ``certificate``, unless the ledger has it already. Returns whether it wrote."""
        self._catch_up()
        if certificate.id in self._certified:
            return False
        self._ledger.append(Event.CERTIFICATE, actor=ACTOR, body=certificate_body(certificate))
        return True

    def _catch_up(self) -> None:
        for record in self._ledger.records(after=self._read_to):
            self._read_to = record.sequence
            if record.event is Event.KEY_DESTROYED:
                self._destroyed.add((str(record.body["kind"]), str(record.body["key_id"])))
            elif record.event is Event.CERTIFICATE:
                self._certified.add(str(record.body["id"]))


def certificate_body(certificate: Certificate) -> dict[str, Json]:
    """Return the certificate as it stands in the ledger (docs/reference/certificates.md)."""
    destroyed_at = certificate.key_destroyed_at
    return {
        "id": certificate.id,
        "camera_id": str(certificate.camera_id),
        "key_id": str(certificate.key_id),
        "recipient": certificate.recipient,
        "key_destroyed_at": destroyed_at.isoformat() if destroyed_at else None,
        "span": [certificate.span.start.isoformat(), certificate.span.end.isoformat()],
        "segments": certificate.segments,
        "size_bytes": certificate.size_bytes,
        "segments_sha256": certificate.segments_sha256,
        "confirmed_at": certificate.confirmed_at.isoformat(),
        "absence": certificate.absence,
        "deadline": certificate.deadline.isoformat(),
    }
