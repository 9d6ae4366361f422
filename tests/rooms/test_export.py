"""Exports: cut to the frame, signed, proven to the recorder; whoever alters a byte is found out offline."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from functools import partial

import av
import cv2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.conftest import program
from tests.premises import SECOND, START
from tests.rooms.test_gate import CAMERAS, Officer, export_key
from tests.rooms.test_playback import HOLE, Lobby, movies
from videostore.check.export import Trust, film_name, sign_again, verify
from videostore.check.scratch import Scratch
from videostore.cli.access import connected
from videostore.cli.client import ENVIRONMENT
from videostore.cli.download import archive
from videostore.domain import chain, cmaf
from videostore.domain.errors import (
    IntegrityError,
    SealBroken,
    SignatureInvalid,
    TooManyRequests,
    VideostoreError,
)
from videostore.domain.film import boxes
from videostore.domain.ledger import Event
from videostore.domain.onvif import Meta
from videostore.domain.segment import Span
from videostore.gate.export import VIEWING_COPIES
from videostore.gate.viewing_copy import Label, burnt
from videostore.sealing import new_identity
from videostore.signing import ExportKey
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import FRAME_RATE

FRAME = SECOND / FRAME_RATE
NAMES = ["lobby.mp4", "lobby+2.mp4", "lobby+3.mp4"]


def chained(house):
    """Have the recorder sign what is in the catalogue, as it does when an hour ends."""
    run = None
    for segment in sorted(house.catalogue.live(), key=chain.Item.of):
        run = chain.extended(run, segment)
    body = run.to_json()
    signature = house.recorder.sign(body, context=chain.CONTEXT)
    house.ledger.append(Event.SEGMENTS_CHAINED, actor="recorder", body={**body, "signature": signature})


class Export:
    """An approved export of a span, fetched into a directory."""

    def __init__(self, house, root, start, end, *, people=None, **how):
        self.people = people or (Officer(house).open_incident(), Officer(house, "bruno"))
        self.house, self.alice, self.root = house, self.people[0], root
        asked = self.alice.ask(mode="export", start=str(start), end=str(end)).json()
        grant = self.people[1].post(f"/v1/requests/{asked['request_id']}/approve").json()["grant_id"]
        self.serving = self.alice.post(f"/v1/grants/{grant}/exports", camera="lobby", **how).json()
        self.path = f"/v1/servings/{self.serving['serving_id']}"
        self.manifest = root / ("lobby.viewing-copy.json" if how.get("viewing_copy") else "lobby.json")

    def film(self, number, offset=0):
        return self.alice.post(f"{self.path}/films/{number}", offset=offset)

    def fetch(self):
        for number in range(9):
            name = film_name(self.manifest.stem, number + 1)
            answer = self.film(number)
            if not answer.is_success or not answer.content:
                break
            (self.root / name).write_bytes(answer.content)
        self.manifest.write_text(self.alice.http.get(f"{self.path}/manifest").text)
        return self

    def findings(self, path=None, *, certificate=None, recorder=None, **how):
        known = export_key().certificate if certificate is None else certificate
        key = self.house.recorder.public if recorder is None else recorder
        return list(verify(path or self.manifest, Trust(known, key, **how)))

    def broken(self, **how):
        return [one.question for one in self.findings(**how) if not one.holds]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An export over a hole and a change of format, from the middle of a second to the middle of another."""
    house = Lobby(tmp_path_factory.mktemp("lobby"))
    chained(house)
    after = START + 4 * SECOND + HOLE
    root = tmp_path_factory.mktemp("export")
    return Export(house, root, START + 30 * FRAME, after + 3 * SECOND + 10 * FRAME).fetch()


@pytest.fixture(scope="module")
def copy(whole, tmp_path_factory):
    """A copy to look at, of the same span."""
    root, end = tmp_path_factory.mktemp("copy"), START + 7 * SECOND + HOLE + 10 * FRAME
    how = {"people": whole.people, "viewing_copy": True}
    return Export(whole.house, root, START + 30 * FRAME, end, **how).fetch()


