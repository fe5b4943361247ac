"""Dialects of the published RepAct code: parameter names and the order of the branch weights."""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect, Names
from acon_core.spec.repact import RepAct

_PARAMS = {"weights": "ActorAtn", "alpha": "actor_PReLU.weight"}
# The spec orders the branches identity, ReLU, PReLU, HardSwish. In the published training classes,
# RepAct I and III put HardSwish before PReLU.
_HARDSWISH_BEFORE_PRELU = {"weights": (0, 1, 3, 2)}

repact = Dialect(
    "repact",
    "the RepAct code's RepAct_Origin, RepAct_Softmax and RepAct_BN",
    {
        RepAct(variant=1): Names(_PARAMS, orders=_HARDSWISH_BEFORE_PRELU),
        RepAct(variant=2): Names(_PARAMS),
        RepAct(variant=3): Names(_PARAMS, children={"norm": "bn"}, orders=_HARDSWISH_BEFORE_PRELU),
    },
)

repact_reconstruct = Dialect(
    "repact_reconstruct",
    "the RepAct code's RepAct_Origin_Reconstruct and RepAct_Softmax_Reconstruct",
    {RepAct(variant=1): Names(_PARAMS), RepAct(variant=2): Names(_PARAMS)},
)
