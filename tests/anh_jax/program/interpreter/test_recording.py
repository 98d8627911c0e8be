import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from anh_jax.errors import ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.interpret import first_difference, read_refined, read_stored
from anh_jax.program.signature import Tensor
from tests.anh_jax.program.interpreter.written import stored_from

STEPS = 3


def looped(x, w):
    def body(carry, row):
        carry = jnp.tanh(carry @ w + row)
        return carry, jnp.sum(carry, axis=0)

    carry, sums = lax.scan(body, x[0], x)
    return {"carry": carry, "sums": sums}


@pytest.fixture(scope="module")
def stored():
    shapes = {"x": Tensor((STEPS, "b", 4), "float32"), "w": Tensor((4, 4), "float32")}
    return export_program("looped", looped, shapes)


@pytest.fixture(scope="module")
def arguments():
    random = np.random.default_rng(3)
    x = random.normal(size=(STEPS, 2, 4)).astype(np.float32)
    return x, random.normal(size=(4, 4)).astype(np.float32)


def faulty_at(iteration, operator="stablehlo.dot_general"):
    """Return a hook that makes one operator of one iteration wrong by 2^-22, relatively."""

    def around(visit, inputs, default):
        (output,) = outputs = default(*inputs)
        if visit.operation.name != operator or not visit.iterations:
            return outputs
        wrong = output * jnp.float32(1 + 2**-22)
        return (jnp.where(jnp.uint32(visit.iterations[0]) == iteration, wrong, output),)

    return around


def dot_name(program):
    names = []

    def around(visit, inputs, default):
        if visit.operation.name == "stablehlo.dot_general":
            names.append(visit.name)
        return default(*inputs)

    return around, names


@pytest.mark.parametrize("read", [read_stored, lambda s: read_refined(s, batch=2)])
@pytest.mark.parametrize("loops", ["scan", "python"])
def test_a_tiny_fault_in_one_iteration_is_found_by_name_and_iteration(
    stored, arguments, read, loops
):
    program = read(stored)
    around, names = dot_name(program)
    jax.eval_shape(lambda *a: program(*a, around=around), *arguments)
    (dot,) = set(names)
    assert ".do[*]/" in dot

    def record(hook):
        def recorded(*inputs):
            return program.record(*inputs, around=hook, loops=loops)

        return (jax.jit(recorded) if loops == "scan" else recorded)(*arguments)

    def honest(visit, inputs, default):
        return default(*inputs)

    clean = record(honest)
    assert first_difference(clean, record(honest)) is None
    found = first_difference(clean, record(faulty_at(1)))
    assert found is not None
    assert found.name == dot.replace("[*]", "[1]")
    assert not np.array_equal(found.left, found.right)


def test_both_ways_of_looping_record_the_same_values_in_the_same_order(stored, arguments):
    program = read_stored(stored)
    scanned = list(program.record(*arguments).entries())
    looped_by_python = list(program.record(*arguments, loops="python").entries())
    assert [x.name for x in scanned] == [x.name for x in looped_by_python]
    assert len({x.name for x in scanned}) == len(scanned)
    for a, b in zip(scanned, looped_by_python, strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=2e-6, atol=1e-6, err_msg=a.name)


def test_the_last_recorded_values_are_those_of_the_result(stored, arguments):
    program = read_refined(stored, batch=2)
    recording = jax.jit(program.record)(*arguments)
    assert any(
        x.value.tobytes() == np.asarray(recording.result["carry"]).tobytes()
        for x in recording.entries()
    )


def test_only_what_is_asked_for_is_recorded(stored, arguments):
    program = read_stored(stored)
    names = program.record(*arguments).names
    kept = program.record(*arguments, only=lambda name: name == names[-1])
    assert kept.names == (names[-1],)


def test_recordings_of_other_values_are_not_compared(stored, arguments):
    program = read_stored(stored)
    names = program.record(*arguments).names
    one, other = (
        program.record(*arguments, only=lambda name, n=n: name == n) for n in (names[0], names[-1])
    )
    with pytest.raises(ValueError, match="recordings of other values"):
        first_difference(one, other)


def test_every_way_of_looping_gives_the_same_result(stored, arguments):
    program = read_stored(stored)
    expected = jax.jit(looped)(*arguments)
    for loops in ("scan", "while", "python"):
        found = program(*arguments, loops=loops)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=1e-6)


def test_iterations_and_names_are_told_to_the_hook(stored, arguments):
    seen = []

    def around(visit, inputs, default):
        if visit.operation.name == "stablehlo.tanh":
            seen.append((visit.name, visit.iterations))
        return default(*inputs)

    read_stored(stored)(*arguments, around=around, loops="python")
    assert [iterations for _, iterations in seen] == [(0,), (1,), (2,)]
    assert len({name for name, _ in seen}) == 1
    assert seen[0][0].startswith("main/")


