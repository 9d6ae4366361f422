"""The ledger of a site, which takes no record while the site is restored and not reconciled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videostore.app.keys import ledger_key, ledger_public
from videostore.config.site import Site
from videostore.domain.errors import ConfigInvalid, LedgerUnavailable
from videostore.domain.ledger import Event, Record
from videostore.ledger import verify as ledger_verify
from videostore.ledger.anchors import Outside, not_lost
from videostore.ledger.files import FileLedger
from videostore.ledger.lines import RECORDS, find_lines, read_outside
from videostore.ports import Clock, Draft
from videostore.signing import SigningKey


def open_ledger(site: Site, clock: Clock) -> FileLedger:
    return GuardedLedger(site.root / "ledger", key=SigningKey.load(ledger_key(site.root)), clock=clock)


class GuardedLedger(FileLedger):
    """Takes no record while the site is restored and not reconciled: whoever has records that it lost would
    find a fork. So nothing is shown to anybody either (invariant 7), while recording and deletion go on."""

    def append_all(self, drafts: Sequence[Draft]) -> Sequence[Record]:
        reconciles = all(event is Event.SITE_RECONCILED for event, _, _ in drafts)
        if not reconciles and restored_mark(self._directory.parent).exists():
            raise LedgerUnavailable(
                "this site was restored from a backup and is not reconciled yet",
                hint="Run `videostore backup reconcile` (docs/guide/recovery.md).",
            )
        return super().append_all(drafts)


def restored_mark(root: Path) -> Path:
    """Return what says that a site was restored: from which backup. It goes when the site is reconciled."""
    return root / "restored.json"


def verify_against(
    directory: Path, public_key: str, places: Sequence[Path], outside: Outside
) -> tuple[Sequence[str], str]:
    """Verify a ledger, and compare it with the checkpoints kept in ``places`` and ``outside``. Return the
    problems, and in one line what was looked at.

    What a checkpoint pins beyond the backup that a site came back from was lost with its host, and is said in
    ``site.reconciled``: it is counted, not compared.
    """
    for place in places:
        if not place.exists():
            raise ConfigInvalid(
                f"{place} is not there to compare checkpoints", hint="Mount the share, then ask again."
            )
    given = list(outside.checkpoints)
    for place in places:
        given += read_outside(place) if place.is_file() or any(place.glob("*.json")) else ()
    reconciled = (line.record for line in find_lines(directory / RECORDS, [Event.SITE_RECONCILED]))
    kept = not_lost(given, reconciled)
    public = public_key or ledger_public(directory)
    report = ledger_verify.verify(directory, public_key=public, outside=kept)
    said = f"{report.records} records, chained and signed; {len(kept)} checkpoints kept elsewhere compared"
    lost = f", {len(given) - len(kept)} of before the site was restored" if len(given) > len(kept) else ""
    spoilt = [f"{name} keeps a line that is no checkpoint" for name in outside.spoilt]
    return [*report.problems, *spoilt], said + lost


def verify_ledger(
    directory: Path, public_key: str, *, against: Sequence[Path] = ()
) -> tuple[dict[str, Any], Sequence[str]]:
    """Verify the ledger's files; without ``public_key`` by the key that lies beside them. ``against`` are
    files or directories of checkpoints that were kept elsewhere."""
    outside = [one for path in against for one in read_outside(path)]
    report = ledger_verify.verify(
        directory, public_key=public_key or ledger_public(directory), outside=outside
    )
    return report.to_json(), report.problems
