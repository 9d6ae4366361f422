"""What a sweep costs, against what is live.

``python bench/retention_scale.py --live 30000000 --expired 1000000 --json``

A SQLite catalogue is filled with live and with expired segments of a thousand cameras, as a site leaves them.
Then, in a process of its own, retention takes the expired ones from live to forgotten: condemned, keys
destroyed, deleted, certified. Catalogue, keyring and ledger are real; the store answers at once, so what is
measured is retention and not a store. Run it with 3 and with 30 million live: seconds and memory must not
follow them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from videostore import telemetry
from videostore.catalogue.sql import SqlCatalogue
from videostore.domain.clock import Reading
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import EPOCH, MICROSECOND, ObjectKey, Sha256Hex
from videostore.keyring.files import FileKeyring
from videostore.keyring.master import MasterKeyFile
from videostore.ledger.files import FileLedger
from videostore.ports import StoredObject
from videostore.retention.pace import Pace
from videostore.retention.sweep import Keys, Sweep
from videostore.signing import SigningKey

CAMERAS = 1000
HOUR, DAY, LEAD = timedelta(hours=1), timedelta(days=1), timedelta(minutes=15)
START = datetime(2026, 10, 20, tzinfo=UTC)
AN_HOUR = 360  # segments of a camera: ten seconds each


class Shape:
    """How rows are spread: the first ``expired`` of ``hours`` are due, ``each`` rows a camera and hour."""

    def __init__(self, live: int, expired: int) -> None:
        self.expired = max(1, round(expired / (CAMERAS * AN_HOUR)))
        wanted = expired / (self.expired * CAMERAS)
        whole = (each for each in range(1, AN_HOUR + 1) if not HOUR // MICROSECOND % each)
        self.each = min(whole, key=lambda each: abs(each - wanted))  # no row lies across an hour
        self.hours = self.expired + max(1, round(live / (CAMERAS * self.each)))

    @property
    def now(self) -> datetime:
        return START + (self.expired - 1) * HOUR + 30 * DAY - LEAD


class FixedClock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def read(self) -> Reading:
        return Reading(self.at, self.at)


class InstantStore:
    """Port SegmentStore: whatever is asked for is there, whatever is deleted is gone."""

    def put(self, _key: ObjectKey, _body: bytes, *, sha256: Sha256Hex) -> None: ...

    def get(self, _key: ObjectKey) -> bytes:
        return b""

    def size(self, _key: ObjectKey) -> int | None:
        return 1

    def delete(self, _keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        return {}

    def objects(self, _prefix: str = "") -> Iterator[StoredObject]:
        return iter(())

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        return (found for found in self.objects(prefix) if found.key > after)

    def prefixes(self, _prefix: str = "") -> list[str]:
        return []

    def time(self) -> datetime | None:
        return None


def policy() -> RetentionPolicy:
    return RetentionPolicy(Kind.VIDEO, 30 * DAY, LEAD, HOUR)


def keyring(root: Path, clock: FixedClock, ahead: timedelta) -> FileKeyring:
    return FileKeyring(
        root / "keys",
        master_key=MasterKeyFile(root / "master.key"),
        signing_key=SigningKey.load(root / "ledger.key"),
        policy=policy,
        clock=clock,
        ahead=ahead,
    )


def fill(root: Path, shape: Shape) -> int:
    """Make the catalogue and the keys. Returns the number of rows."""
    SqlCatalogue.open(f"sqlite:///{root}/catalogue.db").close()
    MasterKeyFile(root / "master.key").renew()
    SigningKey.create(root / "ledger.key")
    keyring(root, FixedClock(START), (shape.hours - 1) * HOUR).create_ahead()
    with sqlite3.connect(root / "catalogue.db") as connection:
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "cache_size=-500000",
            f"temp_store_directory='{root}'",
        ):
            connection.execute(f"PRAGMA {pragma}")
        made = "SELECT name, sql FROM sqlite_master WHERE type='index' AND sql NOTNULL"
        indexes = list(connection.execute(made))
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        ids = [str(UUID(int=number << 96 | 1)) for number in range(CAMERAS)]
        for day in range((shape.hours + 23) // 24):
            rows = min(24, shape.hours - 24 * day) * shape.each
            for camera_id in ids:
                _insert(connection, START + day * DAY, camera_id, rows, HOUR // shape.each)
        connection.commit()
        for _, sql in indexes:
            connection.execute(sql)
        return int(connection.execute("SELECT count(*) FROM segments").fetchone()[0])


def _insert(
    connection: sqlite3.Connection, day: datetime, camera_id: str, rows: int, step: timedelta
) -> None:
    """Insert a day of a camera in the order of the keys: table and own index only grow at their end."""
    day_us, step_us = (day - EPOCH) // MICROSECOND, step // MICROSECOND
    connection.execute(
        """
        WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows),
        spans(n, start) AS (SELECT n, :day_us + n * :step_us FROM numbers)
        INSERT INTO segments (object_key, camera_id, start_us, end_us, key_start_us, key_period_s,
            size_bytes, state, key_keep_s)
        SELECT :head || strftime('%Y%m%dT%H%M%S', start / 1000000, 'unixepoch')
                || printf('.%06dZ_%012d_%010d_03600_', start % 1000000, :step_us, n)
                || lower(hex(randomblob(32))) || '.mp4.age',
            :camera_id, start, start + :step_us, start - start % 3600000000, 3600, 1, 0, 0
        FROM spans
        """,
        {
            "rows": rows, "day_us": day_us, "step_us": step_us, "camera_id": camera_id,
            "head": f"segments/{day:%Y-%m-%d}/{camera_id}/",
        },
    )  # fmt: skip


def measure(root: Path, now: datetime) -> dict[str, float]:
    """Sweep until nothing expired is left; in a process of its own, so that its memory is retention's."""
    telemetry.configure_logging(level=lambda: "error")
    clock = FixedClock(now)
    catalogue = SqlCatalogue.open(f"sqlite:///{root}/catalogue.db")
    entry_exit = RetentionPolicy(Kind.ENTRY_EXIT, DAY, LEAD, HOUR)
    presence = FileKeyring(
        root / "presence", master_key=MasterKeyFile(root / "master.key"), policy=lambda: entry_exit,
        signing_key=SigningKey.load(root / "ledger.key"), clock=clock, ahead=HOUR,
    )  # fmt: skip
    sweep = Sweep(
        video=Keys(policy, keyring(root, clock, HOUR)), entry_exit=Keys(lambda: entry_exit, presence),
        clock=clock, store=InstantStore(), catalogue=catalogue, pace=Pace(float("inf")),
        ledger=FileLedger(root / "ledger", key=SigningKey.load(root / "ledger.key"), clock=clock),
        bookmark=root / "retention.json",
    )  # fmt: skip
    began, used, deleted, certificates = time.perf_counter(), time.process_time(), 0, 0
    while True:
        report = sweep.run()
        if report.errors:
            raise SystemExit(f"the sweep failed: {report.errors[0]}")
        deleted += report.segments_deleted
        certificates += len(report.certificates)
        if not catalogue.unfinished():
            break
    seconds, used = time.perf_counter() - began, time.process_time() - used
    began = time.perf_counter()
    sweep.run()
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(used, 2),
        "idle_pass_seconds": round(time.perf_counter() - began, 3),
        "peak_rss_mb": _peak_mb(),
        "segments_deleted": deleted,
        "certificates": certificates,
        "segments_per_s": round(deleted / seconds, 1),
    }


def _peak_mb() -> float:
    """Of this program alone: getrusage counts what the process that started it held."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", type=int, default=3_000_000)
    parser.add_argument("--expired", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, help="where the catalogue is made; 600 bytes a segment")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    telemetry.configure_logging(level=lambda: "error")
    shape = Shape(asked.live, asked.expired)
    with tempfile.TemporaryDirectory(dir=asked.dir) as name:
        began = time.perf_counter()
        rows = fill(Path(name), shape)
        print(f"filled with {rows} segments in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            facts = process.submit(measure, Path(name), shape.now).result()
    expired = shape.expired * shape.each * CAMERAS
    result = {"live": rows - expired, "expired": expired, **facts}
    if asked.json:
        print(json.dumps(result))
    else:
        for fact, value in result.items():
            print(f"{fact:>18}  {value}")
    sys.exit(0 if facts["segments_deleted"] == expired else 1)


if __name__ == "__main__":
    main()
