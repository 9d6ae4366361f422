"""The invariants of docs/design/invariants.md, asked of a live site.

Nothing here uses the code that enforces them: what is overdue is derived again from the listing of
the store and from the key headers, against the ceiling of paragraph 27 and against the site's
policy. Every question gives one finding; one that cannot be asked says so and does not hold. Checkpoints
that are kept where we may not read are a finding of their own, which neither holds nor does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from videostore.check.listing import ENTRY_EXIT_S, VIDEO_S, Keeps, Listing, look
from videostore.domain.camera import CameraId
from videostore.domain.errors import StoreRefused, VideostoreError
from videostore.domain.keys import KeysOnRecord
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import CEILING, Kind, RetentionPolicy
from videostore.domain.segment import SEGMENTS, ObjectKey
from videostore.ports import Catalogue, Clock, Holding, Keyring, Ledger, SegmentStore, StoredObject

_SHOWN = 5
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. ``invariant`` is its number, ``evidence`` names at most a few of what offends.

    ``holds`` is None where nobody can say from here: evidence is kept elsewhere, and was not read.
    """

    invariant: int
    question: str
    holds: bool | None
    answer: str
    evidence: Sequence[str] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "invariant": self.invariant,
            "question": self.question,
            "holds": self.holds,
            "answer": self.answer,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. ``verify_ledger`` returns the problems found and what it looked at, ``unread`` why
    places that keep checkpoints could not be read, ``store_breaches`` what somebody set in the store that
    breaks a promise."""

    policies: Mapping[Kind, RetentionPolicy]
    keyrings: Mapping[Kind, Keyring]
    holdings: Mapping[Kind, Sequence[Holding]]
    clock: Clock
    store: SegmentStore
    catalogue: Catalogue
    ledger: Ledger
    verify_ledger: Callable[[], tuple[Sequence[str], str]]
    unread: Callable[[], Mapping[str, VideostoreError]] = dict
    private_files: Sequence[Path] = ()
    store_breaches: Callable[[], Sequence[str]] = lambda: ()


_LEDGER = "Does the ledger verify, and agree with checkpoints kept elsewhere?"


def check(subject: Subject) -> list[Finding]:
    """Ask every question and return the answers, in the order of the invariants."""
    now = subject.clock.read().latest
    questions: list[tuple[int, str, Callable[[], Finding]]] = []

    def ask(invariant: int, question: str, answer: Callable[[int, str], Finding]) -> None:
        questions.append((invariant, question, lambda: answer(invariant, question)))

    ask(1, _YOUNGER, lambda _, __: _store(subject, now))
    ask(1, "Is every hour key destroyed that is past its deadline?", lambda n, q: _keys(subject, now, n, q))
    ask(
        1,
        "Do spool and other copies hold nothing past its deadline?",
        lambda n, q: _holdings(subject, now, n, q),
    )
    ask(
        1,
        "Is the store free of locks, of copies elsewhere and of public access?",
        lambda n, q: _finding(n, q, subject.store_breaches(), "none", "set by somebody"),
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
    ask(4, "Is every catalogued segment in the store?", lambda n, q: _losses(subject, n, q))
    ask(5, "Is nothing condemned before it is due?", lambda n, q: _early(subject, now, n, q))
    ask(
        5,
        "Does every key that is gone have its record in the ledger?",
        lambda n, q: _destroyed(subject, n, q),
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


def _finding(invariant: int, question: str, offending: Sequence[str], good: str, bad: str) -> Finding:
    if not offending:
        return Finding(invariant, question, True, good)
    return Finding(invariant, question, False, f"{len(offending)} {bad}", list(offending[:_SHOWN]))


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


def _store(subject: Subject, now: datetime) -> Finding:
    unknown: list[int] = []
    objects = _noting_unknown(subject, unknown)
    found = look(objects, keeps=keeps_of(subject.policies), now=now)
    return _younger(found, now, f"{sum(unknown)} not yet in the catalogue")


def _noting_unknown(subject: Subject, unknown: list[int]) -> Iterator[StoredObject]:
    """Yield everything that is stored, and count the segments that the catalogue does not know."""
    page: set[ObjectKey] = set()
    for found in subject.store.remains():
        yield found
        if found.key.startswith(SEGMENTS):
            page.add(found.key)
        if len(page) == _PAGE:
            unknown.append(len(page - subject.catalogue.known(page)))
            page = set()
    unknown.append(len(page - subject.catalogue.known(page)))


def _keys(subject: Subject, now: datetime, number: int, question: str) -> Finding:
    late, live = [], 0
    for kind, keyring in subject.keyrings.items():
        for key in keyring.keys():
            if key.destroyed_at is not None:
                continue
            live += 1
            if not key.recipient or now >= min(key.deadline, subject.policies[kind].deadline(key.key_id)):
                late.append(f"{kind} {key.key_id}" if key.recipient else f"{kind} {key.key_id}: unreadable")
    return _finding(
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
    return _finding(
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
    return _finding(number, question, broken, f"policy keeps {keeps}", "keys promised for longer")


def _altered(subject: Subject, number: int, question: str) -> Finding:
    count, shown = 0, list[str]()
    for count, row in enumerate(subject.catalogue.altered(), start=1):  # noqa: B007 - the last one counts
        if len(shown) < _SHOWN:
            shown.append(row)
    bad = f"{count} rows were altered: `videostore catalogue rebuild` puts right what has an object"
    return Finding(number, question, not count, bad if count else "none was altered", shown)


def _early(subject: Subject, now: datetime, number: int, question: str) -> Finding:
    """Whoever condemns rows hides their footage; the sweep deletes nothing of it before its time."""
    policy = subject.policies[Kind.VIDEO]
    keys = {key.key_id: key for key in subject.keyrings[Kind.VIDEO].keys()}
    early, leaving = list[str](), 0
    for (key_id, camera_id, state), segments in subject.catalogue.leaving().items():
        leaving += segments
        key = keys.get(key_id)
        if key is not None and key.destroyed_at is not None:
            continue
        deadlines = [policy.deadline(key_id, camera_id=camera_id), *([key.deadline] if key else [])]
        if now < min(deadlines) - policy.lead:
            early.append(f"{segments} segments of {camera_id} in {key_id}, {state}")
    good = f"{leaving} segments on their way out, all due"
    return _finding(number, question, early, good, "hours of cameras were condemned by somebody else")


def _losses(subject: Subject, number: int, question: str) -> Finding:
    """A row whose object is gone before its deadline, or of another size, is a loss; a row swept meanwhile is
    not."""
    lost: list[str] = []
    after: ObjectKey | None = None
    rows = 0
    while page := subject.catalogue.live(after=after, limit=_PAGE):
        rows += len(page)
        missing = {one.object_key for one in page if subject.store.size(one.object_key) != one.size_bytes}
        if missing:
            again = subject.catalogue.live(after=after, limit=_PAGE)
            lost += sorted(missing & {segment.object_key for segment in again})
        after = page[-1].object_key
    return _finding(
        number, question, lost, f"{rows} segments, all there", "segments are missing, or of another size"
    )


def _destroyed(subject: Subject, number: int, question: str) -> Finding:
    told = KeysOnRecord.of(subject.ledger.records())
    held = {(kind, key.key_id): key for kind, ring in subject.keyrings.items() for key in ring.keys()}
    destroyed = {name for name, key in held.items() if key.destroyed_at is not None}
    missing = sorted((destroyed - told.gone.keys()) | (told.living.keys() - held.keys()))
    return _finding(
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
    return _finding(
        number,
        question,
        [f"{kind} {key_id}" for kind, key_id in others],
        f"{len(held)} live keys, as recorded when they were made",
        "keys are not those that were made here: nothing that was sealed to them counts as deleted",
    )


def _clock(subject: Subject, number: int, question: str) -> Finding:
    reading = subject.clock.read()
    doubts = [reading.doubt.value] if reading.doubt else []
    return _finding(number, question, doubts, reading.latest.isoformat(timespec="seconds"), "doubt")


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
    return _finding(
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
    return _finding(number, question, problems, looked_at, "problems")


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
    return _finding(number, question, open_files, "mode 0600", "files that others can read")


def _existing(paths: Sequence[Path]) -> Iterator[Path]:
    return (path for path in paths if path.exists())


def _show_age(age: timedelta) -> str:
    if age < timedelta(minutes=2):
        return f"{age.total_seconds():.0f} s"
    if age < timedelta(days=2):
        return f"{age / timedelta(hours=1):.1f} h"
    return f"{age / timedelta(days=1):.1f} days"
