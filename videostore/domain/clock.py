"""Time that may be doubted: an interval instead of an instant.

A host's clock can jump. Believed blindly, a jump forward destroys a month of footage, and a
jump backwards lets footage outlive its deadline. So no rule here asks "what time is it":
destruction asks for the *earliest* time it can be, opening asks for the *latest*. While the
clock is trusted both are the same; while it is in doubt nothing is destroyed that either
reading would spare, and nothing opens that either reading would call due (invariant 6).

Pure: the host's clock, the mark and the witnesses come in as values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

BACKWARDS_TOLERANCE = timedelta(seconds=2)
"""NTP steps smaller than this are ordinary and raise no doubt."""


class Doubt(StrEnum):
    """Why the host's clock is not believed."""

    WENT_BACK = "clock-went-back"
    JUMPED_AHEAD = "clock-jumped-ahead"
    WITNESS_DISAGREES = "clock-witness-disagrees"


@dataclass(frozen=True, slots=True)
class Reading:
    """The true time lies in ``[earliest, latest]`` (UTC)."""

    earliest: datetime
    latest: datetime
    doubt: Doubt | None = None


def read(
    host: datetime,
    *,
    mark: datetime | None,
    witnesses: Iterable[datetime] = (),
    max_step: timedelta,
    max_apart: timedelta | None = None,
) -> Reading:
    """Judge the host's clock against what is known.

    ``mark`` is the highest trusted time so far, kept on disk (None on the first start).
    ``witnesses`` are other clocks read now, such as the ``Date`` header of the object store.
    ``max_step`` bounds the time a site may have been off without a witness, ``max_apart`` (else
    ``max_step``) the distance to a witness.
    """
    known = list(witnesses)
    for witness in known:
        if abs(host - witness) > (max_apart or max_step):
            low, high = sorted((host, witness))
            return Reading(low, max(high, mark or high), Doubt.WITNESS_DISAGREES)
    if mark is None:
        return Reading(host, host)
    if host < mark - BACKWARDS_TOLERANCE:
        return Reading(host, mark, Doubt.WENT_BACK)
    if host - mark > max_step and not known:
        return Reading(mark, host, Doubt.JUMPED_AHEAD)
    return Reading(host, host)