@pytest.fixture
def export(whole, tmp_path):
    """A copy of the export to be tampered with."""
    shutil.copytree(whole.root, tmp_path / "copy")
    copy = object.__new__(Export)
    copy.__dict__ = {**whole.__dict__, "root": tmp_path / "copy", "manifest": tmp_path / "copy/lobby.json"}
    return copy


@pytest.fixture(scope="module")
def court(tmp_path_factory):
    root = tmp_path_factory.mktemp("court")
    return ExportKey.create(root / "key", root / "crt", name="court", now=START)


def test_the_films_show_exactly_what_was_asked_for(whole):
    shown = [frame_numbers(whole.root / name) for name in NAMES]
    assert shown == [list(range(30, 100)), list(range(50)), list(range(25 + 10))]


def test_an_export_holds_and_the_recorder_is_part_of_the_proof(whole):
    assert whole.broken() == []
    details = {one.question: one.detail for one in whole.findings()}
    assert details["Did the recorder chain what was exported?"] == "7 of 7 segments, by the key given"
    assert "carol" not in str(details)
    assert "fire alarm" in details["Is the manifest as it was when it was signed?"]


def test_the_manifest_says_for_what_by_whom_and_what_is_missing(whole):
    manifest = json.loads(whole.manifest.read_text())["manifest"]
    assert (manifest["purpose"], manifest["person"], manifest["second_person"]) == (
        "search",
        "alice",
        "bruno",
    )
    assert manifest["films"][0]["begins"] == (START + SECOND).isoformat()
    assert manifest["films"][0]["shown"][0] == (START + 30 * FRAME).isoformat()
    assert {one["kind"] for one in manifest["missing"]} == {"gap"}
    begun = [one for one in whole.house.ledger.records() if one.sequence == manifest["ledger"]["sequence"]]
    assert [(one.event, one.hash) for one in begun] == [(Event.EXPORT, manifest["ledger"]["hash"])]


def test_openssl_alone_verifies_a_film(whole, tmp_path):
    """As annex A of the ONVIF Export File Format Specification has it."""
    data = (whole.root / "lobby.mp4").read_bytes()
    names = [name for name, _ in boxes(data)]
    assert (names[0], names[-2:]) == (b"ftyp", [b"moov", b"meta"])
    meta = Meta.parse(dict(boxes(data))[b"meta"])
    (signed,) = meta.signatures
    assert signed.starts == START + SECOND
    assert data.count(signed.signature) == 1
    (tmp_path / "zeroed").write_bytes(data.replace(signed.signature, bytes(len(signed.signature))))
    (tmp_path / "signature").write_bytes(signed.signature)
    public = x509.load_der_x509_certificate(signed.certificate).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    command = ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"]
    command += ["-verify", tmp_path / "public.pem", "-signature", tmp_path / "signature", tmp_path / "zeroed"]
    done = subprocess.run([program("openssl"), *command], capture_output=True, text=True, check=True)
    assert done.stdout == "Verified OK\n"


def test_ffprobe_finds_nothing_wrong_with_a_film(whole):
    command = [program("ffmpeg"), "-v", "warning", "-i", whole.root / "lobby.mp4", "-f", "null", "-"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.9, 0.97, 0.999])
def test_one_altered_bit_is_found(export, place):
    film = export.root / "lobby+2.mp4"
    data = bytearray(film.read_bytes())
    data[int(len(data) * place)] ^= 1
    film.write_bytes(data)
    try:
        assert export.broken()
        assert export.broken(path=film)
    except SignatureInvalid:
        pass  # it is not even a film any more


def test_a_manifest_that_was_written_anew_is_found(export):
    signed = json.loads(export.manifest.read_text())
    signed["manifest"]["reference"] = "a quiet afternoon"
    export.manifest.write_text(json.dumps(signed))
    assert export.broken() == ["Is the manifest as it was when it was signed?"]


