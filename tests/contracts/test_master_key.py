"""Port MasterKey: a file, a token (SoftHSM, a real PKCS #11 module), a server (OpenBao's transit engine)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import missing, program
from tests.premises import Premises
from videostore.domain.errors import ConfigInvalid, KeyUnavailable, SealBroken
from videostore.domain.retention import Kind
from videostore.keyring.master import MasterKeyFile, try_out
from videostore.keyring.token import MasterKeyToken, read_uri
from videostore.keyring.transit import MasterKeyTransit
from videostore.keyring.transit import read_uri as read_transit_uri

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
SECRET, CONTEXT = b"AGE-SECRET-KEY-1 of some hour", b"hour recipient deadline"


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token of SoftHSM; returns how to open the master key in it under a label."""
    if not MODULE.exists():
        missing("SoftHSM is not installed: apt-get install softhsm2")
    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    (place / "softhsm2.conf").write_text(f"directories.tokendir = {place / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(place / "softhsm2.conf")  # read once, when the module is loaded
    command = [program("softhsm2-util"), "--init-token", "--free", "--label", "site"]
    subprocess.run([*command, "--pin", "1234", "--so-pin", "4321"], check=True, capture_output=True)

    def open_(label="master", pin="1234"):
        return MasterKeyToken(module=str(MODULE), token="site", label=label, pin=pin)

    return open_


@pytest.fixture(scope="module")
def transit(tmp_path_factory):
    """A server with a transit engine; returns how to open the master key in it under a name."""
    with servers.openbao(tmp_path_factory.mktemp("openbao")) as (url, token):
        yield lambda name="master", token=token: MasterKeyTransit(f"{url}/keys/{name}", token=token)


@pytest.fixture(params=["file", "token", "transit"])
def master(request, tmp_path):
    match request.param:
        case "file":
            made = MasterKeyFile(tmp_path / "master.key")
        case "token":
            made = request.getfixturevalue("token")(label=tmp_path.name)
        case _:
            made = request.getfixturevalue("transit")(name=tmp_path.name.strip("_"))
    made.renew()
    return made


def test_what_was_wrapped_unwraps_under_its_context_only(master):
    wrapped = master.wrap(SECRET, context=CONTEXT)
    assert SECRET not in wrapped
    assert master.unwrap(wrapped, context=CONTEXT) == SECRET
    with pytest.raises(SealBroken):
        master.unwrap(wrapped, context=CONTEXT + b"!")
    assert try_out(master)


@pytest.mark.parametrize("at", [0, 5, 16, -1])
def test_altered_bytes_do_not_unwrap(master, at):
    wrapped = bytearray(master.wrap(SECRET, context=CONTEXT))
    wrapped[at] ^= 1
    with pytest.raises(SealBroken):
        master.unwrap(bytes(wrapped), context=CONTEXT)


@pytest.mark.parametrize("length", [0, 3, 12, 20])
def test_bytes_cut_short_do_not_unwrap(master, length):
    with pytest.raises(SealBroken):
        master.unwrap(master.wrap(SECRET, context=CONTEXT)[:length], context=CONTEXT)


def test_the_newest_generation_wraps_all_unwrap_and_a_retired_one_no_more(master):
    first = master.wrap(SECRET, context=CONTEXT)
    master.renew()
    second = master.wrap(SECRET, context=CONTEXT)
    assert master.unwrap(first, context=CONTEXT) == master.unwrap(second, context=CONTEXT) == SECRET
    master.retire()
    assert master.unwrap(second, context=CONTEXT) == SECRET
    with pytest.raises(SealBroken):
        master.unwrap(first, context=CONTEXT)
    master.retire()
    assert master.unwrap(second, context=CONTEXT) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_master_key_that_others_may_touch_is_refused(tmp_path, mode):
    master = MasterKeyFile(tmp_path / "master.key")
    master.renew()
    wrapped = master.wrap(SECRET, context=CONTEXT)
    (tmp_path / "master.key").chmod(mode)
    for use in (
        lambda: master.wrap(SECRET, context=CONTEXT),
        lambda: master.unwrap(wrapped, context=CONTEXT),
    ):
        with pytest.raises(KeyUnavailable, match="others"):
            use()
    (tmp_path / "master.key").chmod(0o400)
    assert master.unwrap(wrapped, context=CONTEXT) == SECRET


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_what_is_no_master_key_is_refused(tmp_path, content):
    (tmp_path / "master.key").write_bytes(content)
    (tmp_path / "master.key").chmod(0o600)
    with pytest.raises(KeyUnavailable, match="not a master key"):
        MasterKeyFile(tmp_path / "master.key").wrap(SECRET, context=CONTEXT)


def test_a_retired_file_is_overwritten_where_it_lay(tmp_path):
    path = tmp_path / "master.key"
    master = MasterKeyFile(path)
    master.renew()
    with path.open("rb") as before:  # the file of before, whatever its name is by now
        generation = before.read()
        master.renew()
        master.retire()
        before.seek(0)
        assert before.read() == bytes(32)
    assert generation not in path.read_bytes()


def test_the_key_of_a_token_cannot_be_taken_out_of_it(token):
    token("kept").renew()
    program_ = (
        "import sys, pkcs11\n"
        "token = pkcs11.lib(sys.argv[1]).get_token(token_label='site')\n"
        "with token.open(user_pin='1234') as session:\n"
        "    key, = session.get_objects({pkcs11.Attribute.LABEL: 'kept'})\n"
        "    print(key[pkcs11.Attribute.SENSITIVE], key[pkcs11.Attribute.EXTRACTABLE])\n"
        "    try: print(key[pkcs11.Attribute.VALUE])\n"
        "    except pkcs11.exceptions.AttributeSensitive: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program_, MODULE], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "refused"]


@pytest.mark.parametrize("how", [{"pin": "0000"}, {"label": "never made"}])
def test_a_token_that_does_not_serve_says_so(token, how):
    with pytest.raises(KeyUnavailable):
        token(**how).wrap(SECRET, context=CONTEXT)


def test_a_module_that_is_not_there_says_so():
    master = MasterKeyToken(module="/nowhere.so", token="site", label="master", pin="1234")
    with pytest.raises(KeyUnavailable, match=r"nowhere\.so"):
        master.renew()


def test_a_keyring_lives_on_a_token_and_moves_there_from_a_file(tmp_path, token):
    premises = Premises(tmp_path)
    premises.sweep()
    ring = premises.keyrings[Kind.VIDEO]
    keys = [key.key_id for key in ring.keys()]
    halves = [ring._unwrap(key) for key in ring.keys()]
    before, moved = premises.master, token("moved")
    moved.renew()
    premises.master = moved
    premises.open()
    ring = premises.keyrings[Kind.VIDEO]
    assert ring.rewrap() == (0, keys)  # nothing opens them without the file
    assert ring.rewrap(older=before) == (len(keys), [])
    assert [ring._unwrap(key) for key in ring.keys()] == halves
    assert ring.rewrap() == (len(keys), [])


def test_a_server_that_does_not_know_us_says_so(transit):
    with pytest.raises(KeyUnavailable, match="403"):
        transit(token="wrong").wrap(SECRET, context=CONTEXT)


def test_no_proxy_of_the_environment_sees_a_private_half(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setattr("videostore.keyring.transit._SECONDS", 1)
        with pytest.raises(KeyUnavailable):
            MasterKeyTransit("http://127.0.0.1:9/v1/transit/keys/x", token="x").wrap(SECRET, context=CONTEXT)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_server_that_is_not_there_says_so():
    with pytest.raises(KeyUnavailable, match="reached"):
        MasterKeyTransit("http://127.0.0.1:9/v1/transit/keys/master", token="x").wrap(SECRET, context=CONTEXT)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a;object=b?module-path=/m.so&pin-value=1234",
        "pkcs11:token=a;object=b;type=secret-key?module-path=/m.so&pin-source=file:p",
    ],
)
def test_a_uri_names_token_object_module_and_pin_and_nothing_else(uri):
    with pytest.raises(ConfigInvalid):
        read_uri(uri)
    good = read_uri("pkcs11:token=a%20b;object=c?module-path=/m.so&pin-source=file:secrets/pin")
    assert good == {"token": "a b", "label": "c", "module": "/m.so", "pin_source": "file:secrets/pin"}


@pytest.mark.parametrize(
    "uri",
    [
        "transit:",
        "transit:https://host/v1/transit/keys/a",
        "transit:http://host/v1/transit/keys/a?token=file:t",
        "transit:https://host/v1/transit/a?token=file:t",
        "transit:https://host/v1/transit/keys/a?token=file:t&namespace=x",
    ],
)
def test_a_transit_uri_names_an_https_key_and_a_token_and_nothing_else(uri):
    with pytest.raises(ConfigInvalid):
        read_transit_uri(uri)
    url = "https://host:8200/v1/transit/keys/a"
    assert read_transit_uri(f"transit:{url}?token=env:T") == {"url": url, "token": "env:T", "ca": ""}
