"""What the networks of the RepAct code have in common: what their input must be, and where they come from."""

from __future__ import annotations

from acon_core.networks.network import Preprocessing

# Its loader resizes and crops every image to 224, those of CIFAR included.
INPUT = Preprocessing("RGB", range=(0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize=256)

SOURCE = "Wu et al. 2024 (RepAct); 2771096196/RepAct at c0e7194"
