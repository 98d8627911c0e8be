"""Proofs about examples: the true ones hold, and each way to cheat is refused by name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from anh_jax.data.manifest import Manifest, batch_root, build_manifest
from anh_jax.data.membership import (
    BatchOpening,
    ExampleTree,
    Inclusion,
    Order,
    open_batch,
    prove_in_step,
    verify_batch,
    verify_example,
    verify_example_in_step,
    verify_step_root,
)
from anh_jax.errors import DataError, RefutedError
from attest import merkle

Arrays = dict[str, np.ndarray]

ORDER = Order(seed=4, batch_size=8, examples=37)
STEP = 6  # positions 40 to 47: the second epoch
BATCH = ORDER.step(STEP).tolist()


def one(arrays: Arrays, index: int) -> Arrays:
    return {name: array[index] for name, array in arrays.items()}


def opened(arrays: Arrays, manifest: Manifest) -> BatchOpening:
    return open_batch(ExampleTree.of(manifest), arrays, ORDER.step(STEP))


def committed(manifest: Manifest) -> bytes:
    return batch_root(manifest.leaf_hashes, ORDER.step(STEP))


def check(opening: BatchOpening, manifest: Manifest, *, step_root: bytes | None = None) -> None:
    root = committed(manifest) if step_root is None else step_root
    verify_batch(opening, ORDER, step=STEP, data_root=manifest.root, step_root=root)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 37])
def test_paths_are_those_of_rfc_6962(arrays: Arrays, size: int) -> None:
    manifest = build_manifest({name: array[:size] for name, array in arrays.items()})
    leaves = [row.tobytes() for row in manifest.leaf_hashes]
    tree = ExampleTree.of(manifest)
    for index in range(size):
        assert list(tree.inclusion(index).path) == merkle.inclusion_path(index, size, leaves)


def test_example_is_provably_in_the_data_set(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    place = ExampleTree.of(manifest).inclusion(11)
    verify_example(one(arrays, 11), place, root=manifest.root, size=37)
    with pytest.raises(RefutedError, match="example 11: not the example that the root commits"):
        verify_example(one(arrays, 12), place, root=manifest.root, size=37)
    with pytest.raises(RefutedError, match="path is for 37 leaves, the tree has 36"):
        verify_example(one(arrays, 11), place, root=manifest.root, size=36)
    with pytest.raises(RefutedError, match="example 10: not the example"):
        verify_example(one(arrays, 11), replace(place, index=10), root=manifest.root, size=37)
    with pytest.raises(RefutedError, match="path is shorter"):
        short = replace(place, path=place.path[:-1])
        verify_example(one(arrays, 11), short, root=manifest.root, size=37)
    with pytest.raises(RefutedError, match="dtype float64"):
        wide = {**one(arrays, 11), "image": arrays["image"][11].astype(np.float64)}
        verify_example(wide, place, root=manifest.root, size=37)


def test_example_is_provably_in_a_step(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    place = prove_in_step(manifest, ORDER, step=STEP, position=3)
    example, root = one(arrays, int(ORDER.step(STEP)[3])), committed(manifest)
    verify_example_in_step(example, place, batch_root=root, batch_size=8)
    with pytest.raises(RefutedError, match="row 3 of the batch: not the example"):
        other = one(arrays, int(ORDER.step(STEP)[4]))
        verify_example_in_step(other, place, batch_root=root, batch_size=8)
    with pytest.raises(RefutedError, match="path is for 8 leaves, the tree has 9"):
        verify_example_in_step(example, place, batch_root=root, batch_size=9)
    with pytest.raises(DataError, match="holds examples 0 to 7"):
        prove_in_step(manifest, ORDER, step=STEP, position=8)


def test_honest_batch_is_accepted(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    check(opened(arrays, manifest), manifest)
    verify_step_root(manifest, ORDER, step=STEP, step_root=committed(manifest))


def one_byte(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    image = opening.examples["image"].copy()
    image.view(np.uint8)[5, 0, 0] ^= 1
    return replace(opening, examples={**opening.examples, "image": image})


def rearranged(opening: BatchOpening, rows: list[int]) -> BatchOpening:
    examples = {name: array[rows] for name, array in opening.examples.items()}
    return BatchOpening(examples, tuple(opening.places[row] for row in rows))


def one_swap(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    return rearranged(opening, [0, 1, 2, 4, 3, 5, 6, 7])


def one_duplicate(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    return rearranged(opening, [0, 1, 2, 2, 4, 5, 6, 7])


def one_foreign(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    image = opening.examples["image"].copy()
    image[2] = 0.25
    return replace(opening, examples={**opening.examples, "image": image})


def one_missing(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    return rearranged(opening, [0, 1, 2, 3, 4, 5, 6])


def one_extra_array(opening: BatchOpening, arrays: Arrays) -> BatchOpening:
    extra = np.zeros(8, dtype=np.float32)
    return replace(opening, examples={**opening.examples, "extra": extra})


CHEATS = [
    (one_byte, f"row 5, example {BATCH[5]}: not the example that the root commits"),
    (one_swap, f"row 3 holds example {BATCH[4]}, the order puts example {BATCH[3]} there"),
    (one_duplicate, f"row 3 holds example {BATCH[2]}, the order puts example {BATCH[3]} there"),
    (one_foreign, f"row 2, example {BATCH[2]}: not the example that the root commits"),
    (one_missing, "7 examples with 7 places opened, the batch has 8"),
    (one_extra_array, f"row 0, example {BATCH[0]}: not the example that the root commits"),
]


@pytest.mark.parametrize(("cheat", "message"), CHEATS, ids=[c.__name__ for c, _ in CHEATS])
def test_tampered_batch_is_refused(
    cheat: Callable[[BatchOpening, Arrays], BatchOpening], message: str, arrays: Arrays
) -> None:
    manifest = build_manifest(arrays)
    with pytest.raises(RefutedError, match=message) as caught:
        check(cheat(opened(arrays, manifest), arrays), manifest)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "rows", [[0, 1, 2, 4, 3, 5, 6, 7], [0, 1, 2, 2, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6]]
)
def test_committed_root_of_another_batch_is_refused(arrays: Arrays, rows: list[int]) -> None:
    manifest = build_manifest(arrays)
    root = batch_root(manifest.leaf_hashes, ORDER.step(STEP)[rows])
    with pytest.raises(RefutedError, match="batch root in the row"):
        check(opened(arrays, manifest), manifest, step_root=root)
    with pytest.raises(RefutedError, match="batch root in the row"):
        verify_step_root(manifest, ORDER, step=STEP, step_root=root)


def test_data_changed_before_the_run_does_not_lead_to_the_contract_root(arrays: Arrays) -> None:
    honest = build_manifest(arrays)
    poisoned = {**arrays, "label": (arrays["label"] + 1) % 10}
    manifest = build_manifest(poisoned)
    with pytest.raises(RefutedError, match="not the example that the root commits"):
        verify_batch(
            opened(poisoned, manifest),
            ORDER,
            step=STEP,
            data_root=honest.root,
            step_root=committed(manifest),
        )


def test_place_past_the_tree_is_refused_and_not_followed(arrays: Arrays) -> None:
    manifest = build_manifest(arrays)
    for place in (Inclusion(37, 37, ()), Inclusion(-1, 37, ()), Inclusion(0, 37, (b"short",))):
        with pytest.raises(RefutedError):
            verify_example(one(arrays, 0), place, root=manifest.root, size=37)
    with pytest.raises(DataError, match="the tree holds examples 0 to 36"):
        ExampleTree.of(manifest).inclusion(37)
