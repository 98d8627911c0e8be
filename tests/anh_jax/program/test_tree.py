import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.errors import ProgramError
from anh_jax.program.tree import empty_nodes, from_leaves, leaves_of, path_text, subtree

KEYS = st.text(st.characters(codec="ascii", exclude_characters="/"), min_size=1, max_size=3)
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=4))


@given(TREES)
def test_leaves_come_in_the_order_in_which_jax_flattens(tree):
    assert list(leaves_of(tree).values()) == jax.tree.leaves(tree)


@given(TREES)
def test_leaves_and_empty_nodes_give_the_tree_back(tree):
    assert from_leaves(leaves_of(tree), empty_nodes(tree)) == tree


def test_empty_dicts_are_kept():
    tree = {"a": {}, "b": {"c": 1, "d": {}}}
    assert empty_nodes(tree) == [("a",), ("b", "d")]
    assert from_leaves(leaves_of(tree), empty_nodes(tree)) == tree


@pytest.mark.parametrize("key", [0, "", "a/b", None])
def test_a_key_that_is_not_text_free_of_slashes_is_refused(key):
    with pytest.raises(ProgramError, match="text without slashes"):
        leaves_of({"outer": {key: np.zeros(2)}})


@pytest.mark.parametrize("node", [[1, 2], (1, 2), None])
def test_containers_other_than_dicts_are_refused(node):
    with pytest.raises(ProgramError, match="a/b: a .* is neither a dict nor an array"):
        leaves_of({"a": {"b": node}})


def test_a_missing_entry_is_named():
    assert subtree({"a": {"b": 3}}, ("a", "b")) == 3
    with pytest.raises(ProgramError, match="a/c: no such entry"):
        subtree({"a": {"b": 3}}, ("a", "c", "d"))
    assert path_text(("a", "c")) == "a/c"
