"""Operations on native models, over the interface `Modules` that each backend implements."""

from acon_core.surgery.bounds import GradientBounds, gradient_bounds
from acon_core.surgery.decay import UNDECAYED_NAMES, decays, param_groups
from acon_core.surgery.doctor import Diagnosis, doctor
from acon_core.surgery.modules import Layers, Modules, Observed, Probe, evaluation_mode
from acon_core.surgery.rebuild import fold, fuse
from acon_core.surgery.replace import Replacements, replace_activations

__all__ = [
    "UNDECAYED_NAMES", "Diagnosis", "GradientBounds", "Layers", "Modules", "Observed", "Probe", "Replacements", "decays",
    "doctor", "evaluation_mode", "fold", "fuse", "gradient_bounds", "param_groups", "replace_activations",
]  # fmt: skip
