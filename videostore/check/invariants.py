"""The invariants of docs/design/invariants.md, asked of a live site.

Nothing here uses the code that enforces them: what is overdue is derived again from the listing of
the store and from the key headers, against the ceiling of paragraph 27 and against the site's
policy. Every question gives one finding; one that cannot be asked says so and does not hold. Checkpoints
that are kept where we may not read are a finding of their own, which neither holds nor does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from videostore.check import rows, segments
from videostore.check.listing import ENTRY_EXIT_S, VIDEO_S, Keeps, Listing, look
from videostore.check.subject import Finding, Subject, finding_of
from videostore.domain.camera import CameraId
from videostore.domain.errors import StoreRefused, VideostoreError
from videostore.domain.keys import KeysOnRecord
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import CEILING, Kind, RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.ports import SegmentStore

_A_WHILE = timedelta(hours=1)


_LEDGER = "Does the ledger verify, and agree with checkpoints kept elsewhere?"


def check(subject: Subject) -> list[Finding]:
    """Ask every question and return the answers, in the order of the invariants."""
    now = subject.clock.read().latest
    questions: list[tuple[int, str, Callable[[], Finding]]] = []

    def ask(invariant: int, question: str, answer: Callable[[int, str], Finding]) -> None:
        questions.append((invariant, question, lambda: answer(invariant, question)))

    unknown = rows.Unknown()
    ask(1, _YOUNGER, lambda _, __: _store(subject, now, unknown))
    ask(1, "Is every hour key destroyed that is past its deadline?", lambda n, q: _keys(subject, now, n, q))
    ask(
        1,
        "Do spool and other copies hold nothing past its deadline?",
        lambda n, q: _holdings(subject, now, n, q),
    )
    ask(
        1,
        "Is the store free of locks, of copies elsewhere and of public access?",
        lambda n, q: finding_of(n, q, subject.store_breaches(), "none", "set by somebody"),
    )
    ask(
        2,
        "Does no promise exceed 30 days, or 24 hours for entry/exit?",
        lambda n, q: _promises(subject, n, q),
    )
    ask(
        3,
        "Does every row of the catalogue say what the name of its object says?",
        lambda n, q: _altered(subject, n, q),
    )
    ask(
        3,
        "Does the catalogue know every segment that was in the store for days?",
        lambda n, q: _known(unknown, n, q),
    )
    ask(4, "Is every catalogued segment in the store?", lambda n, q: _losses(subject, n, q))
    ask(
        4,
        "Are the newest hours, and some others, as the recorder chained them?",
        lambda n, q: _chained(subject, n, q),
    )
    ask(5, "Is nothing condemned before it is due?", lambda n, q: _early(subject, n, q))
    ask(
        5,
        "Does every key that is gone have its record in the ledger?",
        lambda n, q: _destroyed(subject, now, n, q),
    )
    ask(6, "Is the clock believed?", lambda n, q: _clock(subject, n, q))
    ask(7, "Does every footage served follow from a grant?", lambda n, q: _served(subject, n, q))
    ask(8, _LEDGER, lambda n, q: _ledger(subject, n, q))
    ask(
        9,
        "Is every key that is sealed to the one that was made here?",
        lambda n, q: _exchanged(subject, n, q),
    )
    ask(9, "Are private keys readable by their owner only?", lambda n, q: _private(subject, n, q))
    answers = [_answered(number, question, answer) for number, question, answer in questions]
    return sorted([*answers, *not_compared(subject.unread())], key=lambda one: one.invariant)


def _answered(invariant: int, question: str, answer: Callable[[], Finding]) -> Finding:
    try:
        return answer()
    except VideostoreError as error:
        return Finding(invariant, question, False, f"could not be asked: {error}", [error.hint])


def check_listing(store: SegmentStore, keeps: Keeps, now: datetime) -> list[Finding]:
    """Ask what a listing of the store can answer, older versions and unfinished uploads included.

    Needs the right to list and nothing else of the site.
    """
    answers: list[Finding] = []
    try:
        found = look(store.remains(), keeps=keeps, now=now)
    except VideostoreError as error:
        return [Finding(1, _YOUNGER, False, f"could not be asked: {error}", [error.hint])]
    answers.append(_younger(found, now, f"{found.strangers} judged by their receipt"))
    good = "no name claims more than 30 days"
    holds = not found.boastful_count
    bad = f"{found.boastful_count} names claim what no name may"
    answers.append(Finding(2, _NO_LONGER, holds, good if holds else bad, found.boastful))
    return answers


_YOUNGER = "Is every object younger than its deadline?"
_NO_LONGER = "Does no object's name claim more than 30 days?"


def keeps_of(policies: Mapping[Kind, RetentionPolicy]) -> Keeps:
    """Return the site's policy in the auditor's terms; never more than the ceilings."""
    video, entry_exit = policies[Kind.VIDEO], policies[Kind.ENTRY_EXIT]
    return Keeps(
        min(VIDEO_S, int(video.keep.total_seconds())),
        min(ENTRY_EXIT_S, int(entry_exit.keep.total_seconds())),
        _by_camera(video.shorter),
        earlier=[
            *(
                Keeps(
                    video_s=int(one.loaded.keep.total_seconds()),
                    cameras_s=_by_camera(one.loaded.shorter),
                    until_s=one.until.timestamp(),
                )
                for one in video.bounds
            ),
            *(
                Keeps(entry_exit_s=int(one.loaded.keep.total_seconds()), until_s=one.until.timestamp())
                for one in entry_exit.bounds
            ),
        ],
    )


def _by_camera(keeps: Mapping[CameraId, timedelta]) -> dict[str, int]:
    return {str(camera): int(keep.total_seconds()) for camera, keep in keeps.items()}


def _younger(found: Listing, now: datetime, rest: str) -> Finding:
    if found.overdue_count:
        return Finding(
            1, _YOUNGER, False, f"{found.overdue_count} objects past their deadline", found.overdue
        )
    age = _show_age(now - found.oldest) if found.oldest else "none"
    return Finding(1, _YOUNGER, True, f"{found.objects} objects, oldest frame {age}; {rest}")


def _store(subject: Subject, now: datetime, unknown: rows.Unknown) -> Finding:
    policy = subject.policies[Kind.VIDEO]
    objects = unknown.noting(subject.store.remains(), subject.catalogue, policy, subject.clock)
    found = look(objects, keeps=keeps_of(subject.policies), now=now)
    return _younger(found, now, f"{unknown.count} not yet in the catalogue")


def _known(unknown: rows.Unknown, number: int, question: str) -> Finding:
    if not unknown.listed:
        return Finding(number, question, False, "could not be asked: the store was not listed")
    bad = f"{unknown.long} are unknown to it, or as something else: run `videostore catalogue rebuild`"
    good = f"{unknown.count} newer ones not yet"
    return Finding(number, question, not unknown.long, bad if unknown.long else good, unknown.shown)


def _keys(subject: Subject, now: datetime, number: int, question: str) -> Finding:
    late, live = [], 0
    for kind, keyring in subject.keyrings.items():
        for key in keyring.keys():
            if key.destroyed_at is not None:
                continue
            live += 1
            if not key.recipient or now >= min(key.deadline, subject.policies[kind].deadline(key.key_id)):
                late.append(f"{kind} {key.key_id}" if key.recipient else f"{kind} {key.key_id}: unreadable")
    return finding_of(
        number,
        question,
        late,
        f"{live} keys live, none past its deadline",
        "keys late or unreadable",
    )


def _holdings(subject: Subject, now: datetime, number: int, question: str) -> Finding:
    late = [
        f"{holding.name} {key_id}"
        for kind, holdings in subject.holdings.items()
        for holding in holdings
        for key_id in holding.key_ids()
        if now >= subject.policies[kind].deadline(key_id)
    ]
    return finding_of(
        number, question, late, "nothing held past its deadline", "hours held past their deadline"
    )


def _promises(subject: Subject, number: int, question: str) -> Finding:
    broken = [
        f"{kind} {key.key_id}: {key.deadline.isoformat()}"
        for kind, keyring in subject.keyrings.items()
        for key in keyring.keys()
        if key.deadline > key.key_id.start + CEILING[kind]
    ]
    keeps = ", ".join(f"{kind} {_show_age(policy.keep)}" for kind, policy in subject.policies.items())
    return finding_of(number, question, broken, f"policy keeps {keeps}", "keys promised for longer")


def _altered(subject: Subject, number: int, question: str) -> Finding:
    count, shown = rows.altered(subject.catalogue)
    bad = f"{count} rows were altered: `videostore catalogue rebuild` puts right what has an object"
    return Finding(number, question, not count, bad if count else "none was altered", shown)


def _early(subject: Subject, number: int, question: str) -> Finding:
    keys = list(subject.keyrings[Kind.VIDEO].keys())
    leaving, early = rows.early(subject.catalogue, subject.policies[Kind.VIDEO], keys, subject.clock)
    hidden = [f"{count} segments of {camera_id} in {key_id}" for (key_id, camera_id), count in early.items()]
    good = f"{leaving} segments on their way out, all due"
    bad = "hours of cameras were condemned by somebody else: `videostore catalogue rebuild` shows them again"
    return finding_of(number, question, hidden, good, bad)


def _losses(subject: Subject, number: int, question: str) -> Finding:
    count, lost = rows.lost(subject.catalogue, subject.store)
    return finding_of(
        number, question, lost, f"{count} segments, all there", "segments are missing, or of another size"
    )


def _chained(subject: Subject, number: int, question: str) -> Finding:
    """What is listed of some hours, against the chain; ``videostore verify segments`` asks of all."""
    policy, now = subject.policies[Kind.VIDEO], subject.clock.read().latest
    destroyed = {key.key_id for key in subject.keyrings[Kind.VIDEO].keys() if key.destroyed_at is not None}
    a_while = min(_A_WHILE, policy.keep / 30)  # for what is on its way, into the store or out of it

    def settled(camera_id: CameraId, key_id: KeyId) -> bool:
        due_at = policy.due_at(key_id, camera_id=camera_id)
        return key_id not in destroyed and key_id.span.end + a_while <= now < due_at - a_while

    found = segments.sample(
        lambda: subject.ledger.find(Event.SEGMENTS_CHAINED, Event.SEGMENT_GIVEN_UP),
        subject.store,
        public=subject.recorder(),
        settled=settled,
        open_runs=subject.open_runs(),
        pending=subject.pending,
    )
    hours = list(found)
    wrong = [f"{one.camera_id} {one.key_id}: {one.problem}" for one in hours if one.problem]
    bad = "hours of cameras are not as recorded: `videostore verify segments` asks of all"
    return finding_of(number, question, wrong, f"{len(hours)} hours of cameras compared", bad)


_ON_RECORD_WITHIN = timedelta(minutes=1)
"""A sweep ends all keys that are due, then writes that down; one may go on while the ledger is read."""


def _destroyed(subject: Subject, now: datetime, number: int, question: str) -> Finding:
    told = KeysOnRecord.of(subject.ledger.records())
    held = {(kind, key.key_id): key for kind, ring in subject.keyrings.items() for key in ring.keys()}
    destroyed = {name: key.destroyed_at for name, key in held.items() if key.destroyed_at is not None}
    settled = {name for name, at in destroyed.items() if at <= now - _ON_RECORD_WITHIN}
    missing = sorted((settled - told.gone.keys()) | (told.living.keys() - held.keys()))
    return finding_of(
        number,
        question,
        [f"{kind} {key_id}" for kind, key_id in missing],
        f"{len(destroyed)} keys destroyed, all recorded",
        "ended without a record",
    )


def _exchanged(subject: Subject, number: int, question: str) -> Finding:
    """What is sealed to a stranger's key outlives the destruction of ours. A key that was just published may
    not be on record yet; one that nobody here signed has no recipient."""
    held = {
        (kind, key.key_id): key.recipient
        for kind, ring in subject.keyrings.items()
        for key in ring.keys()
        if key.destroyed_at is None
    }
    made = KeysOnRecord.of(subject.ledger.records()).living
    others = sorted(
        name for name, recipient in held.items() if not recipient or made.get(name, recipient) != recipient
    )
    return finding_of(
        number,
        question,
        [f"{kind} {key_id}" for kind, key_id in others],
        f"{len(held)} live keys, as recorded when they were made",
        "keys are not those that were made here: nothing that was sealed to them counts as deleted",
    )


def _clock(subject: Subject, number: int, question: str) -> Finding:
    reading = subject.clock.read()
    doubts = [reading.doubt.value] if reading.doubt else []
    return finding_of(number, question, doubts, reading.latest.isoformat(timespec="seconds"), "doubt")


def _served(subject: Subject, number: int, question: str) -> Finding:
    granted: set[Json] = set()
    orphans: list[str] = []
    served = 0
    for record in subject.ledger.records():
        if record.event is Event.GRANTED:
            granted.add(_grant_of(record))
        elif record.event in {Event.VIEWING, Event.EXPORT, Event.SERVED}:
            served += 1
            if _grant_of(record) not in granted:
                orphans.append(f"record {record.sequence}")
    return finding_of(
        number, question, orphans, f"{served} records of serving, each under a grant", "without a grant"
    )


def _grant_of(record: Record) -> Json:
    return record.body.get("grant_id")


def _ledger(subject: Subject, number: int, question: str) -> Finding:
    return ledger_finding(*subject.verify_ledger(), number, question)


def ledger_finding(
    problems: Sequence[str], looked_at: str, number: int = 8, question: str = _LEDGER
) -> Finding:
    """Answer whether a ledger verifies."""
    return finding_of(number, question, problems, looked_at, "problems")


def not_compared(unread: Mapping[str, VideostoreError]) -> list[Finding]:
    """Say of each place that keeps checkpoints and could not be read that the ledger may disagree with it."""

    def mended(name: str, error: VideostoreError) -> str:
        may_only_add = isinstance(error, StoreRefused)
        return (
            f"Name who may list and read it: ledger.anchors.{name}.auditor." if may_only_add else error.hint
        )

    return [
        Finding(
            8, f"Does the ledger agree with {name}?", None, f"not compared: {error}", [mended(name, error)]
        )
        for name, error in unread.items()
    ]


def _private(subject: Subject, number: int, question: str) -> Finding:
    open_files = [str(path) for path in _existing(subject.private_files) if path.stat().st_mode & 0o077]
    return finding_of(number, question, open_files, "mode 0600", "files that others can read")


def _existing(paths: Sequence[Path]) -> Iterator[Path]:
    return (path for path in paths if path.exists())


def _show_age(age: timedelta) -> str:
    if age < timedelta(minutes=2):
        return f"{age.total_seconds():.0f} s"
    if age < timedelta(days=2):
        return f"{age / timedelta(hours=1):.1f} h"
    return f"{age / timedelta(days=1):.1f} days"
