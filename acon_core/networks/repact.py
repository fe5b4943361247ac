"""What the networks of the RepAct code have in common: what their input must be, and how their activation is given."""

from __future__ import annotations

from acon_core.errors import SpecError
from acon_core.networks.network import InputContract
from acon_core.spec.activations import parse_activation
from acon_core.spec.node import Node

# Its loader resizes and crops every image to 224, those of CIFAR included.
INPUT = InputContract("RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224)

SOURCE = "Wu et al. 2024 (RepAct); 2771096196/RepAct at c0e7194"


def chosen(network: str, act: Node | str, num_classes: int) -> Node:
    """The activation that was given, as a spec or by name. Raises SpecError for one that does not exist, or no classes."""
    if num_classes < 1:
        raise SpecError(f"{network}: expected at least one class, found {num_classes}")
    return parse_activation(act) if isinstance(act, str) else act
