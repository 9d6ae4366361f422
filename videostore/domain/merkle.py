"""Merkle trees of RFC 9162 (Certificate Transparency 2.0), section 2.1, with SHA-256.

The hash of a leaf is SHA-256 over 0x00 and its bytes, that of a node over 0x01 and both children; a list of
n leaves splits at the largest power of two below n. So one leaf of ten million is proven by 24 hashes, and
so is that a list only grew. Hashes are 32 bytes. Pure: where they are kept is the caller's;
``node(start, end)`` returns that of the leaves ``start`` to ``end``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

NodeHash: TypeAlias = Callable[[int, int], bytes]

EMPTY = hashlib.sha256(b"").digest()
"""The root of no leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Tree:
    """A growing list of leaves, kept as the roots of its whole subtrees: one for each bit of its size."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def add(self, subtree: bytes, *, level: int = 0) -> None:
        """Append the root of ``2 ** level`` leaves; the size must be a multiple of that."""
        at = self.size >> level
        self.size += 1 << level
        while at & 1:
            subtree = node_hash(self.peaks.pop(), subtree)
            at >>= 1
        self.peaks.append(subtree)

    @property
    def root(self) -> bytes:
        if not self.peaks:
            return EMPTY
        *rest, root = self.peaks
        for peak in reversed(rest):
            root = node_hash(peak, root)
        return root


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """Return the path from leaf ``index`` to the root of ``size`` leaves (2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} among {size}")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(node(middle, end))
            end = middle
        else:
            path.append(node(start, middle))
            start = middle
    return path[::-1]


def includes(root: bytes, *, size: int, index: int, leaf: bytes, path: Sequence[bytes]) -> bool:
    """Say whether ``path`` proves that ``leaf`` is number ``index`` under ``root`` (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            result = node_hash(sibling, result)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and result == root


def consistency_proof(first: int, size: int, node: NodeHash) -> list[bytes]:
    """Return what proves that the tree of ``size`` leaves begins with that of ``first`` (2.1.4.1)."""
    if not 0 <= first <= size:
        raise ValueError(f"{size} leaves do not begin with {first}")
    if first == 0:
        return []
    path, start, end, left = [], 0, size, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(node(middle, end))
            end = middle
        else:
            path.append(node(start, middle))
            start, left = middle, False
    return path[::-1] if left else [node(start, end), *path[::-1]]


def consistent(
    first_root: bytes, second_root: bytes, *, first: int, second: int, path: Sequence[bytes]
) -> bool:
    """Say whether ``path`` proves that ``second`` leaves begin with the ``first`` (2.1.4.2)."""
    if first == 0 or first == second:
        return not path and first_root == (second_root if first else EMPTY)
    if not 0 < first < second or not path:
        return False
    whole = first & (first - 1) == 0  # then the tree of before is a node of the new one
    begin, *rest = [first_root, *path] if whole else path
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    before = after = begin
    for sibling in rest:
        if last == 0:
            return False
        if at & 1 or at == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and before == first_root and after == second_root


def _split(length: int) -> int:
    """Return the largest power of two below ``length``."""
    return 1 << (length - 1).bit_length() - 1
