"""Ports PublicKeys and Keyring: past its deadline a key opens nothing, whatever happened."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.fakes.clock import SettableClock
from videostore.domain.errors import ClockInDoubt, KeyDestroyed, KeyUnavailable, LedgerBroken, SealBroken
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import MICROSECOND, KeyId
from videostore.keyring.files import CONTEXT, FileKeyring, PublishedKeys
from videostore.keyring.master import MasterKeyFile
from videostore.sealing import new_identity, seal
from videostore.signing import SigningKey

HOUR, LEAD, KEEP = timedelta(hours=1), timedelta(minutes=15), timedelta(days=30)
START = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
KEY = KeyId.covering(START, HOUR)


class Site:
    """A keyring's directory, a clock and a policy that a test changes."""

    def __init__(self, root):
        self.root = root
        self.clock = SettableClock(START)
        self.policy = RetentionPolicy(Kind.VIDEO, KEEP, LEAD, HOUR)
        self.buried = dict
        self.signer = SigningKey.create(root / "elsewhere" / "ledger.key")
        MasterKeyFile(root / "elsewhere" / "master.key").renew()

    @property
    def directory(self):
        return self.root / "keyring"

    def keyring(self):
        return FileKeyring(
            self.directory,
            master_key=MasterKeyFile(self.root / "elsewhere" / "master.key"),
            signing_key=self.signer,
            policy=lambda: self.policy,
            clock=self.clock,
            ahead=timedelta(hours=3),
            buried=lambda: self.buried(),
        )

    def published(self):
        return PublishedKeys(
            self.directory, signed_by=self.signer.public, policy=lambda: self.policy, clock=self.clock
        )

    def header(self, key_id):
        return self.directory / "public" / f"{key_id}.json"

    def edit(self, of, **fields):
        """Write a header that says what that of the key ``of`` does, but ``fields``."""
        told = {**json.loads(self.header(of).read_text()), **fields}
        self.header(told["key_id"]).write_text(json.dumps(told))

    def due(self):
        """Move the clock to the moment at which KEY's deletion begins."""
        self.clock.at = self.policy.due_at(KEY)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def keyring(site):
    keyring = site.keyring()
    keyring.create_ahead()
    return keyring


@pytest.fixture
def sealed(site, keyring):
    return seal(b"footage", recipient=site.published().recipient(KEY))


def test_what_is_sealed_to_the_public_half_opens_with_the_keyring(keyring, sealed):
    assert keyring.open(KEY, sealed) == b"footage"


def test_keys_are_made_from_the_period_before_to_the_horizon_once(site, keyring):
    made = [key.key_id.start for key in keyring.keys()]
    assert made == [KEY.start + hours * HOUR for hours in range(-1, 4)]
    assert keyring.create_ahead() == []
    site.clock.passes(HOUR)
    assert len(keyring.create_ahead()) == 1


def test_each_keep_has_keys_of_its_own_that_die_by_it(site, keyring):
    week = timedelta(days=7)
    site.policy = replace(site.policy, shorter={uuid4(): week, uuid4(): week})
    made = keyring.create_ahead()
    assert [key.key_id for key in made] == [
        KeyId.covering(START + hours * HOUR, HOUR, week) for hours in range(-1, 4)
    ]
    short = replace(KEY, keep=week)
    sealed = seal(b"footage", recipient=site.published().recipient(short))
    site.policy = replace(site.policy, shorter={})  # the promise stands when nobody asks for it any more
    site.clock.at = KEY.start + week - MICROSECOND
    assert keyring.open(short, sealed) == b"footage"
    site.clock.at = KEY.start + week
    with pytest.raises(KeyDestroyed):
        keyring.open(short, sealed)
    assert short in [key.key_id for key in keyring.due()]
    assert KEY not in [key.key_id for key in keyring.due()]


def test_a_key_opens_until_its_deadline_and_not_a_microsecond_longer(site, keyring, sealed):
    site.clock.at = KEY.start + KEEP - MICROSECOND
    assert keyring.open(KEY, sealed) == b"footage"
    site.clock.at = KEY.start + KEEP
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)
    with pytest.raises(KeyDestroyed):
        site.published().recipient(KEY)


def test_a_destroyed_key_opens_nothing_and_its_file_is_gone(site, keyring, sealed):
    site.due()
    assert [key.key_id for key in keyring.due()][-1] == KEY
    destroyed = keyring.destroy(KEY)
    assert destroyed.destroyed_at == site.clock.at
    assert not (site.directory / "private" / f"{KEY}.key").exists()
    assert keyring.destroy(KEY) == destroyed
    site.clock.at = START
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)


def test_a_destroyed_key_is_never_made_again(site, keyring):
    site.due()
    keyring.destroy(KEY)
    site.clock.at = START
    assert keyring.create_ahead() == []
    with pytest.raises(KeyDestroyed):
        site.published().recipient(KEY)


