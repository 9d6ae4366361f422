"""What a sweep at some moment would do, without doing it. Pure: the facts come in as values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from videostore.domain.camera import CameraId
from videostore.domain.retention import Kind, RetentionPolicy, Verdict
from videostore.domain.segment import KeyId
from videostore.ports import Amount, HourKey


@dataclass(frozen=True, slots=True)
class Planned:
    """What goes at once: an hour key and all that is sealed to it, or what a camera left under a key that
    lives on for others. Then ``camera_id`` is that camera."""

    kind: Kind
    key_id: KeyId
    camera_id: CameraId | None
    verdict: Verdict
    cameras: int
    objects: int
    size_bytes: int


def plan(
    policy: RetentionPolicy, *, keys: Sequence[HourKey], amounts: Iterable[Amount], moment: datetime
) -> Iterator[Planned]:
    """Yield what is due at ``moment``, in the order in which it becomes so.

    Due are living keys, what nobody has the key of, and what is of a camera that is, or was, kept for less.
    """
    promised = {key.key_id: key.deadline for key in keys}
    due = {key.key_id for key in keys if key.destroyed_at is None}
    whole: dict[KeyId, list[Amount]] = defaultdict(list)
    planned: list[Planned] = []
    for one in amounts:
        of_key, of_camera = (
            policy.judge(one.key_id, now=moment, promised=promised.get(one.key_id), camera_id=camera_id)
            for camera_id in (None, one.camera_id)
        )
        if of_camera.deadline == of_key.deadline:
            whole[one.key_id].append(one)
        elif of_camera.due:
            planned.append(_planned(policy.kind, one.key_id, one.camera_id, of_camera, [one]))
    for key_id in due | whole.keys():
        verdict = policy.judge(key_id, now=moment, promised=promised.get(key_id))
        if verdict.due:
            planned.append(_planned(policy.kind, key_id, None, verdict, whole[key_id]))
    yield from sorted(planned, key=lambda one: (one.verdict.due_at, one.key_id, str(one.camera_id)))


def _planned(
    kind: Kind, key_id: KeyId, camera_id: CameraId | None, verdict: Verdict, amounts: Sequence[Amount]
) -> Planned:
    cameras = {one.camera_id for one in amounts if one.camera_id is not None}
    objects, size_bytes = sum(one.objects for one in amounts), sum(one.size_bytes for one in amounts)
    return Planned(kind, key_id, camera_id, verdict, len(cameras), objects, size_bytes)
