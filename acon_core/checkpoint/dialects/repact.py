"""The parameter names of the RepAct code, and the two branch orders in it."""

from __future__ import annotations

from acon_core.checkpoint.dialects.dialect import Dialect, Names
from acon_core.spec.repact import RepAct

_PARAMS = {"weights": "ActorAtn", "alpha": "actor_PReLU.weight"}
# The spec's order is identity, ReLU, PReLU, HardSwish; RepAct I and III swap the last two.
_HARDSWISH_FIRST = {"weights": (0, 1, 3, 2)}

repact = Dialect(
    "repact",
    "the RepAct code's RepAct_Origin, RepAct_Softmax and RepAct_BN",
    {
        RepAct(variant=1): Names(_PARAMS, orders=_HARDSWISH_FIRST),
        RepAct(variant=2): Names(_PARAMS),
        RepAct(variant=3): Names(_PARAMS, {"norm": "bn"}, _HARDSWISH_FIRST),
    },
)

repact_reconstruct = Dialect(
    "repact_reconstruct",
    "the RepAct code's RepAct_Origin_Reconstruct and RepAct_Softmax_Reconstruct",
    {RepAct(variant=1): Names(_PARAMS), RepAct(variant=2): Names(_PARAMS)},
)