def test_what_another_process_destroyed_is_gone_here_too(site, keyring, sealed):
    other = site.keyring()
    assert other.open(KEY, sealed) == b"footage"
    site.due()
    keyring.destroy(KEY)
    site.clock.at = START
    with pytest.raises(KeyDestroyed):
        other.open(KEY, sealed)


def test_a_keyring_that_starts_destroys_what_is_due_before_it_serves(site, keyring):
    site.due()
    restarted = site.keyring()
    assert restarted.due() == []
    assert not (site.directory / "private" / f"{KEY}.key").exists()


def test_a_key_put_back_from_a_copy_opens_nothing_and_is_destroyed_again(site, keyring, sealed):
    copy = site.root / "copy"
    shutil.copytree(site.directory, copy)
    site.due()
    keyring.destroy(KEY)
    shutil.copytree(copy / "private", site.directory / "private", dirs_exist_ok=True)
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)
    keyring.destroy(KEY)
    assert not (site.directory / "private" / f"{KEY}.key").exists()


def test_a_whole_keyring_put_back_from_a_copy_destroys_what_is_due_when_it_starts(site, keyring, sealed):
    copy = site.root / "copy"
    shutil.copytree(site.directory, copy)
    site.due()
    keyring.destroy(KEY)
    shutil.rmtree(site.directory)
    shutil.copytree(copy, site.directory)
    restored = site.keyring()
    with pytest.raises(KeyDestroyed):
        restored.open(KEY, sealed)
    assert not (site.directory / "private" / f"{KEY}.key").exists()


def test_a_key_that_is_not_due_is_not_destroyed(site, keyring, sealed):
    site.clock.at = site.policy.due_at(KEY) - MICROSECOND
    with pytest.raises(ClockInDoubt):
        keyring.destroy(KEY)
    assert keyring.open(KEY, sealed) == b"footage"


def test_in_doubt_nothing_is_destroyed_and_nothing_opens_that_either_reading_calls_due(site, keyring, sealed):
    site.clock.doubt_until = KEY.start + KEEP
    assert keyring.due() == []
    with pytest.raises(ClockInDoubt):
        keyring.destroy(KEY)
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)
    site.clock.doubt_until = None
    assert keyring.open(KEY, sealed) == b"footage"


def test_tightening_reaches_existing_keys_and_loosening_gives_nothing_back(site, keyring, sealed):
    long = site.policy
    site.policy = replace(long, keep=timedelta(days=2))
    site.clock.at = KEY.start + timedelta(days=2)
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)
    site.clock.at = START
    keyring.create_ahead()
    site.policy = long
    keyring.create_ahead()
    assert {key.deadline - key.key_id.start for key in keyring.keys()} == {timedelta(days=2)}
    assert keyring.open(KEY, sealed) == b"footage"
    site.clock.at = KEY.start + timedelta(days=2)
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)


def restored(site, copy, what=""):
    """Put a copy of the keyring, or of a part of it, over what is there, and start."""
    shutil.copytree(copy / what, site.directory / what, dirs_exist_ok=True)
    return site.keyring()


@pytest.fixture
def copy(site, sealed):
    """A backup of the keyring from before KEY is destroyed, and KEY's destruction."""
    shutil.copytree(site.directory, site.root / "copy")
    site.due()
    destroyed = site.keyring().destroy(KEY)
    assert destroyed.destroyed_at is not None
    return site.root / "copy"


def test_private_halves_put_back_are_erased_at_start_also_with_the_clock_put_back(site, copy, sealed):
    site.clock.at = START
    keyring = restored(site, copy, "private")
    assert not (site.directory / "private" / f"{KEY}.key").exists()
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)


def test_a_whole_keyring_put_back_with_the_clock_put_back_yields_to_the_ledger(site, copy, sealed):
    """So does one put back after a shorter policy, by which the key was destroyed, was made longer again."""
    site.clock.at = START
    site.buried = lambda: {KEY: site.policy.due_at(KEY)}
    keyring = restored(site, copy)
    assert not (site.directory / "private" / f"{KEY}.key").exists()
    with pytest.raises(KeyDestroyed):
        keyring.open(KEY, sealed)
    assert {key.key_id: key.destroyed_at for key in keyring.keys()}[KEY] == site.policy.due_at(KEY)
    assert (site.directory / "private" / f"{KEY.next}.key").exists()


def test_while_the_ledger_cannot_be_asked_nothing_opens_and_destruction_goes_on(site, keyring, sealed):
    def broken():
        raise LedgerBroken("record 3 was altered")

    site.buried = broken
    started = site.keyring()
    with pytest.raises(LedgerBroken):
        started.open(KEY, sealed)
    assert started.recipient(KEY)  # recorders go on
    site.buried = dict
    assert started.open(KEY, sealed) == b"footage"
    site.buried = broken
    site.due()
    assert site.keyring().due() == []


