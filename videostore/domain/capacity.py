"""How much of everything a site needs: arithmetic over figures that were measured, each with its source.

The figures stand in one table; ``docs/guide/capacity.md`` says on what machine they were taken. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, its unit, and the command that measures it anew."""

    value: float
    unit: str
    source: str


INGEST = "python bench/ingest.py --cameras 16 --seconds 60"
COSTS = "python bench/costs.py"
FIGURES = {
    "record": Figure(0.28, "CPU s a camera-minute of 4 Mbit/s", INGEST),
    "row": Figure(635, "bytes a row in SQLite, indexes included", COSTS),
    "certificate": Figure(1006, "bytes a certificate in the ledger", COSTS),
    "chain": Figure(779, "bytes an hour of a camera's chain in the ledger", COSTS),
    "key records": Figure(768, "bytes of the ledger for the making and the end of an hour key", COSTS),
    "key": Figure(8192, "bytes an hour key: two files of a disk block", COSTS),
    "destroyed key": Figure(4096, "bytes that say that a key was destroyed, and when", COSTS),
}
HEADROOM = 1.25
"""What is added to storage: objects wait for deletion, a store compacts, bitrates vary."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``bitrate_bits`` is bits a second of one camera; ``segment`` and ``key_period`` as in the settings."""

    cameras: int
    bitrate_bits: float
    keep: timedelta
    segment: timedelta = timedelta(seconds=10)
    key_period: timedelta = timedelta(hours=1)
    outage: timedelta = timedelta(hours=8)


@dataclass(frozen=True, slots=True)
class Need:
    """One line of the answer: ``value`` in ``unit``, and how it follows."""

    what: str
    value: float
    unit: str
    because: str


def needs(wanted: Wanted) -> Iterator[Need]:
    """Yield what a site for ``wanted`` needs, storage first."""
    cameras, keep_days = wanted.cameras, wanted.keep / DAY
    in_bytes = cameras * wanted.bitrate_bits / 8
    held = in_bytes * wanted.keep.total_seconds()
    segments_day = cameras * (DAY / wanted.segment)
    live = segments_day * keep_days
    hours = wanted.keep / wanted.key_period
    record, row, key = FIGURES["record"], FIGURES["row"], FIGURES["key"]
    periods = 365 * DAY / wanted.key_period
    camera_year = periods * (FIGURES["certificate"].value + FIGURES["chain"].value)
    keys_year = periods * _KINDS * FIGURES["key records"].value
    cpu = record.value / 60 * cameras * wanted.bitrate_bits / 4e6
    hour = cameras * (wanted.key_period / wanted.segment)
    yield Need("footage held", held, "bytes", f"{cameras} cameras for {keep_days:g} days")
    yield Need("store to buy", held * HEADROOM, "bytes", f"with {HEADROOM - 1:.0%} headroom, one copy")
    yield Need("network", in_bytes * 8, "bit/s", "from the cameras, and again to the store")
    yield Need("segments live", live, "objects", f"one for {wanted.segment.total_seconds():g} s of a camera")
    yield Need("puts", segments_day / 86400, "a second", "and as many deletes")
    yield Need("objects of a key", hour, "objects", "deleted and asked for again when it is due")
    yield Need("recorder CPU", cpu, "cores", f"{record.value:g} {record.unit}")
    yield Need("recorders", math.ceil(cpu / _CORES), "hosts", f"of {_CORES + 1} cores, one kept free")
    yield Need("spool", in_bytes * wanted.outage.total_seconds(), "bytes", "for the outage, on local SSD")
    yield Need("catalogue", live * row.value, "bytes", f"{row.value:g} {row.unit}")
    yield Need("hour keys live", hours, "keys", f"{hours * key.value / 1e6:.1f} MB on disk")
    left = periods * _KINDS * FIGURES["destroyed key"].value
    yield Need("keys destroyed", left, "bytes a year", "what says so is kept, for videos and entry/exit")
    a_month = f"{camera_year / 12e6:.1f} MB a camera and {keys_year / 12e6:.1f} MB for keys each month"
    yield Need("ledger", cameras * camera_year + keys_year, "bytes a year", a_month)


_CORES = 3
_KINDS = 2
"""Video and entry/exit have keys of their own."""


def advice(wanted: Wanted) -> Iterator[str]:
    """Yield what to think of at this size."""
    live = wanted.cameras * (wanted.keep / wanted.segment)
    if live > 5e6:
        yield "More than 5 million segments: PostgreSQL for the catalogue, or longer segments."
    if wanted.cameras > 32:
        yield "One host lost is all its cameras dark: spread those of one area over two recorders."
    yield "The keyring is the one thing whose loss loses all footage: put its master key into a token, twice."
