import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.blocks import block_axes, block_name, block_shapes, block_sizes, block_sums

SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5, 1)])
def test_what_has_no_axis_or_one_is_a_single_block(shape: tuple[int, ...]) -> None:
    (total,) = block_sums(np.ones(shape))
    assert total.sum() == np.prod(shape)
    assert total.size == 1


def test_a_matrix_has_its_rows_and_its_columns() -> None:
    x = np.arange(12.0).reshape(3, 4)
    rows, columns = block_sums(x)
    assert np.array_equal(rows, x.sum(1))
    assert np.array_equal(columns, x.sum(0))


def test_one_element_axes_make_no_blocks() -> None:
    assert block_axes((3, 1, 4)) == ((2,), (0,))


def test_lines_of_a_kernel_are_blocks_where_they_have_eight_elements() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 8))
    sums = block_sums(x)
    assert [s.shape for s in sums] == [(3,), (2,), (8,), (3, 2)]
    assert np.allclose(sums[3], x.sum(2))
    assert np.allclose(sums[2], x.sum((0, 1)))


@given(SHAPES)
def test_each_family_covers_every_element_once(shape: tuple[int, ...]) -> None:
    x = np.arange(float(np.prod(shape))).reshape(shape)
    for sums, size, expected in zip(
        block_sums(x), block_sizes(shape), block_shapes(shape), strict=True
    ):
        assert np.shape(sums) == expected
        assert np.isclose(sums.sum(), x.sum())
        assert size * np.size(sums) == x.size


@given(SHAPES, st.data())
def test_a_name_selects_its_block(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    sums = block_sums(x)
    family = data.draw(st.integers(0, len(sums) - 1))
    index = data.draw(st.integers(0, np.size(sums[family]) - 1))
    name = block_name(shape, family, index)
    places = [p.strip() for p in name[1:-1].split(",") if p.strip()]
    chosen = x[tuple(slice(None) if p == ":" else int(p) for p in places)]
    assert np.isclose(chosen.sum(), np.ravel(sums[family])[index])


def test_devices_sum_the_same_blocks() -> None:
    x = np.random.default_rng(2).normal(size=(3, 9, 2)).astype(np.float32)
    for ours, theirs in zip(block_sums(x), jax.jit(block_sums)(jnp.asarray(x)), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