def test_what_a_crash_left_of_a_write_is_erased_at_start(site, keyring, sealed):
    remains = site.directory / "private" / f".{KEY}.key.1.tmp"
    remains.write_bytes((site.directory / "private" / f"{KEY}.key").read_bytes())
    orphan = site.directory / "private" / f"{KEY.next.next.next.next}.key"
    orphan.write_bytes(b"a half whose header was never published")
    keyring = site.keyring()
    assert not remains.exists()
    assert not orphan.exists()
    assert keyring.open(KEY, sealed) == b"footage"


def test_a_rotated_master_key_opens_what_the_one_before_wrapped_and_that_one_nothing(site, keyring, sealed):
    master = site.root / "elsewhere" / "master.key"
    shutil.copy(master, site.root / "stolen")
    wrapped = (site.directory / "private" / f"{KEY}.key").read_bytes()
    (site.directory / "private" / f"{KEY.next}.key").write_bytes(b"damaged")
    MasterKeyFile(master).renew()
    other = site.keyring()  # goes on between any two steps
    assert other.open(KEY, sealed) == b"footage"
    assert keyring.rewrap() == (4, [KEY.next])
    assert other.open(KEY, sealed) == b"footage"
    MasterKeyFile(master).retire()
    assert other.open(KEY, sealed) == b"footage"
    assert (site.directory / "private" / f"{KEY}.key").read_bytes() != wrapped
    shutil.copy(site.root / "stolen", master)
    with pytest.raises(KeyUnavailable):
        keyring.open(KEY, sealed)


def test_tightening_goes_on_past_a_key_that_nothing_opens(site, keyring, sealed):
    (site.directory / "private" / f"{KEY.next}.key").write_bytes(b"damaged")
    (site.directory / "private" / f"{KEY.next.next}.key").unlink()
    site.policy = replace(site.policy, keep=timedelta(days=2))
    site.clock.passes(HOUR)
    assert len(keyring.create_ahead()) == 1
    assert keyring.open(KEY, sealed) == b"footage"


@pytest.mark.parametrize("field", ["deadline", "recipient"])
def test_whoever_edits_a_header_has_a_key_that_does_not_open(site, keyring, sealed, field):
    path = site.directory / "public" / f"{KEY}.json"
    fields = json.loads(path.read_text())
    other = json.loads((site.directory / "public" / f"{KEY.next}.json").read_text())
    path.write_text(json.dumps({**fields, field: other[field]}))
    with pytest.raises(KeyUnavailable):
        keyring.open(KEY, sealed)


def test_a_header_that_forgets_its_destruction_opens_nothing(site, keyring, sealed):
    before = site.header(KEY).read_bytes()
    site.due()
    keyring.destroy(KEY)
    site.header(KEY).write_bytes(before)
    site.clock.at = START
    with pytest.raises(KeyDestroyed):
        site.keyring().open(KEY, sealed)


@pytest.mark.parametrize("by", ["nobody", "another site", "us, for another hour"])
def test_nobody_seals_to_a_recipient_that_somebody_published_for_an_hour_without_a_key(site, keyring, by):
    ahead = KEY
    while site.header(ahead).exists():
        ahead = ahead.next
    _, recipient = new_identity()
    deadline = (ahead.start + KEEP).isoformat()
    fields = {"key_id": str(ahead), "recipient": recipient, "deadline": deadline, "destroyed_at": None}
    stranger = SigningKey.create(site.root / "stranger.key")
    own = json.loads(site.header(KEY).read_text())["signature"]
    signature = {"nobody": "", "another site": stranger.sign(fields, context=CONTEXT)}.get(by, own)
    site.edit(KEY, **fields, signature=signature)
    with pytest.raises(KeyUnavailable, match="not signed by this site"):
        site.published().recipient(ahead)
    assert {key.key_id: key.recipient for key in keyring.keys()}[ahead] == ""
    site.clock.passes(HOUR)
    assert [key.key_id for key in keyring.create_ahead()] == [ahead], "the hour has a key of ours"
    ours = site.published().recipient(ahead)
    assert ours != recipient
    assert keyring.open(ahead, seal(b"footage", recipient=ours)) == b"footage"


def test_nobody_seals_to_a_recipient_that_somebody_exchanged(site, keyring):
    site.edit(KEY, recipient=new_identity()[1])
    with pytest.raises(KeyUnavailable, match="not signed by this site"):
        site.published().recipient(KEY)
    assert keyring.create_ahead() == []
    assert (site.directory / "private" / f"{KEY}.key").exists(), (
        "what was sealed to it before opens once restored"
    )


