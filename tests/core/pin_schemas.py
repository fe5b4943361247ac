"""Write schemas.json anew: run it when a change of names, shapes, kinds or decay is meant."""

from __future__ import annotations

import json
from pathlib import Path

from test_spec import spec_digest

from acon_core import spec
from acon_core.networks import NETWORKS, create

if __name__ == "__main__":
    pinned = {}
    for name in NETWORKS:
        for act in spec.ACTIVATIONS:
            table = spec.named_params(create(name, act).graph)
            first = [f"{key} {p.shape} {p.kind} {p.decay}" for key, p in list(table.items())[:40]]
            pinned[f"{name} {act}"] = {"keys": len(table), "first": first, "digest": spec_digest(create(name, act).graph)}
    Path(__file__).with_name("schemas.json").write_text(json.dumps(pinned, indent=1) + "\n")
