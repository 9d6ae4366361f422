"""What a role answers at ``/readyz``: whether anything keeps it from doing its work."""

from __future__ import annotations

from videostore.app.parts import Parts, restored_mark
from videostore.domain.errors import VideostoreError
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, KeyId


def lacks(parts: Parts, role: str) -> str:
    """Say what keeps a role from doing its work, if anything does."""
    try:
        if restored_mark(parts.site.root).exists():
            return "the site is restored and not reconciled"
        doubt = parts.clock.read().doubt
        if doubt is not None and role != "recorder":
            return f"the clock is in doubt: {doubt.value}"
        if role == "recorder":
            period = parts.policy(Kind.VIDEO)().key_period
            parts.published(Kind.VIDEO).recipient(KeyId.covering(parts.clock.now(), period))
        else:
            parts.catalogue.key_ids(until=EPOCH)
    except VideostoreError as error:
        return str(error)
    return ""
