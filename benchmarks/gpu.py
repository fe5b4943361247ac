"""Time the kernels on a GPU beside the framework's own operations, as Markdown tables.

`python benchmarks/gpu.py torch | tune | jax`. A figure is the necessary traffic (each array read or
written once) per second as a share of what a plain copy moves: 1.00 is the best there is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from acon_core.kernels import geometry

SHAPES = {
    "[256, 128, 56, 56]": ((256, 128, 56, 56), 1),
    "[64, 64, 112, 112]": ((64, 64, 112, 112), 1),
    "[256, 197, 768]": ((256, 197, 768), -1),
}
GATES = {"acon": 3, "slopes": 2, "attention_slopes": 2, "branches": 4, "two_lines": 4, "maximum": 1}
DTYPES = {"float32": 4, "bfloat16": 2}


def row(*cells: Any) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """Print the head of a table."""
    row(*cells)
    row(*("---" if at < 3 else "--:" for at, _ in enumerate(cells)))


def torch_timer() -> tuple[Callable[[Callable[[], Any]], float], float]:
    """Return a function that gives the median seconds of a call, and bytes a second of a copy."""
    import torch
    from triton.testing import do_bench

    def time(call: Callable[[], Any]) -> float:
        return float(do_bench(call, warmup=5, rep=25, return_mode="median")) * 1e-3

    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    speed = 2 * source.nbytes / time(lambda: target.copy_(source))
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; a copy moves {speed / 1e12:.2f} TB/s\n")
    return time, speed


def torch_case(function: str, dtype: str, shape: tuple[int, ...], axis: int, pixels: bool = False) -> Any:
    """Return the plan, x, g, gates, and memory of y and of gradients."""
    import torch

    torch.manual_seed(1)
    x = torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))
    channels = shape[axis]
    gates = [torch.randn(channels, device="cuda") * 0.3 + 0.7 for _ in range(GATES[function])]
    if function == "maximum" or pixels:
        gates[-1] = torch.randn_like(x)
    plan = geometry(function, dtype, shape, tuple(tuple(gate.shape) for gate in gates), axis)
    return plan, x, torch.randn_like(x), gates, torch.empty_like(x), [torch.empty_like(gate) for gate in gates]


def torch_kernels() -> None:
    """Time every function, and ACON beside SiLU, the published formula, and it compiled."""
    import torch
    import torch._functorch.config
    from acon_torch import triton_kernels
    from torch.nn import functional as F

    torch._functorch.config.donated_buffer = False  # the backward pass runs many times
    time, speed = torch_timer()
    head("function", "x", "dtype", "forward", "backward", "both")

    def line(what: str, name: str, dtype: str, streams: tuple[int, int], times: tuple[float, float]) -> None:
        size = prod(SHAPES[name][0]) * DTYPES[dtype]
        amounts = [size * count / speed for count in streams]
        row(what, name, dtype, amounts[0] / times[0], amounts[1] / times[1], sum(amounts) / sum(times))

    for name, (shape, axis) in SHAPES.items():
        for dtype in DTYPES:
            for function in (*GATES, "acon, beta of x's size"):
                pixels = function not in GATES
                case = torch_case(function.split(",")[0], dtype, shape, axis, pixels)
                plan, x, g, gates, y, dgates = case

                def forward(plan: Any = plan, x: Any = x, gates: Any = gates) -> None:
                    triton_kernels.run(plan, x, gates, torch.empty_like(x))

                def backward(plan: Any = plan, x: Any = x, g: Any = g, gates: Any = gates, dgates: Any = dgates) -> None:
                    triton_kernels.run(plan, x, gates, torch.empty_like(x), g, dgates)

                streams = (3, 5) if pixels or function == "maximum" else (2, 3)
                line(function, name, dtype, streams, (time(forward), time(backward)))
            del case, plan, y, dgates
            x = torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))
            g = torch.randn_like(x)
            silu = time(lambda x=x: F.silu(x)), time(lambda x=x, g=g: torch.ops.aten.silu_backward(g, x))
            line("F.silu", name, dtype, (2, 3), silu)
            ranked = [1] * len(shape)
            ranked[axis] = shape[axis]
            inputs = [x.requires_grad_(), *(torch.rand(ranked, device="cuda").to(x.dtype).requires_grad_() for _ in range(3))]

            def published(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
                return (p1 - p2) * x * torch.sigmoid(beta * (p1 - p2) * x) + p2 * x

            for what, call in (
                ("published formula", published),
                ("the same, torch.compile", torch.compile(published, dynamic=False)),
            ):
                result = call(*inputs)

                def pull(result: Any = result, inputs: Any = inputs, g: Any = g) -> None:
                    torch.autograd.grad(result, inputs, g, retain_graph=True)

                with torch.no_grad():
                    value = time(lambda call=call, inputs=inputs: call(*inputs))
                line(what, name, dtype, (2, 3), (value, time(pull)))
            torch.compiler.reset()
            del inputs, result, x, g
            torch.cuda.empty_cache()
    head("\nhost time of a small call", "x", "dtype", "forward us", "backward us")
    plan, x, g, gates, y, dgates = torch_case("acon", "float32", (2, 8, 8, 8), 1)
    small = [
        1e6 * host_time(lambda: triton_kernels.run(plan, x, gates, y)),
        1e6 * host_time(lambda: triton_kernels.run(plan, x, gates, y, g, dgates)),
    ]
    row("acon", "[2, 8, 8, 8]", "float32", *small)
    row("F.silu", "[2, 8, 8, 8]", "float32", 1e6 * host_time(lambda: F.silu(x)),
        1e6 * host_time(lambda: torch.ops.aten.silu_backward(g, x)))  # fmt: skip


def host_time(call: Callable[[], Any], count: int = 300) -> float:
    """Return the seconds that the host takes a call, in a queue that the GPU keeps up with."""
    from time import perf_counter

    import torch

    for _ in range(10):
        call()
    torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return (perf_counter() - start) / count


def torch_tune() -> None:
    """Time the backward pass with other sizes of tiles, and its second pass alone."""
    import torch
    from acon_torch import triton_kernels as kernels

    time, speed = torch_timer()
    chosen = [("acon", name, dtype) for name in SHAPES for dtype in DTYPES] + [("branches", "[256, 197, 768]", "bfloat16")]
    cases = [torch_case(function, dtype, *SHAPES[name]) for function, name, dtype in chosen]
    head("tile, steps, warps", *(" ".join(case) for case in chosen))
    for setting in ((512, 16, 4), (512, 32, 4), (512, 8, 4), (256, 16, 2), (256, 32, 4), (1024, 16, 8)):
        kernels.PULL_TILE, kernels.STEPS, kernels.WARPS = setting
        kernels._launch.cache_clear()
        times = [time(partial(kernels.run, plan, x, gates, y, g, dgates)) for plan, x, g, gates, y, dgates in cases]
        row(str(setting), *(3 * case[1].nbytes / speed / each for case, each in zip(cases, times, strict=True)))
    partial_sums, total = torch.rand(1, 1576, 768, device="cuda"), torch.empty(768, device="cuda")
    print(f"\nsum of (1, 1576, 768): {1e6 * time(lambda: torch.sum(partial_sums, (0, 1), out=total)):.1f} us")


def jax_kernels() -> None:
    """Time the Pallas kernels beside XLA's fusion of the same formula and of SiLU."""
    from time import perf_counter

    import jax
    import jax.numpy as jnp
    from acon_jax import functional, pallas_kernels

    rules = {
        "acon": functional._ACON,
        "slopes": functional._PRELU,
        "branches": functional._REPACT,
        "two_lines": functional._LINE_MAXIMUM,
    }

    def time(call: Callable[..., Any], *arguments: Any) -> float:
        compiled = jax.jit(call)
        for _ in range(3):
            jax.block_until_ready(compiled(*arguments))
        rounds = []
        for _ in range(5):
            start = perf_counter()
            for _ in range(10):
                result = compiled(*arguments)
            jax.block_until_ready(result)
            rounds.append((perf_counter() - start) / 10)
        return sorted(rounds)[2]

    source = jnp.ones(2**28)
    speed = 2 * source.nbytes / time(lambda x: x * 2, source)
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}; a copy moves {speed / 1e12:.2f} TB/s\n")
    del source
    head("function", "x", "dtype", "forward", "backward", "both")
    for name, (shape, axis) in SHAPES.items():
        for dtype, width in DTYPES.items():
            keys = jax.random.split(jax.random.key(1), 6)
            x, g = (jax.random.normal(key, shape, dtype) for key in keys[:2])
            gates = [jax.random.uniform(key, (shape[axis],)) for key in keys[2:]]
            ranked = tuple(size if at == axis % len(shape) else 1 for at, size in enumerate(shape))

            def line(what: str, value: Any, pull: Any, *used: Any) -> None:
                amounts = [prod(shape) * width * streams / speed for streams in (2, 3)]  # noqa: B023
                times = time(value, x, *used), time(pull, x, g, *used)  # noqa: B023
                row(what, name, dtype, amounts[0] / times[0], amounts[1] / times[1], sum(amounts) / sum(times))  # noqa: B023

            for function, rule in rules.items():
                used = gates[: GATES[function]]
                plan = geometry(function, dtype, shape, ((shape[axis],),) * len(used), axis)

                def value(x: Any, *gates: Any, rule: Any = rule, plan: Any = plan) -> Any:
                    return pallas_kernels.run(rule, plan, x, gates)

                def pull(x: Any, g: Any, *gates: Any, rule: Any = rule, plan: Any = plan) -> Any:
                    return pallas_kernels.run(rule, plan, x, gates, g)

                def formula(x: Any, *gates: Any, rule: Any = rule, ranked: Any = ranked) -> Any:
                    return rule(x, *(gate.reshape(ranked) for gate in gates))

                def gradients(x: Any, g: Any, *gates: Any, formula: Any = formula) -> Any:
                    return jax.vjp(formula, x, *gates)[1](g)

                line(f"{function}, Pallas", value, pull, *used)
                line(f"{function}, XLA", formula, gradients, *used)
            line("silu, XLA", jax.nn.silu, lambda x, g: jax.vjp(jax.nn.silu, x)[1](g))


if __name__ == "__main__":
    np.seterr(all="ignore")
    {"torch": torch_kernels, "tune": torch_tune, "jax": jax_kernels}[sys.argv[1]]()
