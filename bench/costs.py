"""What a site keeps besides footage, in bytes: ``python bench/costs.py``.

From what a `videostore demo` of a minute leaves, whose hour keys live for seconds: its ledger has a
certificate and a chain for each camera and each key, as a ledger of thirty days has. Disk is counted as the
file system allots it. A row of the catalogue is measured on a database of ``--rows`` rows. These are the
figures of ``videostore plan-capacity`` (videostore/domain/capacity.py). The last line with ``--json`` is one
object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from uuid import UUID

from videostore import app as composition
from videostore.catalogue.sql import SqlCatalogue
from videostore.config.site import Site
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import Segment, Sha256Hex, Span

HOUR = timedelta(hours=1)
HOURS_A_MONTH = 24 * 30
CAMERAS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="how long the demonstration records")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the catalogue that is measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        site = demonstrate(Path(name) / "demo", options.seconds)
        figures = {
            **records(site),
            **keys(site),
            "row": row(Path(name) / "catalogue.db", options.rows),
        }
    figures["a camera and month in the ledger"] = HOURS_A_MONTH * (figures["certificate"] + figures["chain"])
    figures["a month of the site's keys in the ledger"] = HOURS_A_MONTH * len(Kind) * figures["key records"]
    for what, size_bytes in figures.items():
        print(f"{what:42} {size_bytes:12,.0f} bytes")
    if options.json:
        print(json.dumps(figures))


def demonstrate(directory: Path, seconds: int) -> Site:
    command = [sys.executable, "-m", "videostore.cli.main", "demo", "--seconds", str(seconds)]
    subprocess.run([*command, "--dir", str(directory)], check=True, stdout=subprocess.DEVNULL)
    return Site.load(directory / "site")


def records(site: Site) -> dict[str, float]:
    """Return what records of each kind take in the ledger, on average: those of keys, for one key."""
    sizes, made = defaultdict(list), 0
    for line in (site.root / "ledger" / "records.jsonl").read_bytes().splitlines(keepends=True):
        record = json.loads(line)["record"]
        sizes[record["event"]].append(len(line))
        made += len(record["body"]["keys"]) if record["event"] == Event.KEY_CREATED else 0
    return {
        "certificate": mean(sizes[Event.CERTIFICATE]),
        "chain": mean(sizes[Event.SEGMENTS_CHAINED]),
        "key records": sum(sizes[Event.KEY_CREATED]) / made + mean(sizes[Event.KEY_DESTROYED]),
    }


def keys(site: Site) -> dict[str, float]:
    """Return what a key takes on disk while it lives, and what is left of it afterwards."""
    with composition.Parts(site) as parts:
        ring = list(parts.keyrings[Kind.VIDEO].keys())
    gone = {str(key.key_id) for key in ring if key.destroyed_at is not None}
    living, left = defaultdict(int), defaultdict(int)
    for file in site.path(site.settings.keyring.path).rglob("*"):
        of = left if file.stem in gone else living
        if file.is_file() and any(file.stem == str(key.key_id) for key in ring):
            of[file.stem] += 512 * file.stat().st_blocks
    return {"key": mean(living.values()), "destroyed key": mean(left.values())}


def row(file: Path, rows: int) -> float:
    """Return what a segment takes in SQLite, indexes included."""
    with closing(SqlCatalogue.open(f"sqlite:///{file}")) as catalogue:
        catalogue.adopt(segments(rows))
    return file.stat().st_size / rows


def segments(rows: int) -> Iterator[Segment]:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for number in range(rows):
        begin = start + number // CAMERAS * timedelta(seconds=10)
        digest = Sha256Hex(f"{hash(number) & (2**64 - 1):064x}")
        span = Span(begin, begin + timedelta(seconds=10))
        yield Segment(UUID(int=number % CAMERAS), span, number // CAMERAS, HOUR, 5_000_000, digest)


if __name__ == "__main__":
    main()
