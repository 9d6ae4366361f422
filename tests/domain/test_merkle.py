"""The tree of RFC 9162: as defined, as Certificate Transparency computes it, and against forgery."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.merkle import (
    EMPTY,
    Tree,
    consistency_proof,
    consistent,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
)

# The leaves and roots that the tests of Certificate Transparency's implementations share.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(leaves):
    """MTH as section 2.1.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:split]) + naive(leaves[split:])).digest()


def tree(leaves):
    made = Tree()
    for leaf in leaves:
        made.add(leaf_hash(leaf))
    return made


def numbered(size):
    return [b"%d" % number for number in range(size)]


def node_of(leaves):
    return lambda start, end: naive(leaves[start:end])


def test_roots_are_those_of_certificate_transparency():
    assert [tree(LEAVES[:size]).root.hex() for size in range(9)] == ROOTS
    assert EMPTY.hex() == ROOTS[0]


def test_a_path_is_that_of_certificate_transparency():
    path = inclusion_proof(0, 8, node_of(LEAVES))
    assert [step.hex()[:16] for step in path] == ["96a296d224f285c6", "5f083f0a1a33ca07", "6b47aaf29ee3c2af"]


@given(size=st.integers(0, 70), level=st.integers(0, 4))
def test_a_tree_grown_by_leaves_or_by_whole_subtrees_is_the_one_of_the_definition(size, level):
    leaves = numbered(size)
    assert tree(leaves).root == naive(leaves)
    made, step = Tree(), 1 << level
    for start in range(0, size - size % step, step):
        made.add(naive(leaves[start : start + step]), level=level)
    for leaf in leaves[size - size % step :]:
        made.add(leaf_hash(leaf))
    assert (made.root, made.size) == (naive(leaves), size)
    assert len(made.peaks) == size.bit_count()


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_of_every_tree_is_proven_in_its_place_and_in_no_other(size):
    leaves = numbered(size)
    root = naive(leaves)
    for index, leaf in enumerate(leaves):
        path = inclusion_proof(index, size, node_of(leaves))
        assert len(path) <= (size - 1).bit_length()
        proven = [
            place
            for place in range(-1, size + 1)
            if includes(root, size=size, index=place, leaf=leaf_hash(leaf), path=path)
        ]
        assert proven == [index]
        assert not includes(root, size=size, index=index, leaf=leaf_hash(b"forged"), path=path)
        assert not includes(root, size=size, index=index, leaf=leaf_hash(leaf), path=[*path, EMPTY])
        assert not path or not includes(root, size=size, index=index, leaf=leaf_hash(leaf), path=path[:-1])


@pytest.mark.parametrize("size", range(34))
def test_growth_is_proven_from_every_size_and_a_fork_is_not(size):
    leaves = numbered(size)
    root = naive(leaves)
    for first in range(size + 1):
        before = naive(leaves[:first])
        path = consistency_proof(first, size, node_of(leaves))
        assert consistent(before, root, first=first, second=size, path=path)
        if first:
            forked = naive([*leaves[: first - 1], b"forged"])
            assert not consistent(forked, root, first=first, second=size, path=path)
        if 0 < first < size:
            assert not consistent(before, EMPTY, first=first, second=size, path=path)
            assert not consistent(before, root, first=first, second=size, path=[])
            assert not consistent(before, root, first=first, second=size, path=[*path, EMPTY])
            assert not consistent(before, root, first=size, second=first, path=path)


@given(data=st.data())
def test_a_changed_path_proves_nothing(data):
    size = data.draw(st.integers(2, 200))
    leaves = numbered(size)
    root, index = naive(leaves), data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size - 1))
    changed = node_hash(EMPTY, EMPTY)

    def broken(path):
        at = data.draw(st.integers(0, len(path) - 1))
        return [*path[:at], changed, *path[at + 1 :]]

    path = broken(inclusion_proof(index, size, node_of(leaves)))
    assert not includes(root, size=size, index=index, leaf=leaf_hash(leaves[index]), path=path)
    path = broken(consistency_proof(first, size, node_of(leaves)))
    assert not consistent(naive(leaves[:first]), root, first=first, second=size, path=path)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index, size):
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(index, size, node_of(numbered(size)))
