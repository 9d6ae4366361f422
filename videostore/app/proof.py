"""What proves the promise to an outsider, put together from the parts of a site."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videostore.app.keys import ELSEWHERE, ledger_public, master_key
from videostore.app.parts import Parts
from videostore.check import certificate, proof
from videostore.domain.camera import CameraId
from videostore.domain.errors import KeyUnavailable, RequestInvalid, SiteBusy, VideostoreError
from videostore.domain.ledger import Event, Json, Record
from videostore.durable import erase_file
from videostore.ledger.lines import read_outside

OPERATOR = "operator"
"""Actor of what is done at the command line of the site itself."""


def checkpoint(parts: Parts) -> dict[str, Json]:
    """Sign the head of the ledger."""
    return parts.ledger.checkpoint().to_json()


def anchor(parts: Parts) -> tuple[dict[str, Json], Mapping[str, VideostoreError]]:
    """Sign the head and take it to every place of ``ledger.anchors``; return it, and which of them failed."""
    checkpoint, failures = parts.anchoring.once()
    return checkpoint.to_json(), failures


def prove_record(parts: Parts, sequence: int) -> dict[str, Json]:
    """Return the proof that a record stands in the ledger."""
    return parts.ledger.prove(sequence).to_json()


def prove_growth(parts: Parts, since: Path) -> dict[str, Json]:
    """Return the proof that the ledger of now begins with that of an earlier checkpoint, kept in a file."""
    earlier = read_outside(since)[-1]
    now = parts.ledger.checkpoint()
    path: list[Json] = [*parts.ledger.growth(earlier.size, now.size)]
    return {"first": earlier.to_json(), "second": now.to_json(), "path": path}


def verify_proof(
    file: Path, *, public_key: str, against: Sequence[Path] = (), certificate_only: bool = False
) -> dict[str, Json]:
    """Check a proof from its file and the public key alone. Raises LedgerBroken."""
    document = _read_proof(file)
    outside = [one for path in against for one in read_outside(path)]
    if certificate_only:
        return proof.verify_certificate_proof(document, public_key=public_key, outside=outside)
    if "first" in document:
        return proof.verify_growth(document, public_key=public_key, outside=outside)
    return proof.verify_proof(document, public_key=public_key, outside=outside)


def site_public_key(root: Path) -> str:
    """Return the public key of a site's ledger."""
    return ledger_public(root / "ledger")


def certificates(parts: Parts, camera: CameraId | None = None) -> list[dict[str, Json]]:
    """Return the certificates of deletion, oldest first; of one camera if it is named."""
    return [
        {"sequence": record.sequence, **record.body}
        for record in parts.ledger.find(Event.CERTIFICATE)
        if camera is None or record.body.get("camera_id") == str(camera)
    ]


def prove_certificate(parts: Parts, certificate_id: str) -> dict[str, Json]:
    """Return a certificate as the proof that an outsider can check."""
    return prove_record(parts, _find_certificate(parts, certificate_id).sequence)


def verify_certificate(parts: Parts, certificate_id: str) -> dict[str, Json]:
    """Check one certificate against ledger, keyring and store."""
    return certificate.verify_certificate(parts.subject(), certificate_id)


def _find_certificate(parts: Parts, certificate_id: str) -> Record:
    for record in parts.ledger.find(Event.CERTIFICATE):
        if record.body.get("id") == certificate_id:
            return record
    raise RequestInvalid(
        f"the ledger has no certificate {certificate_id!r}",
        hint="`videostore retention certificates list` has them.",
    )


def _read_proof(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestInvalid(f"{file} is not a proof: {error}", hint="Give the file as it came.") from error
    if not isinstance(document, dict):
        raise RequestInvalid(f"{file} is not a proof", hint="Give the file as it came.")
    return document


def rotate_master_key(parts: Parts, *, older: str, give_up: bool) -> dict[str, Any]:
    """Wrap every private half by a new generation of the master key, then destroy the older ones.

    ``older`` names the master key that wrapped them until now, if another one; a file is erased, a token
    left to who keeps it. May be cut at any point and run again.
    """
    before = master_key(parts.site, older) if older else None
    if before and (running := {"retention", "gate"} & parts.site.running().keys()):
        raise SiteBusy(
            f"{', '.join(sorted(running))} would go on with the master key of before",
            hint="Stop them while the master key moves; recorders may go on.",
        )
    parts.keyrings  # noqa: B018 - destroys what is due first
    parts.master_key.renew()
    count = 0
    unreadable: list[Json] = []
    for kind, ring in parts.keyrings.items():
        wrapped, lost = ring.rewrap(older=before)
        count += wrapped
        unreadable += [f"{kind} {key_id}" for key_id in lost]
    if unreadable and not give_up:
        raise KeyUnavailable(
            f"{len(unreadable)} private halves open by no generation of the master key: {unreadable[0]} …",
            hint="Nothing was destroyed. Restore what was altered, name the key of before by --from, "
            "or give their footage up by --give-up.",
        )
    parts.master_key.retire()
    if older and not older.startswith(ELSEWHERE):
        erase_file(parts.site.path(older))
    parts.ledger.append(
        Event.MASTER_KEY_ROTATED, actor=OPERATOR, body={"keys": count, "given_up": unreadable}
    )
    return {"keys_wrapped": count, "given_up": unreadable}
