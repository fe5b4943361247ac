"""The pinned schemas of networks and activations. Run this file to write them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from acon_core import spec
from acon_core.networks import NETWORKS, create, keeps_activations

SCHEMAS = Path(__file__).parents[1] / "data" / "schemas.json"


def pinned() -> Iterator[tuple[str, spec.Node]]:
    """Return every network with its published activations, and every activation alone."""
    for name in NETWORKS:
        for act in ("relu", "acon_c", "meta_acon") if not keeps_activations(name) else (None,):
            yield f"{name} {act or 'as published'}", create(name, act).graph
    for act in (*spec.ACTIVATIONS, *VARIANTS):
        yield act, spec.activation(act, 6)


VARIANTS = (
    "prelu(shared=false)", "acon_c(shared=true)", "dyrelu(variant=B)", "meta_acon(norm=none)", "meta_acon(norm=layer)",
    "meta_acon(norm=none, generator=first)",
    "meta_acon(level=pixel)", "meta_acon(level=layer)", "repact(variant=3)", "fused_repact(shift=true)",
)  # fmt: skip


def schema(node: spec.Node) -> dict[str, object]:
    """Return the first parameters, and a hash of every path, shape, kind, dtype and decay flag."""
    lines = [f"{path} {p.shape} {p.kind} {p.dtype} {p.decay}" for path, p in spec.named_params(node).items()]
    return {"keys": len(lines), "first": lines[:16], "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def current_schemas() -> dict[str, object]:
    """Return the current schema of everything that is pinned."""
    return {name: schema(node) for name, node in pinned()}


if __name__ == "__main__":
    SCHEMAS.write_text(json.dumps(current_schemas(), indent=1) + "\n")
