"""Type checkers on `acon_jax`: exactly the lines with a comment `ignore` are errors.

mypy and pyright run over this file in the session `lint`. It is never imported.
"""

from __future__ import annotations

import acon_jax
import jax
from acon_jax import (
    AconA,
    AconC,
    DyReLU,
    MetaAconC,
    PReLU,
    RepAct,
    acon,
    activation,
    create,
    doctor,
    fold,
    fuse,
    gradient_bounds,
    load,
    param_groups,
    replace_activations,
    smooth_maximum,
)
from flax import nnx

from acon_core.surgery import Diagnosis, GradientBounds, Replacements

good: list[nnx.Module] = [
    AconA(64, rngs=nnx.Rngs(0)),
    AconC(64, shared=True, rngs=nnx.Rngs(0)),
    AconC(64, "paper", channel_axis=-1, rngs=nnx.Rngs(0)),
    MetaAconC(channels=64, reduction=8, level="pixel", rngs=nnx.Rngs(0)),
    PReLU(rngs=nnx.Rngs(0)),
    RepAct(variant=3, path="features.3", rngs=nnx.Rngs(0)),
    activation("dyrelu", 64, variant="B", rngs=nnx.Rngs(0)),
]

AconC(64, shard=True, rngs=nnx.Rngs(0))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
AconC("64", rngs=nnx.Rngs(0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
AconC(64, "papers", rngs=nnx.Rngs(0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
AconC(64, "paper", True, 1, rngs=nnx.Rngs(0))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
MetaAconC(rngs=nnx.Rngs(0))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
MetaAconC(64, level="pixle", rngs=nnx.Rngs(0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
DyReLU(64, variant=1, rngs=nnx.Rngs(0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RepAct(4, rngs=nnx.Rngs(0))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
AconC(64)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

print(acon_jax.nothing)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

network: nnx.Module = create("acon/shufflenet_v2_x1_0", act="meta_acon", num_classes=10, features=("stage2",), seed=1)
network = load("network.pth", dialect="timm", features=["stage4"], replace_stride_with_dilation=(False, False, True))
create("acon/resnet18", classes=10, seed="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
load()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def use(model: nnx.Module, x: jax.Array) -> jax.Array:
    done: Replacements = replace_activations(model, {"silu": "acon_c"}, x, beta=50.0)
    findings: Diagnosis = doctor(model, channel_axis=-1)
    bounds: dict[str, GradientBounds] = gradient_bounds(fold(fuse(model)))
    param_groups(model, 1e-4)
    replace_activations(model, ["silu"], x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    doctor(model, -1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(done.replaced, findings.healthy, bounds[""].low)
    return smooth_maximum(acon(x, 1.0, 0.0, x), x, beta=2.0)
