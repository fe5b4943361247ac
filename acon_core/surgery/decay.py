"""Which parameters weight decay applies to."""

from __future__ import annotations

from typing import Any

from acon_core.spec import join
from acon_core.surgery.modules import Modules
from acon_core.surgery.rebuild import outermost_spec_modules

UNDECAYED_NAMES = ("p1", "p2", "beta")
"""Names of ACON's parameters, which never decay in any module (ultralytics/yolov5, issue 2891)."""


def decays(modules: Modules, model: Any) -> dict[str, bool]:
    """Decide for every trainable parameter whether weight decay applies.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.

    Returns
    -------
    dict from str to bool
        By native path of the parameter.

    Notes
    -----
    In modules that were made from a spec, the spec decides. The others follow the usual rule, see
    `Modules.parameters`. p1, p2, beta, biases, norms and branch weights never decay.
    """
    known = {
        join(path, native): param.decay
        for path, _, node in outermost_spec_modules(modules, model)
        for _, param, native, _ in modules.layout.table(node)
        if native is not None
    }
    return {path: known.get(path, usual) for path, _, usual in modules.parameters(model)}


def param_groups(modules: Modules, model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters of a model into two groups, with and without weight decay.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    weight_decay : float
        Weight decay of the first group.

    Returns
    -------
    list of dict
        Two dictionaries with the keys ``params`` and ``weight_decay``.
    """
    decayed = decays(modules, model)
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for path, parameter, _ in modules.parameters(model):
        groups[decayed[path]].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]