def test_a_film_that_was_left_out_is_missed(export):
    (export.root / "lobby+2.mp4").unlink()
    assert export.broken() == ["Is lobby+2.mp4 there?"]


def test_who_signs_anew_with_a_key_of_his_own_is_found(export, court):
    forger = court
    film = export.root / "lobby.mp4"
    data = film.read_bytes()
    content = dict(boxes(data))[b"meta"]
    meta = Meta.parse(content)
    forged = replace(meta.signatures[0], certificate=forger.certificate, signature=bytes(forger.size_bytes))
    unsigned = replace(meta, signatures=[forged])
    before = data[: -len(content) - 8]
    signature = forger.sign(hashlib.sha256(before + unsigned.to_box()).digest())
    film.write_bytes(before + replace(unsigned, signatures=[replace(forged, signature=signature)]).to_box())
    assert export.broken(path=film) == ["Did the site sign lobby.mp4?"]
    assert "Is lobby.mp4 the film of the manifest?" in export.broken()


def test_whoever_receives_a_film_signs_it_again_and_it_stays_the_film_of_the_manifest(export, court):
    film = export.root / "lobby.mp4"
    sign_again(film, court, remark="received")
    assert export.broken() == []
    found = {one.question: one.detail for one in export.findings(path=film, signers=[court.certificate])}
    assert (
        found["Did CN=videostore export\\, court sign lobby.mp4 too?"] == "by a certificate given; received"
    )
    assert export.broken(path=export.root / "lobby+2.mp4", signers=[court.certificate]) == [
        "Did CN=videostore export\\, court sign lobby+2.mp4 too?"
    ]


@pytest.mark.parametrize("place", [0.5, 0.97, -700, -1])
def test_what_was_altered_after_it_was_signed_again_is_found_and_signed_by_nobody(export, court, place):
    film = export.root / "lobby.mp4"
    sign_again(film, court, remark="received")
    data = bytearray(film.read_bytes())
    data[int(len(data) * place) if place > 0 else place] ^= 1
    film.write_bytes(data)
    with suppress(SignatureInvalid):  # it may not even be a film any more
        assert export.broken(path=film)
    with pytest.raises((IntegrityError, SignatureInvalid)):
        sign_again(film, court, remark="once more")
    assert film.read_bytes() == data


def archived(export, path, *more, recipient=""):
    """Return an archive as the command makes it; ``more`` are entries that do not belong there."""
    with archive(path, recipient) as zipped:
        for file in sorted(export.root.iterdir()):
            zipped.write(file, file.name)
        for name in more:
            zipped.writestr(name, b"surprise")
    return path


def test_an_archive_is_verified_as_it_is_sealed_or_not(export, tmp_path):
    identity, recipient = new_identity()
    plain, sealed = (
        archived(export, tmp_path / name, recipient=whose)
        for name, whose in (("case.zip", ""), ("case.zip.age", recipient))
    )
    assert export.broken(path=plain) == []
    assert export.findings(path=sealed, identity=identity)[:-1] == export.findings(path=plain)[:-1]
    with pytest.raises(SealBroken):
        export.findings(path=sealed, identity=new_identity()[0])
    with pytest.raises(SignatureInvalid, match="sealed to its recipient"):
        export.findings(path=sealed)
    sealed.write_bytes(sealed.read_bytes()[:-100])
    with pytest.raises(SealBroken):
        export.findings(path=sealed, identity=identity)


def test_what_was_put_into_an_archive_or_taken_out_of_it_is_found(export, tmp_path):
    found = archived(export, tmp_path / "more.zip", "other.mp4")
    assert export.broken(path=found) == ["Is nothing else in more.zip?"]
    with pytest.warns(UserWarning, match="Duplicate"):
        found = archived(export, tmp_path / "twice.zip", "lobby+2.mp4")
    with pytest.raises(SignatureInvalid):
        export.broken(path=found)
    (export.root / "lobby+2.mp4").unlink()
    assert export.broken(path=archived(export, tmp_path / "less.zip")) == ["Is lobby+2.mp4 there?"]


