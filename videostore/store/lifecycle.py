"""The rules by which the store deletes by itself: the backstop of retention, never the enforcer.

S3 counts the days of a rule from the midnight after an object was stored, so a segment that was uploaded late
would stay too long. Each capture day has a prefix of its own; a rule for it can name the date. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from videostore.domain.presence import PRESENCE
from videostore.domain.retention import FOREVER, RetentionPolicy
from videostore.domain.segment import MICROSECOND, SECOND, SITE_KEEP, KeyId, day_prefix

Rule = Mapping[str, Any]
"""As S3 writes it: ID, Status, Filter, and what it does."""

OURS = "videostore-"
DAYS_AHEAD = 365
"""For how long the rules last without anybody who writes new ones."""
MOST_RULES = 1000
"""S3 takes no more."""
_OTHERS = ("age", "entry-exit", "leftovers")
DAY = timedelta(days=1)
_ACTIONS = (
    *("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"),
    *("Transitions", "NoncurrentVersionTransitions"),
)
_MINIO = "AbortIncompleteMultipartUpload"
"""What MinIO leaves out of a rule without a word: it aborts all unfinished uploads itself, after 24 hours."""


def rules(
    video: RetentionPolicy, entry_exit: RetentionPolicy, *, today: date, days_ahead: int = DAYS_AHEAD
) -> list[Rule]:
    """Return the rules for every capture day that may hold something, and for ``days_ahead`` days to come: of
    the site, and of each shorter keep. Where those are too many for S3, for as many days as it takes."""
    firsts = {keep: today - (keep or video.keep) - DAY for keep in _keeps(video, today)}
    behind = sum((today - first).days + 1 for first in firsts.values())
    ahead = min(days_ahead, (MOST_RULES - len(_OTHERS) - behind) // len(firsts))
    dated = [
        _rule(f"day-{_day(day, keep)}", day_prefix(day, keep), Expiration={"Date": expiry(video, day, keep)})
        for keep, first in firsts.items()
        for day in (first + number * DAY for number in range((today - first).days + 1 + ahead))
    ]
    return [
        *dated,
        _rule("age", "", Expiration={"Days": _whole_days(video.keep)}),
        _rule("entry-exit", PRESENCE, Expiration={"Days": _whole_days(entry_exit.keep)}),
        _rule(
            "leftovers",
            "",
            NoncurrentVersionExpiration={"NoncurrentDays": 1},
            AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
            Expiration={"ExpiredObjectDeleteMarker": True},
        ),
    ]


def _keeps(video: RetentionPolicy, today: date) -> list[timedelta]:
    """Return what objects of now may say of their keep: the site's, those of cameras, and those they had when
    footage was sealed that is still there."""
    shorter = set(video.shorter.values())
    for bound in video.bounds:
        if bound.until >= FOREVER or (bound.until + video.keep).date() >= today:
            shorter |= set(bound.loaded.shorter.values())
    return [SITE_KEEP, *sorted(shorter)]


def _day(day: date, keep: timedelta) -> str:
    return f"{day}-{keep // SECOND:07d}" if keep else f"{day}"


def expiry(video: RetentionPolicy, day: date, keep: timedelta = SITE_KEEP) -> datetime:
    """Return the first midnight, UTC, at which nothing captured on ``day`` under this keep has a deadline to
    come."""
    end = datetime.combine(day + DAY, time(), UTC)
    deadline = video.deadline(KeyId.covering(end - MICROSECOND, video.key_period, keep))
    midnight = datetime.combine(deadline.date(), time(), UTC)
    return midnight if midnight == deadline else midnight + DAY


def differences(wanted: Sequence[Rule], found: Sequence[Rule]) -> Iterator[str]:
    """Yield a line for each rule that is missing, changed or not ours."""
    there = {rule.get("ID", ""): rule for rule in found}
    missing = [rule["ID"] for rule in wanted if rule["ID"] not in there]
    if missing:
        yield f"{len(missing)} of {len(wanted)} rules are missing, such as {missing[0]}"
    for rule in wanted:
        if rule["ID"] in there and _plain(there[rule["ID"]]) not in (_plain(rule), _plain(rule, _MINIO)):
            yield f"rule {rule['ID']} was changed"
    for name, rule in there.items():
        if not name.startswith(OURS):
            yield f"rule {name or '(without a name)'} is not ours: {_verbs(rule)}"


def _whole_days(keep: timedelta) -> int:
    return -(-keep // DAY)


def _rule(name: str, prefix: str, **actions: Any) -> Rule:
    return {"ID": f"{OURS}{name}", "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def _plain(rule: Rule, without: str = "") -> tuple[Any, ...]:
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    actions = (None if action == without else rule.get(action) or None for action in _ACTIONS)
    return rule.get("Status"), prefix, *actions


def _verbs(rule: Rule) -> str:
    return ", ".join(action for action in _ACTIONS if rule.get(action)) or "no action"
