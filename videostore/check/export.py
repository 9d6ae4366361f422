"""Verify an export, offline: the film is whole and as it left, and the recorder chained what it is made of.

What is trusted is given: the site's certificate (``ledger/export.crt``) and the recorder's public key.
Without them a file is only compared with itself, which is said.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from videostore import signing
from videostore.check.scratch import Scratch
from videostore.domain.chain import CONTEXT, Item, Run, fold, item_digest
from videostore.domain.errors import IntegrityError, SignatureInvalid
from videostore.domain.ledger import canonical
from videostore.domain.onvif import Meta, Signed, operator_of
from videostore.domain.segment import KeyId, ObjectKey, Segment, Sha256Hex
from videostore.durable import disk_errors, replacing
from videostore.sealing import open_stream

_STEP = 1 << 20
_LARGEST_META = 1 << 20
_SEALED, _ZIP = b"age-encryption.org/v1", b"PK\x03\x04"
_NO_EVIDENCE = "a viewing copy, made to be looked at: its frames were drawn into and encoded anew"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer."""

    question: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What the reader knows: the site's certificate, the recorder's key, the certificates (DER) of others who
    signed the films too, and the identity that an archive is sealed to. Each may be unknown."""

    certificate: bytes | None = None
    recorder: str = ""
    signers: Sequence[bytes] = ()
    identity: str = ""


class _Beside(Protocol):
    """Where the films of a manifest lie."""

    def open(self, name: str) -> IO[bytes] | None:
        """Return a file there, None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path

    def open(self, name: str) -> IO[bytes] | None:
        film = self.path / name
        return film.open("rb") if film.exists() else None


@dataclass(frozen=True, slots=True)
class _Archive:
    archive: zipfile.ZipFile

    def open(self, name: str) -> IO[bytes] | None:
        return self.archive.open(name) if name in self.archive.namelist() else None


@dataclass(frozen=True, slots=True)
class _File:
    """A film read once: its hash as the site signed it, of what stands before ``meta`` (``length`` bytes),
    and of each ``mdat``."""

    sha256: str
    before: Any
    length: int
    meta: Meta
    contents: list[str]


def verify(path: Path, trust: Trust) -> Iterator[Finding]:
    """Yield what there is to say of a film, of a manifest and the films beside it, or of an archive of both,
    which may be sealed. Nothing is unpacked.

    Raises SignatureInvalid if the file is none of these, SealBroken if it does not open.
    """
    with disk_errors(path), path.open("rb") as file:
        yield from _verify(file, path.name, _Folder(path.parent), trust)


def _verify(file: IO[bytes], name: str, beside: _Beside, trust: Trust) -> Iterator[Finding]:
    begins = file.read(len(_SEALED))
    file.seek(0)
    if begins == _SEALED:
        if not trust.identity:
            raise SignatureInvalid(f"{name} is sealed to its recipient", hint="Give the key: --identity FILE")
        with Scratch() as scratch:
            open_stream(file, scratch, identity=trust.identity)
            yield from _verify(scratch.written(), name.removesuffix(".age"), beside, trust)
    elif begins.startswith(_ZIP):
        yield from _archive(file, name, trust)
    elif begins.startswith(b"{"):
        yield from _manifest(file.read(), name, beside, trust)
    else:
        yield from _film(name, _read(file, name), trust)


def film_name(export: str, number: int) -> str:
    """Return what film ``number`` is called beside its manifest, ``{export}.json``. No camera has a ``+``."""
    return f"{export}.mp4" if number == 1 else f"{export}+{number}.mp4"


