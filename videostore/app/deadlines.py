"""How a site stands against its deadlines, as its command line and an auditor ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videostore.app.host import host_time
from videostore.app.ledger import verify_against
from videostore.app.parts import Parts
from videostore.check import invariants
from videostore.check.listing import Keeps
from videostore.check.subject import Finding
from videostore.domain.ledger import Event
from videostore.domain.retention import CEILING, Kind, SegmentState
from videostore.ledger.anchors import Outside
from videostore.ledger.lines import RECORDS, find_lines
from videostore.retention.policies import last_on_record


def retention_status(parts: Parts) -> dict[str, Any]:
    """Return how old the oldest footage is against the ceiling, what is being deleted and what is next."""
    policy, now = parts.policies()[Kind.VIDEO], parts.clock.read().latest
    living = [key for key in parts.published(Kind.VIDEO).keys() if key.destroyed_at is None]
    verdicts = [policy.judge(key.key_id, now=now, promised=key.deadline) for key in living]
    readable = [key for key, verdict in zip(living, verdicts, strict=True) if verdict.deadline > now]
    oldest_key = min((key.key_id.start for key in readable), default=None)
    footage = parts.catalogue.oldest()
    left = {
        (key_id, camera_id): count
        for (key_id, camera_id, state), count in parts.catalogue.leaving().items()
        if state is SegmentState.CONDEMNED
    }
    overdue = [n for (key, one), n in left.items() if policy.deadline(key, camera_id=one) <= now]
    doubt = parts.clock.read().doubt
    return {
        "clock": doubt.value if doubt else "believed",
        "ceiling_seconds": int(CEILING[Kind.VIDEO].total_seconds()),
        "keep_seconds": int(policy.keep.total_seconds()),
        "cameras_kept_for_less": len(policy.of_less),
        "oldest_footage": footage,
        "oldest_footage_age_seconds": int((now - footage).total_seconds()) if footage else None,
        "nothing_readable_before": oldest_key,
        "keys_past_their_deadline": len(living) - len(readable),
        "segments_being_deleted": sum(left.values()),
        "of_them_past_their_deadline": sum(overdue),
        "next_due": min((verdict.due_at for verdict in verdicts), default=None),
    }


def check_listing(
    parts: Parts, *, ledger: Path | None = None, public_key: str = "", against: Sequence[Path] = ()
) -> list[Finding]:
    """Ask what a listing of the store can answer: no key, catalogue or mark of the clock is opened.

    The later of this host's time and the store's counts. With a copy of the ledger the store is judged by the
    policies on record there, else by those of this site's files. The copy is compared with ``against``, or
    with what the site's anchors kept if there is nothing else.
    """
    now = max(host_time(), parts.store.time() or host_time())
    if ledger is None:
        return invariants.check_listing(parts.store, invariants.keeps_of(parts.site.retention()), now)
    outside = Outside() if against else parts.outside()
    problems, looked_at = verify_against(ledger, public_key, against, outside)
    records = (line.record for line in find_lines(ledger / RECORDS, [Event.POLICY_LOADED]))
    policies = last_on_record(records)
    keeps = Keeps() if policies is None else invariants.keeps_of(policies)
    judged = "the ceilings, for it has no policy" if policies is None else "its policies"
    finding = invariants.ledger_finding(problems, f"{looked_at}; the store is judged by {judged}")
    listed = invariants.check_listing(parts.store, keeps, now)
    return [*listed, finding, *invariants.not_compared(outside.unread)]
