"""How a site stands against its deadlines, as its command line and an auditor ask."""

from __future__ import annotations

from typing import Any

from videostore.app.host import host_time
from videostore.app.parts import Parts
from videostore.check import invariants
from videostore.domain.retention import CEILING, Kind, SegmentState


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


def check_listing(parts: Parts) -> list[invariants.Finding]:
    """Ask what a listing of the store can answer: no key, ledger, catalogue or mark of the clock is opened.

    The later of this host's time and the store's counts.
    """
    now = max(host_time(), parts.store.time() or host_time())
    return invariants.check_listing(parts.store, invariants.keeps_of(parts.site.retention()), now)
