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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videostore import signing
from videostore.domain.chain import CONTEXT, Item, Run, fold, item_digest
from videostore.domain.errors import SignatureInvalid
from videostore.domain.ledger import canonical
from videostore.domain.onvif import Meta, operator_of
from videostore.domain.segment import KeyId, ObjectKey, Segment, Sha256Hex
from videostore.durable import disk_errors

_STEP = 1 << 20
_NO_EVIDENCE = "a viewing copy: its frames were drawn into and encoded anew; the original was not asked for"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer."""

    question: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _File:
    """A film read once: the hash of all of it, of what stands before ``meta``, of each ``mdat``."""

    sha256: str
    before: Any
    meta: Meta
    contents: list[str]


def verify(path: Path, *, certificate: bytes | None, recorder: str) -> Iterator[Finding]:
    """Yield what there is to say of a film, or of a manifest and the films beside it.

    Raises SignatureInvalid if the file is neither.
    """
    with disk_errors(path), path.open("rb") as file:
        text = file.read(1).lstrip() == b"{"
    yield from _manifest(path, certificate, recorder) if text else _film(path, _read(path), certificate)


def film_name(export: str, number: int) -> str:
    """Return what film ``number`` is called beside its manifest, ``{export}.json``."""
    return f"{export}.mp4" if number == 1 else f"{export}-{number}.mp4"


def _film(path: Path, film: _File, certificate: bytes | None) -> Iterator[Finding]:
    for number, one in enumerate(film.meta.signatures):
        digest = film.before.copy()
        digest.update(film.meta.as_signed(number))
        whole = signing.verify_export(digest.digest(), one.signature, certificate=one.certificate)
        said = operator_of(film.meta.provenance)
        by = f"exported by {said['operator']} at {said['exported_at']}, {said['unit']}; {one.remark}"
        yield Finding(f"Is {path.name} as it was when it was signed?", whole, by)
        if number == 0:
            yield _trusted(f"Did the site sign {path.name}?", one.certificate, certificate)
    if film.meta.viewing_copy:
        yield Finding(f"Is {path.name} evidence?", False, _NO_EVIDENCE)


def _trusted(question: str, found: bytes, certificate: bytes | None) -> Finding:
    fingerprint = hashlib.sha256(found).hexdigest()
    if certificate is None:
        return Finding(
            question, True, f"not asked: compare its certificate with the site's, SHA-256 {fingerprint}"
        )
    same = found == certificate
    return Finding(question, same, "by the certificate given" if same else f"another key did: {fingerprint}")


def _manifest(path: Path, certificate: bytes | None, recorder: str) -> Iterator[Finding]:
    try:
        signed = json.loads(path.read_bytes())
        manifest: Mapping[str, Any] = signed["manifest"]
        signature, own = (
            base64.b64decode(signed[name], validate=True) for name in ("signature", "certificate")
        )
        films, runs, stated = manifest["films"], manifest["runs"], str(manifest["recorder"])
        digest = hashlib.sha256(canonical(manifest)).digest()
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise SignatureInvalid(f"{path} is no manifest of an export: {error}") from error
    whole = signing.verify_export(digest, signature, certificate=own)
    about = f"{manifest['purpose']}: {manifest['reference']}; by {manifest['person']}"
    yield Finding("Is the manifest as it was when it was signed?", whole, about)
    yield _trusted("Did the site sign the manifest?", own, certificate)
    if manifest.get("kind", "original") != "original":
        yield Finding("Is this evidence?", False, _NO_EVIDENCE)
    for facts in films:
        film = path.with_name(film_name(path.stem, int(facts["number"])))
        if not film.exists():
            yield Finding(f"Is {film.name} there?", False, "the manifest lists it")
            continue
        read = _read(film)
        yield Finding(f"Is {film.name} the film of the manifest?", read.sha256 == facts["sha256"],
                      f"{facts['frames']} frames, {facts['shown'][0]} to {facts['shown'][1]}")  # fmt: skip
        wanted = [one["content_sha256"] for one in facts["segments"]]
        yield Finding(f"Is every segment of {film.name} in it, in order?", read.contents == wanted,
                      f"{len(wanted)} segments")  # fmt: skip
        yield from _film(film, read, own)
    keys = [ObjectKey(one["object_key"]) for facts in films for one in facts["segments"]]
    yield from _chain(keys, runs, recorder or stated, given=bool(recorder))
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


def _read(path: Path) -> _File:
    whole, before, contents, meta = hashlib.sha256(), hashlib.sha256(), list[str](), b""
    with disk_errors(path), path.open("rb") as file:
        end = path.stat().st_size
        while file.tell() < end:
            head = file.read(8)
            size, name = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
            if not 8 <= size <= end - file.tell() + 8 or meta:
                raise SignatureInvalid(
                    f"{path} is no export of videostore", hint="Was it cut off, or written anew?"
                )
            own, rest = hashlib.sha256(), size - 8
            whole.update(head)
            if name == b"meta":
                meta = file.read(rest)
                whole.update(meta)
                continue
            before.update(head)
            while rest:
                chunk = file.read(min(rest, _STEP))
                for digest in (whole, before, own):
                    digest.update(chunk)
                rest -= len(chunk)
            if name == b"mdat":
                contents.append(own.hexdigest())
    if not meta:
        raise SignatureInvalid(f"{path} carries no signature", hint="Only films of `videostore export` do.")
    return _File(Sha256Hex(whole.hexdigest()), before, Meta.parse(meta), contents)
