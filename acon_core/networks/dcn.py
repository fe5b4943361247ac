"""The small network of the Paddle notebook on ACON, for images of 32x32 pixels."""

from __future__ import annotations

from dataclasses import replace

from acon_core.networks.network import Network, resolve_activation
from acon_core.spec.acon import AconC
from acon_core.spec.activation_base import bind
from acon_core.spec.graph import InitRule, sequential
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, KaimingNormal, XavierUniform
from acon_core.spec.pointwise import ReLU
from acon_core.spec.primitives import Conv2d, Linear
from acon_core.spec.rearrange import Flatten
from acon_core.spec.tokens import ImageSize

SIZE = 32

# The defaults of Paddle's layers, which differ from PyTorch's.
INIT_RULES = (
    InitRule(Conv2d, "weight", KaimingNormal("in")),
    InitRule(Conv2d, "bias", Constant(0.0)),
    InitRule(Linear, "weight", XavierUniform()),
    InitRule(Linear, "bias", Constant(0.0)),
)


def dcn(act: Node | str = AconC(), num_classes: int = 1) -> Network:
    """Return the notebook's network: `act` after the third convolution, ReLU elsewhere.

    Parameters
    ----------
    act : Node or str
        Activation after the third convolution. With ReLU the network is the notebook's `dcn3`; with
        ACON-C or Meta-ACON it is one of the two that the notebook names `dcn2`.
    num_classes : int

    Notes
    -----
    (N, 3, 32, 32) -> (N, num_classes). Images of any other size raise SpecError.

    References
    ----------
    The notebook on ACON in Paddle's AI Studio. Layers keep its names.
    """
    act = resolve_activation("dcn", act, num_classes)
    network = sequential(
        image_size=ImageSize(SIZE, SIZE),
        conv1=Conv2d(3, 32, 3, 1, 1),
        relu1=ReLU(),
        conv2=Conv2d(32, 64, 3, 2),
        relu2=ReLU(),
        conv3=Conv2d(64, 64, 3, 2),
        acon1=bind(act, 64),
        conv4=Conv2d(64, 64, 3, 2, 1),
        relu4=ReLU(),
        flatten=Flatten(),
        linear1=Linear(1024, 64),
        relu5=ReLU(),
        linear2=Linear(64, num_classes),
    )
    return Network(
        name="acon/dcn",
        activation=act,
        num_classes=num_classes,
        graph=replace(network, init_rules=INIT_RULES),
        stages={"stage1": "relu1", "stage2": "relu2", "stage3": "acon1", "stage4": "relu4"},
        head="linear2",
        size=SIZE,
        source="a notebook on ACON in Paddle's AI Studio; Ma et al. 2021 (ACON)",
    )
