"""Operations on native models, over the interface `Modules` that each backend implements."""

from acon_core.surgery.bounds import GradientBounds, gradient_bounds
from acon_core.surgery.decay import UNDECAYED_NAMES, decays, param_groups
from acon_core.surgery.doctor import Diagnosis, doctor
from acon_core.surgery.feeding import Feeding
from acon_core.surgery.holders import held, put
from acon_core.surgery.modules import Call, FunctionCall, Layers, Modules, Observed, Probe, evaluation_mode
from acon_core.surgery.rebuild import fold, fuse
from acon_core.surgery.replace import replace_activations
from acon_core.surgery.report import Replacements, Site
from acon_core.surgery.rewrite import Place, find_place, place_in
from acon_core.surgery.wanted import Value, Where

__all__ = [
    "UNDECAYED_NAMES", "Call", "Diagnosis", "Feeding", "FunctionCall", "GradientBounds", "Layers", "Modules",
    "Observed", "Place", "Probe", "Replacements", "Site", "Value", "Where", "decays", "doctor", "evaluation_mode",
    "find_place", "fold", "fuse", "gradient_bounds", "held", "param_groups", "place_in", "put", "replace_activations",
]  # fmt: skip