def sign_again(path: Path, key: signing.ExportKey, *, remark: str) -> None:
    """Add a signature to a film, which is then replaced, whole or not at all. Its other bytes stay.

    Raises IntegrityError if the signatures that it bears do not hold.
    """
    with disk_errors(path), path.open("rb") as file:
        film = _read(file, path.name)
        if not all(_holds(film, number) for number in range(len(film.meta.signatures))):
            raise IntegrityError(f"{path} is not as it was when it was signed", hint="Do not sign it.")
        first = film.meta.signatures[0]
        own = Signed(bytes(key.size_bytes), key.certificate, first.starts, first.track_id, remark)
        meta = replace(film.meta, signatures=[*film.meta.signatures, own])
        digest = film.before.copy()
        digest.update(meta.to_box())
        signed = replace(own, signature=key.sign(digest.digest()))
        file.seek(0)
        with replacing(path) as new:
            for at in range(0, film.length, _STEP):
                new.write(file.read(min(_STEP, film.length - at)))
            new.write(replace(meta, signatures=[*film.meta.signatures, signed]).to_box())


def _holds(film: _File, number: int) -> bool:
    digest, one = film.before.copy(), film.meta.signatures[number]
    digest.update(film.meta.as_signed(number))
    return signing.verify_export(digest.digest(), one.signature, certificate=one.certificate)


def _film(name: str, film: _File, trust: Trust) -> Iterator[Finding]:
    said = operator_of(film.meta.provenance)
    for number, one in enumerate(film.meta.signatures):
        if number == 0:
            by = f"exported by {said['operator']} at {said['exported_at']}, {said['unit']}; {one.remark}"
            yield Finding(f"Is {name} as it was when it was signed?", _holds(film, number), by)
            yield _trusted(f"Did the site sign {name}?", one.certificate, trust.certificate)
            continue
        known = "by a certificate given" if one.certificate in trust.signers else _unknown(one.certificate)
        whom = signing.subject_of(one.certificate)
        yield Finding(f"Did {whom} sign {name} too?", _holds(film, number), f"{known}; {one.remark}")
    found = {one.certificate for one in film.meta.signatures[1:]}
    for missing in (one for one in trust.signers if one not in found):
        yield Finding(f"Did {signing.subject_of(missing)} sign {name} too?", False, "by no signature of it")
    if film.meta.viewing_copy:
        yield Finding(f"Is {name} evidence?", False, _NO_EVIDENCE)


def _unknown(certificate: bytes) -> str:
    return f"whose it is was not asked: SHA-256 {hashlib.sha256(certificate).hexdigest()}"


def _trusted(question: str, found: bytes, certificate: bytes | None) -> Finding:
    fingerprint = hashlib.sha256(found).hexdigest()
    if certificate is None:
        return Finding(
            question, True, f"not asked: compare its certificate with the site's, SHA-256 {fingerprint}"
        )
    same = found == certificate
    return Finding(question, same, "by the certificate given" if same else f"another key did: {fingerprint}")