def test_a_hook_that_changes_a_shape_or_dtype_is_named(stored, arguments):
    def around(visit, inputs, default):
        return tuple(x.astype(jnp.float16) for x in default(*inputs))

    with pytest.raises(ProgramError, match=r"evaluates to float16.*the program declares float32"):
        read_stored(stored)(*arguments, around=around)


def test_a_loop_of_unknown_length_is_told_to_python_by_name_while_tracing():
    def until(x):
        return {"x": lax.while_loop(lambda v: v.sum() < 50, lambda v: v * 1.5, x)}

    program = read_stored(export_program("until", until, {"x": Tensor((4,), "float32")}))
    x = np.full(4, 0.5, np.float32)
    expected = np.asarray(until(x)["x"])
    np.testing.assert_array_equal(program(x)["x"], expected)
    np.testing.assert_array_equal(program(x, loops="python")["x"], expected)
    iterations = [e.name for e in program.record(x, loops="python").entries()]
    assert any(".do[5]/" in name for name in iterations)
    assert len(program.record(x).names) == 1
    with pytest.raises(ProgramError, match="the loop at main/.* depends on the arguments' values"):
        jax.jit(lambda v: program(v, loops="python"))(x)


def test_nested_loops_are_named_and_counted_from_the_outermost():
    def nested(x):
        def outer(carry, row):
            return lax.fori_loop(0, 2, lambda i, v: jnp.tanh(v) + row, carry), None

        return {"x": lax.scan(outer, x[0], x)[0]}

    program = read_stored(export_program("nested", nested, {"x": Tensor((STEPS, 4), "float32")}))
    x = np.random.default_rng(4).normal(size=(STEPS, 4)).astype(np.float32)
    seen = []

    def around(visit, inputs, default):
        if visit.operation.name == "stablehlo.tanh":
            seen.append((visit.name, visit.iterations))
        return default(*inputs)

    expected = jax.jit(nested)(x)["x"]
    np.testing.assert_allclose(program(x, around=around, loops="python")["x"], expected, rtol=2e-6)
    (name,) = {name for name, _ in seen}
    assert name.count(".do[*]") == 2
    assert [at for _, at in seen] == [(i, j) for i in range(STEPS) for j in range(2)]
    for loops in ("scan", "while"):
        np.testing.assert_allclose(program(x, loops=loops)["x"], expected, rtol=2e-6)
    told = [name.replace("[*]", f"[{i}]", 1).replace("[*]", f"[{j}]", 1) for _, (i, j) in seen]
    for loops in ("scan", "python"):
        entries = program.record(x, loops=loops, only=lambda other: other == name).entries()
        assert [entry.name for entry in entries] == told


def test_how_often_an_inner_loop_runs_may_depend_on_the_values():
    def halved(x):
        def outer(carry, row):
            last = lax.while_loop(lambda v: jnp.abs(v).max() > 1, lambda v: v * 0.5, row)
            return carry + last, None

        return {"x": lax.scan(outer, jnp.zeros(4), x)[0]}

    program = read_stored(export_program("halved", halved, {"x": Tensor((STEPS, 4), "float32")}))
    x = np.outer([0.5, 3, 40], np.ones(4)).astype(np.float32)
    seen = []

    def around(visit, inputs, default):
        seen.append(visit.iterations)
        return default(*inputs)

    found = program(x, around=around, loops="python")["x"]
    # 0.5 as it is, 3 halved twice, 40 six times.
    np.testing.assert_array_equal(found, np.full(4, 0.5 + 3 / 4 + 40 / 64, np.float32))
    inner = {at for at in seen if len(at) == 2}
    assert inner == {(1, j) for j in range(2)} | {(2, j) for j in range(6)}
    for loops in ("scan", "while"):
        np.testing.assert_array_equal(program(x, loops=loops)["x"], found)


@pytest.mark.parametrize(("limit", "loop"), [(127, "while"), (119, "scan")])
def test_a_counter_that_would_wrap_around_does_not_count_the_loop(limit, loop):
    body = f"""%n = stablehlo.constant dense<0> : tensor<i8>
      %i, %y = stablehlo.while(%c = %n, %v = %x) : tensor<i8>, tensor<4xf32>
        cond {{
          %z = stablehlo.constant dense<{limit}> : tensor<i8>
          %g = stablehlo.compare LT, %c, %z : (tensor<i8>, tensor<i8>) -> tensor<i1>
          stablehlo.return %g : tensor<i1>
        }} do {{
          %s = stablehlo.constant dense<20> : tensor<i8>
          %d = stablehlo.add %c, %s : tensor<i8>
          %w = stablehlo.sine %v : tensor<4xf32>
          stablehlo.return %d, %w : tensor<i8>, tensor<4xf32>
        }}"""
    program = read_stored(stored_from(body))
    names = {e.primitive.name for e in jax.make_jaxpr(program)(np.ones(4, np.float32)).eqns}
    assert names & {"while", "scan"} == {loop}
