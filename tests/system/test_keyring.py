"""What is destroyed is nowhere on the disk of the site: not its private half, not what wrapped it."""

from __future__ import annotations

from datetime import timedelta
from threading import Event as Stop
from uuid import uuid4

import pytest

from tests.fakes.clock import SettableClock
from videostore.app import Parts, create, run, sweep
from videostore.app.proof import rotate_master_key
from videostore.config.site import Site
from videostore.domain import errors
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import KeyId, Span
from videostore.recorder.spool import facts_of
from videostore.sealing import seal

_POLICY = "version: 1\n" + "".join(
    f"{kind}: {{keep: 4s, lead: 1s, key_period: 1s}}\n" for kind in ("video", "entry_exit")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A site whose keys live four seconds."""
    root = tmp_path_factory.mktemp("keyring") / "site"
    settings = "version: 1\nsite: test\nkeyring: {ahead: 1s}\n"
    create(root, name="test", overrides={"policies/retention.yaml": _POLICY, "videostore.yaml": settings})
    return root


def holders(root, pattern):
    """Return the files under ``root`` whose raw bytes hold ``pattern``."""
    return [path for path in root.rglob("*") if path.is_file() and pattern in path.read_bytes()]


def test_after_destruction_no_file_of_the_site_holds_the_key_or_what_wrapped_it(place):
    with Parts(Site.load(place)) as parts:
        parts.clock = SettableClock(parts.clock.now())  # it stands still: a busy machine has all the time
        ring = parts.keyrings[Kind.VIDEO]
        ring.create_ahead()
        now = parts.clock.now()
        key = next(key for key in ring.keys() if key.key_id.span.end > now)
        sealed = seal(b"footage", recipient=key.recipient)
        span = Span(now, key.key_id.span.end)
        segment = facts_of(
            sealed, camera_id=uuid4(), span=span,
            sequence=0, key_id=KeyId.covering(span.start, key.key_id.period),
        )  # fmt: skip
        parts.store.put(segment.object_key, sealed, sha256=segment.sha256)
        parts.catalogue.add(segment)
        identity = ring._unwrap(key)
        path = place / "keyring" / "private" / f"{key.key_id}.key"
        wraps = [path.read_bytes()]
        ring.rewrap()
        wraps.append(path.read_bytes())
        assert ring.open(key.key_id, sealed) == b"footage"
        assert holders(place, wraps[1]) == [path]
        assert holders(place, sealed) == [place / "store" / segment.object_key]
        with path.open("rb") as inode:
            parts.clock.passes(timedelta(seconds=4))
            assert len(sweep(parts).run().certificates) == 1
            assert set(inode.read()) == {0}  # what lay on the disk, not only its name
        for remains in (identity.encode(), *wraps, sealed):
            assert holders(place, remains) == []
        (record,) = [one for one in parts.ledger.records() if one.body.get("key_id") == str(key.key_id)][:1]
        assert record.body["recipient"] == key.recipient
        with pytest.raises(errors.KeyDestroyed):
            ring.open(key.key_id, sealed)


def test_rotation_is_on_the_record_and_moves_the_master_key(tmp_path):
    place = tmp_path / "site"
    settings = "version: 1\nsite: test\nkeyring: {ahead: 2h, master_key: keyring/master.key}\n"
    create(place, name="test", overrides={"videostore.yaml": settings})
    old = (place / "keyring" / "master.key").read_bytes()

    def rotated(older=""):
        with Parts(Site.load(place)) as parts:
            return rotate_master_key(parts, older=older, give_up=False)

    count = rotated()["keys_wrapped"]
    assert count > 4
    assert holders(place, old) == []
    moved = settings.replace("keyring/master.key", "../elsewhere.key")
    (place / "videostore.yaml").write_text(moved)
    with pytest.raises(errors.KeyUnavailable, match="no generation") as refused:
        rotated()
    assert "--from" in refused.value.hint
    assert rotated("keyring/master.key") == {"keys_wrapped": count, "given_up": []}
    assert not (place / "keyring" / "master.key").exists()
    (tmp_path / "elsewhere.key").chmod(0o644)
    with pytest.raises(errors.KeyUnavailable) as refused:
        run(Site.load(place), "gate", Stop())
    assert "chmod 600" in refused.value.hint
    with Parts(Site.load(place)) as parts:
        assert [one.event for one in parts.ledger.records()].count(Event.MASTER_KEY_ROTATED) == 2