def _archive(file: IO[bytes], name: str, trust: Trust) -> Iterator[Finding]:
    """Verify every manifest of an archive, and that nothing else is in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            others = Counter(archive.namelist())
            for entry in [one for one in others if one.endswith(".json")]:
                text = archive.read(entry)
                yield from _manifest(text, entry, _Archive(archive), trust)
                films = json.loads(text)["manifest"]["films"]
                stem = entry.removesuffix(".json")
                others.subtract([entry, *(film_name(stem, int(one["number"])) for one in films)])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise SignatureInvalid(f"{name} is no archive of an export: {error}") from error
    more = sorted(one for one, count in others.items() if count > 0)
    yield Finding(f"Is nothing else in {name}?", not more, ", ".join(more) or "manifests and their films")


def _manifest(text: bytes, name: str, beside: _Beside, trust: Trust) -> Iterator[Finding]:
    try:
        signed = json.loads(text)
        manifest: Mapping[str, Any] = signed["manifest"]
        signature, own = (
            base64.b64decode(signed[part], validate=True) for part in ("signature", "certificate")
        )
        films, runs, stated = manifest["films"], manifest["runs"], str(manifest["recorder"])
        digest = hashlib.sha256(canonical(manifest)).digest()
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise SignatureInvalid(f"{name} is no manifest of an export: {error}") from error
    whole = signing.verify_export(digest, signature, certificate=own)
    about = f"{manifest['purpose']}: {manifest['reference']}; by {manifest['person']}"
    yield Finding("Is the manifest as it was when it was signed?", whole, about)
    yield _trusted("Did the site sign the manifest?", own, trust.certificate)
    if manifest.get("kind", "original") != "original":
        yield Finding("Is this evidence?", False, _NO_EVIDENCE)
    for facts in films:
        film = film_name(name.removesuffix(".json"), int(facts["number"]))
        file = beside.open(film)
        if file is None:
            yield Finding(f"Is {film} there?", False, "the manifest lists it")
            continue
        with file:
            read = _read(file, film)
        yield Finding(f"Is {film} the film of the manifest?", read.sha256 == facts["sha256"],
                      f"{facts['frames']} frames, {facts['shown'][0]} to {facts['shown'][1]}")  # fmt: skip
        wanted = [one["content_sha256"] for one in facts["segments"]]
        yield Finding(f"Is every segment of {film} in it, in order?", read.contents == wanted,
                      f"{len(wanted)} segments")  # fmt: skip
        yield from _film(film, read, replace(trust, certificate=own))
    keys = [ObjectKey(one["object_key"]) for facts in films for one in facts["segments"]]
    yield from _chain(keys, runs, trust.recorder or stated, given=bool(trust.recorder))
    for one in manifest["missing"]:
        yield Finding(
            "What is missing?", True, f"{one['start']} to {one['end']}: {one['why'] or one['kind']}"
        )


def _chain(keys: list[ObjectKey], runs: list[Any], recorder: str, *, given: bool) -> Iterator[Finding]:
    """Compare with what the recorder signed. An hour that went on at the export has no run yet."""
    proven, closed = set[str](), set[KeyId]()
    for proof in runs:
        try:
            run = Run.from_json(proof["run"])
            items = [Item.of_json(one) for one in proof["items"]]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise SignatureInvalid(f"a run of the chain cannot be read: {error}") from error
        ours = signing.verify(run.to_json(), str(proof["signature"]), public=recorder, context=CONTEXT)
        folds = fold(run.before, sorted(items)) == run.after
        detail = "signed by the recorder" if ours else "not signed by this recorder"
        detail += ", complete" if folds else ", segments of it are missing or exchanged"
        yield Finding(f"Does the chain of {run.key_id} hold?", ours and folds, detail)
        closed.add(run.key_id)
        if ours and folds:
            proven |= {item.digest for item in items}
    others = [Segment.from_object_key(key, size_bytes=0) for key in keys if item_digest(key) not in proven]
    going_on = sorted({str(one.key_id) for one in others if one.key_id not in closed})
    whose = "the key given" if given else f"the key that the manifest names, {recorder}"
    detail = f"{len(keys) - len(others)} of {len(keys)} segments, by {whose}"
    if going_on:
        detail += f"; hours that went on when this was exported: {', '.join(going_on)}"
    none_missing = all(one.key_id not in closed for one in others)
    yield Finding("Did the recorder chain what was exported?", none_missing, detail)


def _read(file: IO[bytes], name: str) -> _File:
    before, length, contents = hashlib.sha256(), 0, list[str]()
    while head := file.read(8):
        size, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        if kind == b"meta" and size <= _LARGEST_META:
            content = file.read()
            if len(content) != size - 8:
                break
            meta = Meta.parse(content)
            left = before.copy()
            left.update(replace(meta, signatures=meta.signatures[:1]).to_box())
            return _File(Sha256Hex(left.hexdigest()), before, length, meta, contents)
        own, rest = hashlib.sha256(), size - 8
        before.update(head)
        while rest > 0 and (chunk := file.read(min(rest, _STEP))):
            before.update(chunk)
            own.update(chunk)
            rest -= len(chunk)
        if rest:
            break
        length += size
        if kind == b"mdat":
            contents.append(own.hexdigest())
    raise SignatureInvalid(
        f"{name} is no export of videostore",
        hint="Was it cut off, or written anew? Name a manifest or a film.",
    )
