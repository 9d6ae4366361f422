"""The tables as the newest migration leaves them. Times are whole microseconds since the Unix epoch.

An object key says everything about its segment, so a row holds the key, and beside it only what is
searched by. ``BIGINT`` microseconds compare exactly in SQLite and PostgreSQL alike.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, String, Table
from sqlalchemy.dialects.postgresql import VARCHAR

METADATA = MetaData()
REVISION = "0003"
"""Of the newest migration."""

OBJECT_KEY = String(220).with_variant(VARCHAR(220, collation="C"), "postgresql")
"""Keys sort by their bytes in every database; PostgreSQL sorts text by the locale unless told."""

SEGMENTS = Table(
    "segments",
    METADATA,
    Column("object_key", OBJECT_KEY, primary_key=True),
    Column("camera_id", String(36), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("key_start_us", BigInteger, nullable=False),
    Column("key_period_s", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("key_keep_s", Integer, nullable=False, server_default="0"),
)
Index("segments_by_time", SEGMENTS.c.camera_id, SEGMENTS.c.start_us, SEGMENTS.c.end_us, SEGMENTS.c.state)
KEY = (SEGMENTS.c.key_start_us, SEGMENTS.c.key_period_s, SEGMENTS.c.key_keep_s)
Index("segments_by_key", SEGMENTS.c.state, *KEY, SEGMENTS.c.camera_id)

GAPS = Table(
    "gaps",
    METADATA,
    Column("camera_id", String(36), primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("end_us", BigInteger, primary_key=True),
    Column("reason", String(40), primary_key=True),
)
Index("gaps_by_end", GAPS.c.end_us)
