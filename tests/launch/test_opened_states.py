"""`anh digest` and `anh open` on real states, and `anh verify` on what they open."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from anh_jax.program.signature import Leaf, ProgramSignature, StoredProgram
from anh_jax.program.storage import save_program
from anh_jax.program.tensors import dtype_name
from anh_jax.program.tree import leaves_of
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from attest import canonical
from attest.errors import FormatError, RefusedError
from attest.merkle import inclusion_path, leaf_hash, tree_root
from attest.opening import Opening
from attest.statements import Final, Genesis, Line, Row, decode_statement
from launch.cli import run
from launch.commands.open import tile_index
from launch.errors import CommandError
from launch.opened_tile import OpenedTile

KEPT = 8


def state_after(step: int) -> dict[str, Any]:
    kernel = jax.random.normal(jax.random.key(step), (96, 96), jnp.float32)
    return {
        "key": jax.random.key(7),
        "step": jnp.uint32(step),
        "parameters": {"out": {"kernel": kernel, "bias": jnp.zeros(96, jnp.float32)}},
        "optimizer": {"m": kernel * 0.5},
    }


def init_program(state: dict[str, Any]) -> StoredProgram:
    outputs = tuple(
        Leaf(path, tuple(leaf.shape), dtype_name(leaf.dtype), ((),) * leaf.ndim)
        for path, leaf in leaves_of(state).items()
    )
    signature = ProgramSignature(
        name="init",
        stablehlo="1.8.0",
        arguments=("seed",),
        inputs=(Leaf(("seed",), (2,), "uint32", ((),)),),
        outputs=outputs,
    )
    return StoredProgram(b"ML\xefR", signature)


@pytest.fixture
def opened(maker, key_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a proven run that retains the state after step 8 and committed that of 0, 8 and 12."""
    states = {step: state_after(step) for step in (0, KEPT, 12)}
    roots = {s: tree_digest(state, step=s).root.hex() for s, state in states.items()}
    program = init_program(states[0])
    made = maker("opened", init_id=program.id, state_roots=roots)
    save_program(program, made.root / "programs")
    keep(made, KEPT, states[KEPT])
    made.ship()
    monkeypatch.chdir(tmp_path)
    return made


def keep(made, step: int, state: dict[str, Any]) -> None:
    checkpoints = TrainingCheckpoints(made.root / "checkpoints", keep=9)
    checkpoints.save(step, state, Position(row="0" * 64, record="0" * 64))
    checkpoints.close()


def open_kernel(made, *, tile: str = "1", step: int = KEPT) -> Path:
    path = made.root.parent / f"opening-{step}-{tile}.json"
    arguments = ["--step", str(step), "--tensor", "parameters/out/kernel", "--tile", tile]
    assert run(["open", str(made.root), *arguments, "-o", str(path)]) == 0
    return path


def verify(made, path: Path) -> int:
    root = made.root
    arguments = ["--policy", str(root / "policy.toml"), "--proof", str(root / "run.proof")]
    return run(["verify", str(path), *arguments])


