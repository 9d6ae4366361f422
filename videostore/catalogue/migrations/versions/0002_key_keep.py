"""How long a key's footage is kept, and a way to the cameras of a key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("segments", sa.Column("key_keep_s", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("segments_by_key", "segments")
    op.create_index(
        "segments_by_key", "segments", ["state", "key_start_us", "key_period_s", "key_keep_s", "camera_id"]
    )
