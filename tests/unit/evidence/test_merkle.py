"""The Merkle tree is that of RFC 6962, however it was grown."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evidence.merkle import MerkleTree

LEAVES = st.lists(st.binary(min_size=32, max_size=32), max_size=40)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@given(LEAVES)
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    assert (tree.size, tree.root()) == (len(leaves), by_definition(leaves))


@given(LEAVES, LEAVES)
def test_a_tree_grows_from_its_peaks_alone(first: list[bytes], then: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in first:
        tree.add(leaf)
    resumed = MerkleTree(tree.size, tree.peaks)
    for leaf in then:
        resumed.add(leaf)
    assert resumed.root() == by_definition(first + then)


def test_the_known_answer_of_the_certificate_transparency_test_vectors() -> None:
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = MerkleTree()
    for text in data:
        tree.add(hashlib.sha256(b"\x00" + bytes.fromhex(text)).digest())
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_peaks_that_do_not_fit_the_size_are_refused() -> None:
    with pytest.raises(ValueError):
        MerkleTree(3, [b"\x00" * 32])