def test_retained_state_is_digested_again_and_agrees(
    opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["digest", str(opened.root), "--step", str(KEPT), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] is True
    assert found["stateRoot"] == found["retained"] == opened.rows[KEPT - 1].state_root


def test_state_that_is_not_retained_is_only_quoted(
    opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["digest", str(opened.root), "--step", "3"]) == 0
    shown = capsys.readouterr().out
    assert opened.rows[2].state_root in shown and "no training checkpoint" in shown
    assert run(["digest", str(opened.root), "--step", "0"]) == 0


def test_retained_state_that_was_changed_fails(opened, capsys: pytest.CaptureFixture[str]) -> None:
    changed = state_after(KEPT)
    changed["parameters"]["out"]["bias"] = changed["parameters"]["out"]["bias"].at[3].set(1e-30)
    keep(opened, 9, changed)
    (opened.root / "checkpoints" / f"step_{KEPT}").rename(opened.root / "checkpoints" / "gone")
    (opened.root / "checkpoints" / "step_9").rename(opened.root / "checkpoints" / f"step_{KEPT}")
    assert run(["digest", str(opened.root), "--step", str(KEPT)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
    arguments = ["--step", str(KEPT), "--tensor", "parameters/out/bias", "--tile", "0"]
    assert run(["open", str(opened.root), *arguments]) == 1
    assert "not the one signed" in capsys.readouterr().err


def test_opened_tile_verifies_against_the_run_proof(
    opened, capsys: pytest.CaptureFixture[str]
) -> None:
    path = open_kernel(opened)
    assert verify(opened, path) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("tile ") and "parameters/out/kernel" in first
    assert f"after step {KEPT}" in first
    assert run(["inspect", str(path)]) == 0
    assert "parameters/out/kernel" in capsys.readouterr().out


@pytest.mark.parametrize("step", [0, 12])
def test_first_and_last_states_open_too(
    step: int, opened, capsys: pytest.CaptureFixture[str]
) -> None:
    # Orbax keeps no step older than its newest, so the retained one makes room.
    (opened.root / "checkpoints" / f"step_{KEPT}").rename(opened.root / "checkpoints" / "gone")
    keep(opened, step, state_after(step))
    assert verify(opened, open_kernel(opened, step=step)) == 0


def changed_bytes(path: Path, change) -> None:
    value: Any = canonical.decode(path.read_bytes(), max_bytes=1 << 24)
    change(value)
    path.write_bytes(canonical.encode(value))


def flip_tile(value: Any) -> None:
    tile = value["opening"]["tile"]
    value["opening"]["tile"] = ("B" if tile[0] != "B" else "C") + tile[1:]


def other_state(value: Any) -> None:
    value["row"]["stateRoot"] = "ab" * 32


def other_step(value: Any) -> None:
    value["opening"]["step"] = value["row"]["step"] = KEPT - 1


def other_run(value: Any) -> None:
    value["run"] = value["row"]["run"] = "cd" * 32


def without_row(value: Any) -> None:
    value["row"], value["line"] = None, []


def short_line(value: Any) -> None:
    value["line"].pop()


def step_past_the_end(value: Any) -> None:
    value["opening"]["step"] = value["row"]["step"] = 99


@pytest.mark.parametrize(
    "change",
    [flip_tile, other_state, other_step, other_run, without_row, short_line, step_past_the_end],
)
def test_opened_tile_with_one_changed_part_is_refused(
    change, opened, capsys: pytest.CaptureFixture[str]
) -> None:
    path = open_kernel(opened)
    changed_bytes(path, change)
    capsys.readouterr()
    assert verify(opened, path) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


# What a trainer may try who signs the line: it holds whatever rows the trainer put there.


def judged(opened, tile: OpenedTile, rows: list[Row]) -> None:
    """Verify a tile against a final record whose line is made of `rows`."""
    hashes = [leaf_hash(bytes.fromhex(opened.run_id)), *(leaf_hash(row.hash()) for row in rows)]
    step = tile.opening.step
    path = tuple(inclusion_path(step, len(hashes), hashes)) if tile.row is not None else tile.line
    genesis = decode_statement(opened.statement("genesis").payload)
    final = decode_statement(opened.statement("final").payload)
    assert isinstance(genesis, Genesis) and isinstance(final, Final)
    final = dataclasses.replace(final, line=Line(len(hashes), tree_root(hashes).hex()))
    tile = dataclasses.replace(tile, line=path)
    tile.verify(run=opened.run_id, genesis=genesis, final=final)


def tile_of(opened, step: int = KEPT) -> OpenedTile:
    return OpenedTile.from_bytes(open_kernel(opened, step=step).read_bytes())


def test_line_of_the_run_s_own_rows_is_accepted(opened) -> None:
    judged(opened, tile_of(opened), opened.rows)


def test_state_that_the_row_skips_cannot_be_opened_into(opened) -> None:
    tile = tile_of(opened)
    rows = [*opened.rows]
    rows[KEPT - 1] = dataclasses.replace(rows[KEPT - 1], state_root=None)
    with pytest.raises(RefusedError, match="another state"):
        judged(opened, dataclasses.replace(tile, row=rows[KEPT - 1]), rows)


def test_row_of_another_step_or_run_in_the_line_is_refused(opened) -> None:
    tile = tile_of(opened)
    for change in ({"step": KEPT + 1}, {"run": "ab" * 32}):
        rows = [*opened.rows]
        rows[KEPT - 1] = dataclasses.replace(rows[KEPT - 1], **change)
        with pytest.raises(RefusedError, match="another state"):
            judged(opened, dataclasses.replace(tile, row=rows[KEPT - 1]), rows)


def test_row_that_is_not_on_the_line_is_refused(opened) -> None:
    """A state of one's own, digested and opened well, in a row that was never committed."""
    forged = state_after(99)
    digest = tree_digest(forged, step=KEPT)
    data = open_tile(forged, digest, path=("optimizer", "m"), index=(0, 0))
    row = dataclasses.replace(opened.rows[KEPT - 1], state_root=digest.root.hex())
    tile = dataclasses.replace(tile_of(opened), row=row, opening=Opening.from_bytes(data))
    with pytest.raises(RefusedError, match="not on the run's line"):
        judged(opened, tile, opened.rows)


def first_tile(opened) -> OpenedTile:
    (opened.root / "checkpoints" / f"step_{KEPT}").rename(opened.root / "checkpoints" / "gone")
    keep(opened, 0, state_after(0))
    return tile_of(opened, 0)


def test_state_zero_belongs_to_one_run_though_others_share_it(opened) -> None:
    tile = first_tile(opened)
    judged(opened, tile, opened.rows)
    with pytest.raises(RefusedError, match="another run"):
        judged(opened, dataclasses.replace(tile, run="ab" * 32), opened.rows)


def test_state_zero_takes_no_path(opened) -> None:
    tile = dataclasses.replace(first_tile(opened), line=(bytes(32),))
    with pytest.raises(RefusedError, match="without its row"):
        judged(opened, tile, opened.rows)


def test_tile_without_its_proof_is_not_judged(opened, capsys: pytest.CaptureFixture[str]) -> None:
    path = open_kernel(opened)
    assert run(["verify", str(path), "--policy", str(opened.root / "policy.toml")]) == 2
    assert "--proof" in capsys.readouterr().err


def test_opened_file_has_one_spelling(opened) -> None:
    data = open_kernel(opened).read_bytes()
    assert OpenedTile.from_bytes(data).to_bytes() == data
    for broken in (data + b" ", data[:-1], b"{}", b"[]", data.replace(b'"row"', b'"raw"')):
        with pytest.raises(FormatError):
            OpenedTile.from_bytes(broken)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--step", "3", "--tensor", "step", "--tile", "0"], "no training checkpoint of step 3"),
        (["--step", "8", "--tensor", "parameters/out/kernl", "--tile", "0"], "did you mean"),
        (["--step", "8", "--tensor", "parameters/out/kernel", "--tile", "999"], "outside the grid"),
        (["--step", "8", "--tensor", "parameters/out/kernel", "--tile", "a"], "--tile a"),
        (["--step", "99", "--tensor", "step", "--tile", "0"], "steps 0 to 12"),
    ],
)
def test_what_cannot_be_opened_is_named(
    options: list[str], words: str, opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["open", str(opened.root), *options]) == 2
    assert words in capsys.readouterr().err


def test_unfinished_run_opens_nothing(opened, capsys: pytest.CaptureFixture[str]) -> None:
    (opened.root / "statements" / "final.json").unlink()
    arguments = ["--step", str(KEPT), "--tensor", "step", "--tile", "0"]
    assert run(["open", str(opened.root), *arguments]) == 2
    assert "not final" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, grid, index",
    [
        ("0", (), ()),
        ("0", (4,), (0,)),
        ("3", (4,), (3,)),
        ("5", (2, 3), (1, 2)),
        ("1,2", (2, 3), (1, 2)),
        ("7", (2, 2, 2), (1, 1, 1)),
    ],
)
def test_tile_numbers_count_row_by_row(
    text: str, grid: tuple[int, ...], index: tuple[int, ...]
) -> None:
    assert tile_index(text, grid) == index


@pytest.mark.parametrize(
    "text, grid", [("1", ()), ("4", (4,)), ("6", (2, 3)), ("1,3", (2, 3)), ("1,1,1", (2, 3)),
                   ("-1", (4,)), ("", (4,))]
)  # fmt: skip
def test_tile_outside_the_grid_is_refused(text: str, grid: tuple[int, ...]) -> None:
    with pytest.raises(CommandError, match="--tile"):
        tile_index(text, grid)
