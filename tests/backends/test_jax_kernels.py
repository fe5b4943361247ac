"""The kernel library in JAX's programs: where it is called and where the formula is; both hold."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from acon_core import kernels, spec
from acon_core.reference.core import Context, evaluate

pytestmark = [pytest.mark.backend("jax"), pytest.mark.skipif(kernels.library() is None, reason=kernels.status())]

CALL = "custom_call @acon_kernels"
# The unit of rounding of the arithmetic, that of the dtype of x, and its spacing of denormals.
UNITS = {
    "float32": (2**-24, 2**-24, 0.0),
    "float64": (2**-53, 2**-53, 0.0),
    "bfloat16": (2**-24, 2**-8, 0.0),
    "float16": (2**-24, 2**-11, 2**-24),
}
# The shape of x with its channels at axis 1, as the reference has them, and where JAX gets them.
LAYOUTS = {"last": ((2, 5, 3, 4), -1), "first": ((2, 5, 3, 4), 1), "tokens": ((3, 6, 7), -1), "features": ((7, 3), -1)}
# The function, its node, and each gate: the name of a shape, or a number.
FUNCTIONS: dict[str, tuple[str, spec.Node, tuple[Any, ...]]] = {
    "acon": ("acon", spec.Acon(), ("C", "C", "C")),
    "meta": ("acon", spec.Acon(), ("C", "1C", "NC")),
    "sample": ("acon", spec.Acon(), ("C", "1", "N1")),
    "pixel": ("acon", spec.Acon(), ("C", "C", "x")),
    "fixed": ("acon", spec.Acon(p1=1.25, p2=-0.5), (1.25, -0.5, "C")),
    "prelu": ("prelu", spec.PReLUFunction(), ("C",)),
    "arelu": ("arelu", spec.AReLUFunction(), ("1", "1")),
    "repact": ("repact", spec.RepActFunction(shift=True), ("C", "1", "C", "C")),
    "no shift": ("repact", spec.RepActFunction(), ("1", "1", "1")),
    "two lines": ("dynamic_maximum", spec.DynamicMaximum(), ("theta", "four", "four")),
}


def shape_of(kind: str, x: tuple[int, ...]) -> tuple[int, ...]:
    n, c, ones = x[0], x[1], (1,) * (len(x) - 2)
    shapes = {"1": (1,), "C": (c,), "1C": (1, c, *ones), "N1": (n, 1, *ones), "NC": (n, c, *ones), "x": x}
    return {**shapes, "theta": (n, 4 * c), "four": (4,)}[kind]


def moved(array: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """Move the channels of an array of the rank of x to the axis at which JAX gets them."""
    return np.moveaxis(array, 1, axis) if array.ndim == x.ndim else array


def plain(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Compute ACON-C by operations, which JAX differentiates."""
    import jax

    return (p1 - p2) * x * jax.nn.sigmoid(beta * (p1 - p2) * x) + p2 * x


def arrays(shape: tuple[int, ...] = (3, 4, 2, 5), dtype: str = "float32") -> list[Any]:
    """Return x and three gates (C,), C being the last size."""
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    return [jnp.asarray(draw(random, each, dtype, 2.0)) for each in (shape, *(shape[-1:] for _ in range(3)))]


def text(function: Any, *arguments: Any, **options: Any) -> str:
    import jax

    return str(jax.jit(function, **options).lower(*arguments).as_text())


