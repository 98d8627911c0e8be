"""Trees of named leaves: nested dicts with text keys, the only containers a program sees.

A path is a tuple of keys. Paths sorted as tuples are exactly the order in which jax flattens nested
dicts, so one order serves the compiled function, the signature and the digest.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from anh_jax.errors import ProgramError

Path: TypeAlias = tuple[str, ...]
Tree: TypeAlias = Any


def path_text(path: Path) -> str:
    """Return the path as keys joined by slashes."""
    return "/".join(path)


def leaves_of(tree: Tree, prefix: Path = ()) -> dict[Path, Any]:
    """Return the leaves of `tree` by path, in flattening order.

    Raises:
        ProgramError: a container is not a dict, or a key is not text free of slashes.
    """
    if not isinstance(tree, Mapping):
        _check_leaf(tree, prefix)
        return {prefix: tree}
    found: dict[Path, Any] = {}
    for key, child in _sorted_items(cast(Mapping[Any, Any], tree), prefix):
        found.update(leaves_of(child, (*prefix, key)))
    return found


def empty_nodes(tree: Tree, prefix: Path = ()) -> list[Path]:
    """Return the paths of the dicts without any entry, in flattening order."""
    if not isinstance(tree, Mapping):
        return []
    items = _sorted_items(cast(Mapping[Any, Any], tree), prefix)
    if not items:
        return [prefix]
    return [path for key, child in items for path in empty_nodes(child, (*prefix, key))]


def from_leaves(leaves: Mapping[Path, Any], empty: Iterable[Path] = ()) -> Tree:
    """Rebuild the tree that has these leaves and these empty dicts."""
    if () in leaves:
        return leaves[()]
    root: dict[str, Any] = {}
    for path, leaf in leaves.items():
        _node(root, path[:-1])[path[-1]] = leaf
    for path in empty:
        _node(root, path)
    return root


def subtree(tree: Tree, path: Path) -> Tree:
    """Return the part of `tree` below `path`.

    Raises:
        ProgramError: there is nothing there.
    """
    node = tree
    for depth, key in enumerate(path):
        if not isinstance(node, Mapping) or key not in node:
            raise ProgramError(f"{path_text(path[: depth + 1])}: no such entry in the tree")
        node = cast(Mapping[str, Any], node)[key]
    return node


def _node(root: dict[str, Any], path: Path) -> dict[str, Any]:
    node = root
    for key in path:
        node = node.setdefault(key, {})
    return node


def _sorted_items(tree: Mapping[Any, Any], prefix: Path) -> list[tuple[str, Any]]:
    for key in tree:
        if not isinstance(key, str) or not key or "/" in key:
            raise ProgramError(
                f"{path_text(prefix) or 'tree'}: key {key!r} is not text without slashes;"
                " name every entry of a program's trees by such text"
            )
    return sorted(cast(Mapping[str, Any], tree).items())


def _check_leaf(leaf: Any, path: Path) -> None:
    if leaf is None or isinstance(leaf, (list, tuple)):
        raise ProgramError(
            f"{path_text(path) or 'tree'}: a {type(leaf).__name__} is neither a dict nor an array;"
            " use dicts with text keys"
        )
