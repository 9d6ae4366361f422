"""Makes a bucket private and deleting by itself, and an identity for each role. Idempotent."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from videostore.store.bucket import Bucket, ClientError
from videostore.store.lifecycle import Rule
from videostore.store.rights import ROLES, Role, policy

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import (
        BucketLifecycleConfigurationTypeDef,
        PublicAccessBlockConfigurationTypeDef,
    )

_PRIVATE: PublicAccessBlockConfigurationTypeDef = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


def set_up(bucket: Bucket, wanted: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Make the bucket and write its settings, as an administrator. Yields each thing and what became of it.

    ``wanted`` replaces every lifecycle rule there is. The bucket is made without Object Lock, for good.
    """
    client, name = bucket.client, bucket.name
    with bucket.translated():
        yield "bucket", "was there" if _exists(bucket) else _make(bucket)
    blocked = bucket.setting(
        lambda: client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=_PRIVATE)
    )
    yield "public access", "blocked" if blocked else "the store has no such setting; its default is private"
    with bucket.translated():
        client.put_bucket_lifecycle_configuration(
            Bucket=name,
            LifecycleConfiguration=cast("BucketLifecycleConfigurationTypeDef", {"Rules": list(wanted)}),
        )
    yield "lifecycle", f"{len(wanted)} rules written"


def make_identities(bucket: Bucket, *, known: Collection[Role]) -> Iterator[tuple[Role, tuple[str, str]]]:
    """Make a user with one policy for each role, through the IAM API of AWS or SeaweedFS.

    Yields the access and secret key of the roles that are not ``known`` to have some. Raises StoreRefused if
    the store makes no identities.
    """
    with bucket.translated():
        iam: Any = bucket.session.client(
            "iam", endpoint_url=bucket.endpoint or None, verify=bucket.ca_file or None
        )
        for role in ROLES:
            user = f"{bucket.name}-{role}"
            with _unless_there():
                iam.create_user(UserName=user)
            wanted = _policy(iam, user, json.dumps(policy(role, bucket.name), sort_keys=True))
            iam.attach_user_policy(UserName=user, PolicyArn=wanted)
            for other in iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]:
                if other["PolicyArn"] != wanted:
                    iam.detach_user_policy(UserName=user, PolicyArn=other["PolicyArn"])
            if role not in known:
                key: Mapping[str, str] = iam.create_access_key(UserName=user)["AccessKey"]
                yield role, (key["AccessKeyId"], key["SecretAccessKey"])


def _policy(iam: Any, user: str, document: str) -> str:
    """Return the ARN of the policy that says ``document``. Its name has the hash: it never changes."""
    name = f"{user}-{hashlib.sha256(document.encode()).hexdigest()[:12]}"
    with _unless_there():
        iam.create_policy(PolicyName=name, PolicyDocument=document)
    pages = iam.get_paginator("list_policies").paginate(Scope="Local")
    return next(str(one["Arn"]) for page in pages for one in page["Policies"] if one["PolicyName"] == name)


@contextmanager
def _unless_there() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"EntityAlreadyExists", "EntityAlreadyExistsException"}:
            raise


def new_keys() -> tuple[str, str]:
    """Return an access and a secret key that nobody has."""
    return f"VS{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30)


def _exists(bucket: Bucket) -> bool:
    try:
        bucket.client.head_bucket(Bucket=bucket.name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def _make(bucket: Bucket) -> str:
    if bucket.endpoint or bucket.region == "us-east-1":
        bucket.client.create_bucket(Bucket=bucket.name)
    else:
        where: Any = {"LocationConstraint": bucket.region}
        bucket.client.create_bucket(Bucket=bucket.name, CreateBucketConfiguration=where)
    return "made, without Object Lock"
