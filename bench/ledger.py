"""How long a ledger of any length takes to write, to verify and to start with (for a recorder, and for the
gate, which knows what is in it), and in how much memory.

    python bench/ledger.py --records 10000000 --json

Records are made as the ledger makes them, signed and chained, but synced once and not each; then verified by
``videostore.ledger.verify`` in a process of its own, which reads them from the disk. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from videostore.domain.ledger import GENESIS, Event, Json, Record, canonical
from videostore.gate.casebook import Casebook, bookmark
from videostore.ledger.files import FileLedger
from videostore.ledger.lines import RECORDS
from videostore.ledger.verify import verify
from videostore.signing import SigningKey

CAMERAS = 1000


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def generate(directory: Path, key: SigningKey, records: int) -> float:
    """Write ``records`` records like certificates; return the seconds it took."""
    began, previous, at = time.monotonic(), GENESIS, datetime(2026, 11, 24, tzinfo=UTC)
    directory.mkdir()
    with (directory / RECORDS).open("wb", buffering=1 << 20) as file:
        for number in range(records):
            body: dict[str, Json] = {
                "id": f"{number:032x}",
                "camera_id": str(UUID(int=number % CAMERAS)),
                "key_id": f"hour-{number // CAMERAS}",
                "span": ["2026-11-24T12:00:00+00:00", "2026-11-24T13:00:00+00:00"],
                "segments": 360,
                "size_bytes": 180_000_000,
                "segments_sha256": previous,
                "absence": "the store answered that the object does not exist",
            }
            record = Record(number, at, Event.CERTIFICATE, "retention", body, previous)
            data, previous = canonical(record.to_json()), record.hash
            signature = key.sign_canonical(data, context="ledger record")
            file.write(b'{"record":%s,"signature":%s}\n' % (data, canonical(signature)))
    return time.monotonic() - began


def started(directory: Path, key: SigningKey) -> float:
    """Return the seconds in which a new process's ledger appends its first record."""
    began = time.monotonic()
    FileLedger(directory, key=key, clock=_Clock()).append(Event.SITE_CREATED, actor="bench", body={})
    return time.monotonic() - began


def gate_started(directory: Path, key: SigningKey) -> float:
    """Return the seconds in which a new process's gate knows what is on record, and leaves a bookmark."""
    began = time.monotonic()
    book = Casebook(FileLedger(directory, key=key, clock=_Clock()), bookmark(directory.parent / "gate", key))
    book.follow()
    seconds = time.monotonic() - began
    book.keep()
    return seconds


def measure(directory: Path, public_key: str) -> dict[str, float]:
    """Verify; return what it took. Runs alone in its process, so that the peak of memory is its own."""
    began = time.monotonic()
    report = verify(directory, public_key=public_key)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "records": report.records,
        "problems": len(report.problems),
        "seconds": seconds,
        "peak_rss_mb": peak,
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=100_000)
    arguments.add_argument("--directory", type=Path, help="Where to make it; default: a temporary directory.")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1])))
        return 0
    with tempfile.TemporaryDirectory(dir=given.directory) as place:
        key = SigningKey.create(Path(place) / "ledger.key")
        ledger = Path(place) / "ledger"
        made = generate(ledger, key, given.records)
        size = (ledger / RECORDS).stat().st_size
        command = [sys.executable, __file__, "--measure", str(ledger), key.public]
        facts = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        first, again = started(ledger, key), started(ledger, key)
        gate, gate_again = gate_started(ledger, key), gate_started(ledger, key)
        mark = (Path(place) / "gate" / "casebook.bookmark").stat().st_size
        began = time.monotonic()
        proof = FileLedger(ledger, key=key, clock=_Clock()).prove(given.records // 2)
        proven = time.monotonic() - began
    result = {
        "records": int(facts["records"]),
        "problems": facts["problems"],
        "size_mb": round(size / 1e6, 1),
        "seconds": round(facts["seconds"], 2),
        "records_per_s": round(facts["records"] / facts["seconds"]),
        "peak_rss_mb": round(facts["peak_rss_mb"], 1),
        "generate_s": round(made, 2),
        "index_s": round(first, 2),
        "start_and_append_s": round(again, 3),
        "gate_start_without_bookmark_s": round(gate, 2),
        "gate_start_s": round(gate_again, 2),
        "bookmark_mb": round(mark / 1e6, 1),
        "checkpoint_and_prove_s": round(proven, 3),
        "proof_hashes": len(proof.path),
    }
    if not given.json:
        for name, value in result.items():
            print(f"{name:<24}{value}")
    print(json.dumps(result))
    return 1 if result["problems"] or not proof.holds else 0


if __name__ == "__main__":
    sys.exit(main())