def test_who_writes_that_a_key_is_destroyed_has_it_neither_kept_nor_erased_early(site, keyring, sealed):
    half = site.directory / "private" / f"{KEY}.key"
    before = site.header(KEY).read_bytes()
    site.edit(KEY, destroyed_at=START.isoformat())
    with pytest.raises(KeyDestroyed):
        site.published().recipient(KEY)
    started = site.keyring()
    with pytest.raises(KeyUnavailable):
        started.open(KEY, sealed)
    assert half.exists()
    site.header(KEY).write_bytes(before)
    assert started.open(KEY, sealed) == b"footage"
    site.edit(KEY, destroyed_at=START.isoformat())
    site.due()
    assert KEY in [key.key_id for key in started.due()]
    assert started.destroy(KEY).destroyed_at == site.clock.at
    assert not half.exists()


def test_headers_of_before_they_were_signed_are_signed_once_their_halves_open_under_them(
    site, keyring, sealed
):
    for key in list(keyring.keys()):
        told = json.loads(site.header(key.key_id).read_text())
        del told["signature"]
        site.header(key.key_id).write_text(json.dumps(told))
    site.edit(KEY.next, recipient=new_identity()[1])
    upgraded = site.keyring()
    with pytest.raises(KeyUnavailable):
        site.published().recipient(KEY)
    upgraded.create_ahead()
    assert upgraded.open(KEY, seal(b"footage", recipient=site.published().recipient(KEY))) == b"footage"
    assert upgraded.open(KEY, sealed) == b"footage"
    with pytest.raises(KeyUnavailable):
        site.published().recipient(KEY.next)


def test_one_damaged_key_does_not_take_others_with_it(site, keyring, sealed):
    (site.directory / "private" / f"{KEY.next}.key").write_bytes(b"damaged")
    assert keyring.open(KEY, sealed) == b"footage"
    with pytest.raises(KeyUnavailable):
        keyring.open(KEY.next, seal(b"x", recipient=site.published().recipient(KEY.next)))


def test_altered_footage_and_footage_of_another_hour_do_not_open(keyring, sealed):
    with pytest.raises(SealBroken):
        keyring.open(KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(SealBroken):
        keyring.open(KEY.next, sealed)


def test_a_key_that_never_was_is_not_there(keyring, site):
    never = KeyId.covering(START + timedelta(days=99), HOUR)
    with pytest.raises(KeyUnavailable):
        keyring.open(never, b"")
    with pytest.raises(KeyUnavailable):
        site.published().recipient(never)


def test_private_files_are_for_their_owner_only(site, keyring):
    private = list((site.directory / "private").iterdir())
    assert private
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert (site.directory / "private").stat().st_mode & 0o777 == 0o700
    assert (site.root / "elsewhere" / "master.key").stat().st_mode & 0o777 == 0o600


def test_without_the_master_key_the_keyring_is_noise(site, keyring, sealed):
    (site.root / "elsewhere" / "master.key").unlink()
    with pytest.raises(KeyUnavailable, match="master key"):
        keyring.open(KEY, sealed)
    for path in (site.directory / "private").iterdir():
        assert b"AGE-SECRET-KEY" not in path.read_bytes()
    site.due()
    keyring.destroy(KEY)  # destruction needs no master key


@pytest.mark.parametrize("survivor", ["private", "header"])
def test_a_destruction_that_was_cut_in_half_is_finished(site, keyring, sealed, survivor):
    header = site.directory / "public" / f"{KEY}.json"
    before = header.read_bytes()
    private = site.directory / "private" / f"{KEY}.key"
    wrapped = private.read_bytes()
    site.due()
    keyring.destroy(KEY)
    if survivor == "header":
        header.write_bytes(before)
    else:
        private.write_bytes(wrapped)
    restarted = site.keyring()
    restarted.destroy(KEY)
    assert not private.exists()
    assert next(key for key in restarted.keys() if key.key_id == KEY).destroyed_at is not None


def test_anyone_can_check_the_format_with_the_age_program(keyring, sealed, tmp_path, age_program):
    identity = tmp_path / "identity"
    key = next(key for key in keyring.keys() if key.key_id == KEY)
    identity.write_text(keyring._unwrap(key) + "\n")
    opened = subprocess.run(
        [age_program, "-d", "-i", identity], input=sealed, capture_output=True, check=True
    )
    assert opened.stdout == b"footage"


def test_a_recorder_cannot_open_what_it_sealed(site, sealed):
    """What a recorder's host holds, in root's hands: public halves, and a keyring program of his own."""
    shutil.rmtree(site.directory / "private")
    (site.root / "elsewhere" / "master.key").unlink()
    MasterKeyFile(site.root / "elsewhere" / "master.key").renew()
    assert site.published().recipient(KEY), "it still records"
    with pytest.raises((KeyUnavailable, KeyDestroyed, SealBroken)):
        site.keyring().open(KEY, sealed)
