"""Segments and gaps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import VARCHAR

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column(
            "object_key",
            sa.String(220).with_variant(VARCHAR(220, collation="C"), "postgresql"),
            primary_key=True,
        ),
        sa.Column("camera_id", sa.String(36), nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("key_start_us", sa.BigInteger, nullable=False),
        sa.Column("key_period_s", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
    )
    op.create_index("segments_by_time", "segments", ["camera_id", "start_us"])
    op.create_index("segments_by_key", "segments", ["state", "key_start_us", "key_period_s"])
    op.create_table(
        "gaps",
        sa.Column("camera_id", sa.String(36), primary_key=True),
        sa.Column("start_us", sa.BigInteger, primary_key=True),
        sa.Column("end_us", sa.BigInteger, primary_key=True),
        sa.Column("reason", sa.String(40), primary_key=True),
    )
    op.create_index("gaps_by_end", "gaps", ["end_us"])