def draw(random: np.random.Generator, shape: tuple[int, ...], dtype: str, width: float = 4.0) -> np.ndarray:
    import jax.numpy as jnp

    return np.asarray(random.uniform(-width, width, shape)).astype(jnp.dtype(dtype))


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [*((layout, "float32") for layout in LAYOUTS), ("last", "float64"), ("first", "bfloat16"), ("tokens", "float16")],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name: str, layout: str, dtype: str) -> None:
    import jax
    from acon_jax import functional

    function, node, kinds = FUNCTIONS[name]
    shape, axis = LAYOUTS[layout]
    random = np.random.default_rng(3)
    x, g = draw(random, shape, dtype), draw(random, shape, dtype)
    gate_dtype = "float64" if dtype == "float64" else "float32"
    gates = [
        draw(
            random,
            shape_of(kind, shape),
            dtype if kind == "x" and len(shape) > 2 else gate_dtype,
            1.0 if kind == "theta" else 4.0,
        )
        for kind in kinds
        if isinstance(kind, str)
    ]

    def call(x: Any, *gates: Any) -> Any:
        rest = iter(gates)
        used = [next(rest) if isinstance(kind, str) else kind for kind in kinds]
        return getattr(functional, function)(x, *used, channel_axis=axis)

    def value_and_gradients(g: Any, *arguments: Any) -> Any:
        y, pull = jax.vjp(call, *arguments)
        return y, *pull(g)

    with jax.enable_x64(True):
        native = [jax.numpy.asarray(moved(array, x, axis)) for array in (g, x, *gates)]
        lowered = jax.jit(value_and_gradients).lower(*native)
        assert lowered.as_text().count(CALL) == 2
        by_library = lowered.compile()(*native)
        if dtype == "float32":  # an exported program is the formula
            by_formula = jax.export.export(jax.jit(value_and_gradients))(*native).call(*native)
    (y,), vjp = evaluate(node, Context({}, True), *(array.astype(np.float64) for array in (x, *gates)))
    expected = vjp((g.astype(np.float64),))
    unit, rounding, spacing = UNITS[dtype]
    wanted = [(y, np.abs(y) + 8 * np.abs(x) + 8), *zip(expected.inputs, expected.input_scales, strict=True)]
    learned = 3 if function == "dynamic_maximum" else len(wanted)  # the others are constants
    for found in (by_library, by_formula) if dtype == "float32" else (by_library,):
        results = list(zip((x, x, *gates), found, wanted, strict=True))
        for position, (like, array, (want, scale)) in enumerate(results[:learned]):
            assert array.dtype == like.dtype
            # The bounds of docs/figures.md; a result of 16 bits is rounded once.
            allowed = (8 if position < 2 else 64) * unit * np.abs(scale)
            if like.dtype == x.dtype:
                allowed = allowed * (1 + rounding) + rounding * np.abs(want) + spacing
            assert (np.abs(np.asarray(array, np.float64) - moved(want, x, axis)) <= moved(allowed, x, axis)).all()


