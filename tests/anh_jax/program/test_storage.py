import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anh_jax.errors import ProgramError
from anh_jax.program.storage import read_program, save_program


def test_a_program_lies_in_files_of_its_name(mlp_programs, tmp_path):
    stored = mlp_programs.stored["update"]
    save_program(stored, tmp_path / "programs")
    names = sorted(path.name for path in (tmp_path / "programs").iterdir())
    assert names == ["update.json", "update.named.stablehlo", "update.stablehlo"]
    assert read_program(tmp_path / "programs", "update", id=stored.id) == stored


def test_without_a_named_copy_the_program_is_the_same(mlp_programs, tmp_path):
    stored = mlp_programs.stored["update"]
    save_program(dataclasses.replace(stored, named=None), tmp_path)
    assert read_program(tmp_path, "update", id=stored.id).id == stored.id


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_one_flipped_bit_in_either_file_is_refused(mlp_programs, tmp_path, data):
    stored = mlp_programs.stored["scalars"]
    if not (tmp_path / "scalars.json").exists():
        save_program(dataclasses.replace(stored, named=None), tmp_path)
    path = tmp_path / data.draw(st.sampled_from(["scalars.json", "scalars.stablehlo"]))
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(flipped))
    try:
        with pytest.raises(ProgramError):
            read_program(tmp_path, "scalars", id=stored.id)
    finally:
        path.write_bytes(good)


def test_another_program_is_not_overwritten(mlp_programs, tmp_path):
    stored = mlp_programs.stored["update"]
    save_program(stored, tmp_path)
    with pytest.raises(ProgramError, match="holds other content"):
        save_program(dataclasses.replace(stored, artifact=b"other"), tmp_path)


def test_a_directory_that_cannot_be_made_is_one_line(mlp_programs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match="program update: cannot be written"):
        save_program(mlp_programs.stored["update"], tmp_path / "file" / "programs")
