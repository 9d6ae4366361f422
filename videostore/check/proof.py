"""One record, or the growth of the ledger, proven to somebody who has neither the ledger nor trust in us.

A proof is a JSON file. Checking it takes the file and the public key of the site; a checkpoint that was kept
elsewhere makes it certain that everybody was shown the same ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videostore.domain.errors import LedgerBroken
from videostore.domain.ledger import CHECKPOINT_CONTEXT, RECORD_CONTEXT, Checkpoint, Event, Json, Proof
from videostore.domain.merkle import consistent
from videostore.signing import verify


def verify_proof(
    document: Mapping[str, Any], *, public_key: str, outside: Sequence[Checkpoint] = ()
) -> dict[str, Json]:
    """Return what ``document`` proves. Raises LedgerBroken if it proves nothing, or if a checkpoint of
    ``outside`` with the size of its own is another one."""
    proof = Proof.from_json(document)
    _check_checkpoint(proof.checkpoint, public_key, outside)
    if not verify(proof.record.to_json(), proof.signature, public=public_key, context=RECORD_CONTEXT):
        raise LedgerBroken(f"the record is not signed by {public_key}", hint=_HINT)
    if not proof.holds:
        raise LedgerBroken("the record does not stand in the ledger that the checkpoint signs", hint=_HINT)
    return {**proof.record.to_json(), "records": proof.checkpoint.size}


def verify_certificate_proof(
    document: Mapping[str, Any], *, public_key: str, outside: Sequence[Checkpoint] = ()
) -> dict[str, Json]:
    """Return the certificate of deletion that ``document`` proves. Raises LedgerBroken."""
    record = verify_proof(document, public_key=public_key, outside=outside)
    body = record["body"]
    if record["event"] != Event.CERTIFICATE or not isinstance(body, Mapping):
        raise LedgerBroken(f"the record is no certificate but {record['event']}", hint=_HINT)
    return {"sequence": record["sequence"], "recorded_at": record["at"], **body}


def verify_growth(
    document: Mapping[str, Any], *, public_key: str, outside: Sequence[Checkpoint] = ()
) -> dict[str, Json]:
    """Return both lengths if ``document`` proves that the ledger only grew between two checkpoints.
    Raises LedgerBroken."""
    try:
        first, second = (Checkpoint.from_json(document[name]) for name in ("first", "second"))
        path = [bytes.fromhex(step) for step in document["path"]]
        roots = bytes.fromhex(first.root), bytes.fromhex(second.root)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerBroken(f"not a proof of growth: {error}", hint=_HINT) from error
    for one in (first, second):
        _check_checkpoint(one, public_key, outside)
    if not consistent(*roots, first=first.size, second=second.size, path=path):
        raise LedgerBroken("the later ledger does not begin with the earlier one: it was forked", hint=_HINT)
    return {
        "records_then": first.size,
        "signed_then": first.at.isoformat(),
        "records_now": second.size,
        "signed_now": second.at.isoformat(),
    }


def _check_checkpoint(checkpoint: Checkpoint, public_key: str, outside: Sequence[Checkpoint]) -> None:
    if not verify(
        checkpoint.signed_fields(), checkpoint.signature, public=public_key, context=CHECKPOINT_CONTEXT
    ):
        raise LedgerBroken(f"the checkpoint is not signed by {public_key}", hint=_HINT)
    for one in outside:
        if one.size == checkpoint.size and (one.head, one.root) != (checkpoint.head, checkpoint.root):
            raise LedgerBroken(
                f"two signed checkpoints of {one.size} records differ: the ledger was forked",
                hint="Keep both: together they convict whoever holds the key.",
            )


_HINT = "Keep the file as it is, and ask for another copy."
