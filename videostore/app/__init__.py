"""Composition root: a site's configuration becomes running objects. No rules live here.

``parts``, ``keys`` and ``ledger`` build; ``commands`` and its neighbours answer what is typed; ``roles`` runs
``recorder``, ``gate`` and retention. A role builds only the parts it may hold (invariant 9): the recorder
never constructs a keyring, only the published public halves. Heavy libraries (database, video, web server)
are imported where what needs them is built: a role loads its own, and a command at a terminal answers at
once.
"""

from videostore.app.commands import (
    camera_streams,
    check,
    check_camera,
    choose_stream,
    coverage,
    create,
    discover_cameras,
    plan,
    rebuild_catalogue,
    record,
    verify_segments,
)
from videostore.app.deadlines import check_listing, retention_status
from videostore.app.doctor import diagnose
from videostore.app.exports import sign_export, verify_export
from videostore.app.host import host_time
from videostore.app.keys import own_certificate
from videostore.app.ledger import verify_ledger
from videostore.app.parts import Parts, staff, sweep
from videostore.app.people import (
    authority_here,
    current_code,
    enrolment,
    identity,
    staff_rows,
    suspected_breaches,
    verify_approval,
)
from videostore.app.recovery import back_up, backup_key, reconcile, restore
from videostore.app.roles import run
from videostore.app.status import status
from videostore.app.storage import provision_store, qualify_store, store_drift
from videostore.check.export import film_name

__all__ = [
    "Parts",
    "authority_here",
    "back_up",
    "backup_key",
    "camera_streams",
    "check",
    "check_camera",
    "check_listing",
    "choose_stream",
    "coverage",
    "create",
    "current_code",
    "diagnose",
    "discover_cameras",
    "enrolment",
    "film_name",
    "host_time",
    "identity",
    "own_certificate",
    "plan",
    "provision_store",
    "qualify_store",
    "rebuild_catalogue",
    "reconcile",
    "record",
    "restore",
    "retention_status",
    "run",
    "sign_export",
    "staff",
    "staff_rows",
    "status",
    "store_drift",
    "suspected_breaches",
    "sweep",
    "verify_approval",
    "verify_export",
    "verify_ledger",
    "verify_segments",
]
