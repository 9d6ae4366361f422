"""An index that alone answers where there is footage of a camera."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("segments_by_time", "segments")
    op.create_index("segments_by_time", "segments", ["camera_id", "start_us", "end_us", "state"])
