"""People of a site, as its command line and an auditor's ask about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from videostore.app.host import host_time
from videostore.app.keys import ledger_key
from videostore.app.ledger import verify_ledger
from videostore.app.parts import Parts, staff
from videostore.config.site import Site, find_root
from videostore.domain.access import Dossier, Reason, Staff, approved_until, judge_approval, right_to_see
from videostore.domain.breach import suspected
from videostore.domain.errors import ConfigInvalid, LedgerBroken, SignatureInvalid
from videostore.domain.identity import Identity
from videostore.domain.ledger import Event, Json, Record
from videostore.gate.authenticator import current_code, enrolment
from videostore.gate.casebook import Casebook, bookmark
from videostore.gate.papers import read_approval
from videostore.ledger.lines import RECORDS, read_lines
from videostore.ports import Draft
from videostore.signing import SigningKey

__all__ = [
    "authority_here",
    "current_code",
    "enrolment",
    "identity",
    "staff_rows",
    "suspected_breaches",
    "verify_approval",
]


def identity(site: Site, subject: str) -> Identity | None:
    """Return who has this subject at the site's provider of OpenID Connect; None for no subject."""
    if not subject:
        return None
    settings = site.settings.gate.oidc
    if settings is None:
        raise ConfigInvalid(
            "the site has no provider of OpenID Connect",
            hint="Name one in videostore.yaml: gate.oidc.issuer.",
        )
    return Identity(settings.issuer, subject)


def authority_here(named: Path | None) -> str:
    """Return the file of the authority that a client trusts: the one that is named, else that of the site
    whose directory this is, else none."""
    here = find_root(None) / "tls" / "ca.pem"
    found = named or (here if here.is_file() else None)
    return str(found.absolute()) if found else ""


def staff_rows(site: Site) -> list[dict[str, Any]]:
    """Return everybody on file, and whether they may see footage now."""
    policy, now = site.access(), host_time()
    rows = []
    with Parts(site) as parts:
        key = SigningKey.load(ledger_key(site.root))
        book = Casebook(parts.ledger, bookmark(site.root / "gate", key)).follow()
    for dossier in filter(None, map(book.valid, staff(site).list())):
        decision = right_to_see(dossier, policy=policy, now=now)
        rows.append(
            {
                "staff_id": dossier.staff.id,
                "department": dossier.staff.department,
                "may_see_footage": decision.allowed,
                "reason": decision.reason.value,
                "approved_until": approved_until(dossier, now=now),
            }
        )
    return rows


def suspected_breaches(site: Site) -> list[dict[str, Any]]:
    """Return every suspected breach in the ledger, oldest first, with the records that it rests on."""
    with Parts(site) as parts:
        return [
            {
                "at": breach.at,
                "suspicion": breach.suspicion.value,
                "staff_id": breach.actor,
                "records": list(breach.records),
            }
            for breach in suspected(parts.ledger.records(), site.watch())
        ]


def verify_approval(
    paper: Mapping[str, Any], public_key: str, *, ledger: Path | None, now: datetime
) -> dict[str, Any]:
    """Check an approval by the approver's public key, and by a copy of the ledger if there is one.

    Raises SignatureInvalid if it is no approval at all, LedgerBroken if the copy does not verify.
    """
    try:
        approval = read_approval(paper, paper, public_key)
        person = Staff(approval.staff_id, str(paper["department"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureInvalid(f"this is no approval: {error}", hint="Name the file of one.") from error
    if ledger is not None:
        book = Casebook(_Copy(ledger)).follow()
        dossier = book.valid(Dossier(person, [approval]))
        assert dossier is not None
        (approval,) = dossier.approvals
    reason = judge_approval(approval, person, now)
    return {
        "approval_id": approval.id,
        "staff_id": approval.staff_id,
        "department": person.department,
        "approver": str(paper["approver"]),
        "valid_from": approval.valid.start,
        "valid_until": approval.valid.end,
        "withdrawal_checked": ledger is not None,
        "reason": reason.value,
        "ok": reason is Reason.ALLOWED,
    }


@dataclass(frozen=True, slots=True)
class _Copy:
    """Port Ledger: a copy that is only read, verified as a whole first."""

    directory: Path

    def append(self, event: Event, *, actor: str, body: Mapping[str, Json]) -> Record:
        raise NotImplementedError("a copy of the ledger is only read")

    def append_all(self, drafts: Sequence[Draft]) -> Sequence[Record]:
        raise NotImplementedError("a copy of the ledger is only read")

    def records(self, *, after: int = -1) -> Iterator[Record]:
        _, problems = verify_ledger(self.directory, "")
        if problems:
            raise LedgerBroken(f"the copy of the ledger does not verify: {problems[0]}")
        for line in read_lines(self.directory / RECORDS):
            if line.record.sequence > after:
                yield line.record

    def find(self, *events: Event) -> Iterator[Record]:
        return (record for record in self.records() if record.event in events)