def test_what_is_read_back_from_a_scratch_file_is_what_was_written_and_no_byte_of_it_is_on_disk():
    data = bytes(range(256)) * 10_000
    with Scratch() as scratch:
        for at in range(0, len(data), 70_000):
            scratch.write(data[at : at + 70_000])
        found = scratch.written()
        for at, length in ((0, 10), (1_048_570, 20), (2_000_000, 600_000), (len(data) - 5, 50)):
            found.seek(at)
            assert found.read(length) == data[at : at + length]
        scratch._file.seek(0)
        assert data[:64] not in scratch._file.read()


def test_another_recorder_is_not_believed(export):
    other = "ed25519:" + base64.b64encode(bytes(32)).decode()
    assert "Did the recorder chain what was exported?" in export.broken(recorder=other)


def test_a_download_goes_on_where_it_broke_off_and_is_the_same_to_the_last_bit(whole):
    data = (whole.root / "lobby.mp4").read_bytes()
    for offset in (0, 1, 40, len(data) // 2, len(data) - 10, len(data)):
        assert whole.film(0, offset).content == data[offset:]


def test_what_was_granted_for_viewing_is_not_exported(whole):
    alice = whole.alice
    serving = alice.view()
    for answer in (
        alice.post(f"/v1/servings/{serving['serving_id']}/films/0"),
        alice.http.get(f"/v1/servings/{serving['serving_id']}/manifest"),
    ):
        assert answer.status_code == 403
    assert whole.house.events(Event.REFUSED)[-1]["reason"] == "mode-not-granted"


def test_the_ledger_has_what_left_with_each_film(whole):
    exported = [one for one in whole.house.events(Event.SERVED) if one["frames"]]
    spans = [span for one in exported[:3] for span in one["spans"]]
    manifest = json.loads(whole.manifest.read_text())["manifest"]
    assert spans == [film["shown"] for film in manifest["films"]]


def test_an_export_ends_with_its_incident(whole, tmp_path):
    export = Export(whole.house, tmp_path, START, START + 2 * SECOND)
    assert export.film(0).status_code == 200
    export.alice.post(f"/v1/incidents/{export.alice.incident_id}/close")
    assert export.film(0).status_code == 403


def test_what_a_person_saves_is_for_nobody_else_on_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "session.json"))
    before = os.umask(0o022)
    try:
        with suppress(VideostoreError), connected():
            pass  # not logged in
        (tmp_path / "lobby.mp4").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "lobby.mp4").stat().st_mode & 0o777 == 0o600


# --- viewing copies ---

COPIES = ["lobby.viewing-copy.mp4", "lobby.viewing-copy+2.mp4", "lobby.viewing-copy+3.mp4"]