def test_higher_derivatives() -> None:
    """The gradient's own derivatives are those of the formula; the gradient stays a call."""
    import jax
    from acon_jax import acon

    with jax.enable_x64(True):
        x, *gates = arrays((2, 3), "float64")

        def loss(function: Any) -> Any:
            return lambda beta: (function(x, *gates[:2], beta) ** 2).sum()

        def twice(scalar: Any) -> Any:
            return jax.grad(lambda beta: (jax.grad(scalar)(beta) ** 2).sum())

        for derived in (jax.hessian, twice):
            assert CALL in text(derived(loss(acon)), gates[2])
            expected = jax.jit(derived(loss(plain)))(gates[2])
            np.testing.assert_allclose(jax.jit(derived(loss(acon)))(gates[2]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mapped", [(0, None, None, None), (None, 0, 1, None), (2, None, None, 0)])
def test_vmap_is_one_call(mapped: tuple[int | None, ...]) -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import acon

    arguments = [
        array if axis is None else jnp.stack([array, 2 * array, array - 1], axis)
        for array, axis in zip(arrays(), mapped, strict=True)
    ]

    def gradients(function: Any) -> Any:
        return jax.vmap(jax.grad(lambda *each: (function(*each) ** 2).sum(), (0, 1, 2, 3)), in_axes=mapped)

    assert text(gradients(acon), *arguments).count(CALL) == 2
    for ours, theirs in zip(jax.jit(gradients(acon))(*arguments), jax.jit(gradients(plain))(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())


def test_calls_that_the_library_does_not_serve_are_the_formula() -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import acon

    x, *gates = arrays()
    image, wide = jnp.moveaxis(x, -1, 1), jnp.stack([gates[0], gates[0] + 1, gates[0] * 2])
    with jax.enable_x64(True):
        cases = {
            "gates of float64": (acon, x, [gate.astype("float64") for gate in gates]),
            "a first gate as large as x": (acon, x, [x + 1, *gates[1:]]),
            "the last gate in another dtype": (acon, x.astype("bfloat16"), [*gates[:2], x]),
            "no batch": (acon, x[0, 0, 0], gates),
            "one number": (acon, x[0, 0, 0, 0], [gate[0] for gate in gates]),
            "four sizes": (jax.vmap(lambda x, *g: acon(x, *g, channel_axis=1)), jnp.stack([image] * 3), [wide] * 3),
        }
        for name, (function, x, gates) in cases.items():
            assert CALL not in text(lambda *each, f=function: jax.vjp(f, *each)[1](each[0]), x, *gates), name
            reference = plain(x, *gates) if name != "four sizes" else jax.vmap(
                lambda x, *g: plain(x, *(gate[:, None, None] for gate in g)))(x, *gates)  # fmt: skip
            np.testing.assert_allclose(
                np.asarray(function(x, *gates), float), np.asarray(reference, float), rtol=2e-2, atol=2e-2
            )
    with jax.disable_jit():
        np.testing.assert_allclose(acon(*arrays()), plain(*arrays()), rtol=1e-5, atol=1e-6)


def test_another_platform_gets_the_formula_from_the_same_program() -> None:
    import jax
    from acon_jax import acon

    traced = jax.jit(acon).trace(*arrays())
    assert CALL in traced.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("cuda", "tpu"):
        lowered = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "custom_call" not in lowered
        assert "stablehlo.multiply" in lowered


def test_exported_programs_are_plain_operations() -> None:
    import jax
    from acon_jax import acon

    x, *gates = arrays()
    function = jax.jit(jax.value_and_grad(lambda *each: (acon(*each) ** 2).sum()))
    value, gradient = function(x, *gates)  # compiled with a call before the export
    (n,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(function)(jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), *gates)
    assert "acon_kernels" not in exported.mlir_module()
    found = jax.export.deserialize(exported.serialize()).call(x, *gates)
    np.testing.assert_allclose(found[0], value, rtol=1e-6)
    np.testing.assert_allclose(found[1], gradient, rtol=1e-5, atol=1e-6)
    assert CALL in text(lambda *each: acon(*each), x, *gates)


def test_donated_memory() -> None:
    import jax
    from acon_jax import acon

    x, *gates = arrays()
    expected = np.asarray(plain(x, *gates))
    compiled = jax.jit(acon, donate_argnums=0).lower(x, *gates).compile()
    y = compiled(x, *gates)
    assert x.is_deleted()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_calls_on_all_threads_at_once() -> None:
    """More callers than XLA has threads; each shares its work, and none waits for ever."""
    import jax
    from acon_jax import acon

    x, *gates = arrays((4, 64, 64, 32))
    function = jax.jit(jax.grad(lambda *each: (acon(*each) ** 2).sum(), (0, 1, 2, 3)))
    expected = [np.asarray(each) for each in function(x, *gates)]
    np.testing.assert_allclose(expected[3], jax.grad(lambda b: (plain(x, *gates[:2], b) ** 2).sum())(gates[2]), rtol=1e-4)
    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(lambda _: [np.asarray(each) for each in function(x, *gates)], range(64)):
            for ours, first in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, first)


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from acon_jax import acon
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
random = np.random.default_rng(0)
x = jnp.asarray(random.normal(size=(4, 6, 5)), "float32")
gates = [jnp.asarray(random.normal(size=5), "float32") for _ in range(3)]
loss = lambda *each: (acon(*each) ** 2).sum()
gradients = jax.grad(loss, (0, 1, 2, 3))
expected = gradients(x, *gates)
divided = jax.device_put(x, NamedSharding(mesh, P("d")))
shared = [jax.device_put(gate, NamedSharding(mesh, P())) for gate in gates]
inside, outside = (P("d"), P(), P(), P()), P("d")
mapped = jax.shard_map(acon, mesh=mesh, in_specs=inside, out_specs=outside)
for name, function, arguments in (
    ("jit", gradients, (divided, *shared)),
    ("shard_map inside", jax.grad(lambda *each: (mapped(*each) ** 2).sum(), (0, 1, 2, 3)), (x, *gates)),
    ("shard_map outside", jax.shard_map(gradients, mesh=mesh, in_specs=inside, out_specs=inside), (x, *gates)),
    ("second", gradients, [jax.device_put(each, jax.devices()[1]) for each in (x, *gates)]),
):
    compiled = jax.jit(function).lower(*arguments).compile()
    for ours, theirs in zip(compiled(*arguments), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    text = compiled.as_text()
    print(name, text.count('custom_call_target="acon_kernels'), "all-gather" in text, sep=", ")
"""


def test_several_devices() -> None:
    """XLA cannot divide a call: a program that it divides has the formula, a part of one a call."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    assert run_python(SHARDED, XLA_FLAGS=flags).splitlines() == [
        "jit, 0, False", "shard_map inside, 2, False", "shard_map outside, 2, False", "second, 2, False",
    ]  # fmt: skip


def test_without_the_library_there_is_no_trace_of_it() -> None:
    code = "import jax; from acon_jax import acon; print(jax.make_jaxpr(acon)(jax.numpy.ones((2, 3)), 1.0, 0.0, 1.0))"
    assert "acon_kernel" in run_python(code)
    assert "acon_kernel" not in run_python(code, ACON_KERNELS="0")
