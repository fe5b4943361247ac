"""Networks as data: nodes, activations and transformations of them. Nothing here runs a network.

The package exports what each of its modules lists in `__all__`.
"""

from acon_core.spec.acon import *
from acon_core.spec.activation_base import *
from acon_core.spec.activations import *
from acon_core.spec.functions import *
from acon_core.spec.fusion import *
from acon_core.spec.gated import *
from acon_core.spec.graph import *
from acon_core.spec.node import *
from acon_core.spec.param import *
from acon_core.spec.pointwise import *
from acon_core.spec.primitives import *
from acon_core.spec.rearrange import *
from acon_core.spec.rectifiers import *
from acon_core.spec.repact import *
from acon_core.spec.tokens import *
from acon_core.spec.transforms import *