def pictures(film):
    with av.open(str(film)) as container:
        return [np.asarray(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def told(picture, moments):
    """Return which of the moments stands in a picture, and how well it is to be read there (1: as drawn)."""
    scores = {}
    for moment in moments:
        drawn = np.full((18, 105), 16, np.uint8)
        text = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
        cv2.putText(drawn, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235,), 1, cv2.LINE_AA)
        found = cv2.matchTemplate(picture[-60:, :200], drawn, cv2.TM_CCOEFF_NORMED)
        scores[moment] = float(found.max())
    return max(scores.items(), key=lambda one: one[1])


def test_every_frame_of_a_viewing_copy_tells_its_own_time(copy):
    shown = pictures(copy.root / COPIES[0])
    moments = [START + number * FRAME for number in range(30, 100)]
    assert len(shown) == len(moments)
    for number in range(0, 70, 9):
        moment, legible = told(shown[number], moments)
        assert (moment, legible) == (moments[number], pytest.approx(1, abs=0.3))


def test_a_viewing_copy_shows_what_was_asked_for_and_follows_the_format(copy):
    shown = [pictures(copy.root / name) for name in COPIES]
    assert [len(one) for one in shown] == [70, 50, 35]
    assert [one[0].shape for one in shown] == [(360, 640), (360, 640), (180, 320)]
    manifest = json.loads(copy.manifest.read_text())["manifest"]
    assert [one["shown"][0] for one in manifest["films"]] == [one["begins"] for one in manifest["films"]]
    command = [program("ffmpeg"), "-v", "warning", "-i", copy.root / COPIES[0], "-f", "null", "-"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


def test_a_viewing_copy_holds_what_it_says_and_is_no_evidence(copy):
    assert copy.broken() == [
        "Is this evidence?",
        *(f"Is {name} evidence?" for name in COPIES),
    ]
    assert copy.broken(path=copy.root / COPIES[1]) == [f"Is {COPIES[1]} evidence?"]


def test_a_viewing_copy_that_broke_off_goes_on_to_the_same_last_bit(copy):
    data = (copy.root / COPIES[0]).read_bytes()
    assert copy.film(0, len(data) // 3).content == data[len(data) // 3 :]


def test_a_few_viewing_copies_are_made_at_a_time_and_players_never_wait_for_them(copy):
    gate, camera = copy.house.gate, CAMERAS["lobby"]
    serving = gate.footage.serving("alice", copy.serving["serving_id"])
    film = partial(gate.exports.film, serving, camera, 0, person=lambda: "alice")
    making = [film() for _ in range(VIEWING_COPIES + 1)]
    for one in making[:-1]:
        next(one)
    with pytest.raises(TooManyRequests):
        next(making[-1])
    making[0].close()
    again = film()
    assert next(again)
    for one in (again, *making):
        one.close()


def test_a_viewing_copy_is_on_record_as_one_and_follows_the_rules_of_an_export(copy):
    begun, served = (
        [one for one in copy.house.events(event) if one["serving_id"] == copy.serving["serving_id"]]
        for event in (Event.EXPORT, Event.SERVED)
    )
    assert [one["viewing_copy"] for one in begun] == [True]
    assert [one["frames"] for one in served if one["frames"]][:3] == [70, 50, 35]


@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320), (1936, 128)])
def test_a_label_fits_any_picture(width, height):
    """Whatever is written, nothing runs out of the picture, and the picture keeps most of its room."""
    label = Label("lobby", "alice", "0123456789abcdef", "Пожар, 火警: évacuation du bâtiment B " * 6)
    movie = cmaf.parse(movies(1, width, height)[0])
    _, made = burnt(movie, start=START, asked=Span(START, START + SECOND / 5), label=label)
    with av.open(io.BytesIO(made.init + b"".join(one.data for one in made.fragments))) as container:
        frames = [np.asarray(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    assert len(frames) == made.frames == 5
    assert max(frames[0].shape) == min(max(width, height), 1920)
    written = (frames[0] > 200).any(axis=0)
    assert not written[-2:].any()
    assert (frames[0][: frames[0].shape[0] // 2] > 60).mean() > 0.3


def test_what_cannot_be_decoded_is_left_out_of_a_viewing_copy():
    first, second = (cmaf.parse(movie) for movie in movies(2))
    whole = cmaf.parse(cmaf.join(first.init, [*first.fragments, *second.fragments]))
    label = Label("lobby", "alice", "0123456789abcdef", "fire")

    def spoilt(fragment):
        frames = fragment.data.index(b"mdat") + 4
        return replace(fragment, data=fragment.data[:frames].ljust(len(fragment.data), b"\xff"))

    def left(*broken, init=whole.init):
        parts = [spoilt(one) if at in broken else one for at, one in enumerate(whole.fragments)]
        movie = replace(whole, init=init, fragments=parts)
        made = burnt(movie, start=START, asked=Span(START, START + SECOND * 9), label=label)
        return made and (made[0], made[1].frames)

    assert left() == (START, 50)
    assert left(0) == (START + SECOND, 25)
    assert left(1) == (START, 25)
    assert left(0, 1) is None
    assert left(init=whole.init[:40] + bytes(len(whole.init) - 40)) is None
