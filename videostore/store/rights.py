"""What each role may do in the bucket, as the policies by which the store itself enforces it (invariant 9).

::

    recorder    puts segments and entry/exit records; cannot read back, list or delete
    gate        gets them by name; lists entry/exit records only
    retention   lists and deletes, to the last version; can neither read nor write
    auditor     lists, to compare

Each may also read how the bucket is set up. The grammar is that of AWS; MinIO, Ceph and SeaweedFS share it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from videostore.domain.presence import PRESENCE
from videostore.domain.segment import SEGMENTS

Role = Literal["recorder", "gate", "retention", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)
Policy = Mapping[str, Any]

_LOOK = (
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketVersioning",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
)
_LIST = ("s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListBucketVersions")
_LOCKS = ("s3:GetObjectLegalHold", "s3:GetObjectRetention")
_DELETE = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion")


def policy(role: Role, bucket: str) -> Policy:
    """Return the policy of ``role`` for the bucket of that name, and nothing else."""
    whole = f"arn:aws:s3:::{bucket}"
    ours = [f"{whole}/{SEGMENTS}*", f"{whole}/{PRESENCE}*"]
    statements = [_allow(_LOOK, [whole])]
    match role:
        case "recorder":
            statements.append(_allow(["s3:PutObject"], ours))
        case "gate":
            statements.append(_allow(["s3:GetObject"], ours))
            statements.append(
                _allow(["s3:ListBucket"], [whole])
                | {"Condition": {"StringLike": {"s3:prefix": f"{PRESENCE}*"}}}
            )
        case "retention":
            statements += [_allow(_LIST, [whole]), _allow([*_DELETE, *_LOCKS], [f"{whole}/*"])]
        case "auditor":
            statements += [_allow(_LIST, [whole]), _allow(_LOCKS, [f"{whole}/*"])]
    return {"Version": "2012-10-17", "Statement": statements}


def seaweedfs(bucket: str, keys: Mapping[Role, tuple[str, str]]) -> Mapping[str, Any]:
    """Return what belongs into the s3 configuration of SeaweedFS (``weed server -s3.config``).

    ``keys`` are the access and secret key of each role. Not its older ``actions``: ``Write`` allows deletion.
    """
    return {
        "identities": [
            {
                "name": f"{bucket}-{role}",
                "credentials": [{"accessKey": access, "secretKey": secret}],
                "policyNames": [f"{bucket}-{role}"],
            }
            for role, (access, secret) in keys.items()
        ],
        "policies": [
            {"name": f"{bucket}-{role}", "content": json.dumps(policy(role, bucket))} for role in keys
        ],
    }


def _allow(actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
