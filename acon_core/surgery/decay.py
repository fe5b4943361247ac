"""Which parameters weight decay applies to: the spec's flags for what a spec made, the usual rule for the rest."""

from __future__ import annotations

from typing import Any

from acon_core.spec import join
from acon_core.surgery.modules import Modules
from acon_core.surgery.rebuild import outermost_spec_modules

UNDECAYED_NAMES = ("p1", "p2", "beta")
"""Names of ACON's parameters, which never decay, whoever wrote the module (ultralytics/yolov5 issue 2891)."""


def decays(modules: Modules, model: Any) -> dict[str, bool]:
    """For every trainable parameter, by native path, whether weight decay applies.

    Never to p1, p2, beta, biases, norms and branch weights: with them in, Meta-ACON and ACON-C lose
    accuracy (ultralytics/yolov5 issue 2891). Modules that no spec made follow the usual rule of
    `Modules.parameters`.
    """
    known = {
        join(path, native): param.decay
        for path, _, node in outermost_spec_modules(modules, model)
        for _, param, native, _ in modules.layout.table(node)
        if native is not None
    }
    return {path: known.get(path, usual) for path, _, usual in modules.parameters(model)}
