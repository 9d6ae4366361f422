"""The tables of the catalogue in each version of the program, and the ways between them (Alembic)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from videostore.domain.errors import SiteTooNew


def migrate(connection: sa.Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    if connection.dialect.name == "postgresql":  # several roles of a site start at once
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x76737472)))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise SiteTooNew(
            f"the catalogue has the tables of a newer version ({current})",
            hint="Install the version of videostore that made it, or a newer one.",
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
