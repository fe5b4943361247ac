"""The published networks by name.

Each file is one architecture; `sources` has the forms that other projects publish. `create` calls
their functions by name and passes on their options. To add a network, add a file and a line in
`NETWORKS`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from acon_core.errors import SpecError, choices
from acon_core.networks.dcn import dcn
from acon_core.networks.mobilenet_v3 import mobilenet_v3
from acon_core.networks.network import Network, as_tuples
from acon_core.networks.preprocessing import Preprocessing
from acon_core.networks.resnet import resnet
from acon_core.networks.shufflenet_v2 import repact_shufflenet_v2, shufflenet_v2
from acon_core.networks.sources.paddleclas import paddleclas_resnet
from acon_core.networks.sources.timm import timm_swin_tiny, timm_vit_base
from acon_core.networks.sources.torchvision import torchvision_mobilenet_v3, torchvision_resnet, torchvision_shufflenet_v2
from acon_core.networks.swin import swin_tiny
from acon_core.networks.tfnet import tfnet
from acon_core.networks.vit import vit_base
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node

NETWORKS: dict[str, Callable[..., Network]] = {
    "acon/shufflenet_v2_x0_5": partial(shufflenet_v2, 0.5),
    "acon/shufflenet_v2_x1_0": partial(shufflenet_v2, 1.0),
    "acon/shufflenet_v2_x1_5": partial(shufflenet_v2, 1.5),
    "acon/shufflenet_v2_x2_0": partial(shufflenet_v2, 2.0),
    "acon/resnet18": partial(resnet, 18),
    "acon/resnet34": partial(resnet, 34),
    "acon/resnet50": partial(resnet, 50),
    "acon/resnet101": partial(resnet, 101),
    "acon/resnet152": partial(resnet, 152),
    "acon/tfnet_0_5": partial(tfnet, 0.5),
    "acon/tfnet_1_0": partial(tfnet, 1.0),
    "acon/tfnet_1_5": partial(tfnet, 1.5),
    "acon/tfnet_2_0": partial(tfnet, 2.0),
    "acon/dcn": dcn,
    "repact/shufflenet_v2_x0_5": partial(repact_shufflenet_v2, 0.5),
    "repact/shufflenet_v2_x1_0": partial(repact_shufflenet_v2, 1.0),
    "repact/mobilenet_v3_small": partial(mobilenet_v3, "small"),
    "repact/mobilenet_v3_large": partial(mobilenet_v3, "large"),
    "repact/swin_tiny_patch4_window7_224": swin_tiny,
    "repact/vit_base_patch16_224": vit_base,
    "torchvision/resnet18": partial(torchvision_resnet, 18),
    "torchvision/resnet34": partial(torchvision_resnet, 34),
    "torchvision/resnet50": partial(torchvision_resnet, 50),
    "torchvision/resnet101": partial(torchvision_resnet, 101),
    "torchvision/resnet152": partial(torchvision_resnet, 152),
    "torchvision/shufflenet_v2_x0_5": partial(torchvision_shufflenet_v2, 0.5),
    "torchvision/shufflenet_v2_x1_0": partial(torchvision_shufflenet_v2, 1.0),
    "torchvision/shufflenet_v2_x1_5": partial(torchvision_shufflenet_v2, 1.5),
    "torchvision/shufflenet_v2_x2_0": partial(torchvision_shufflenet_v2, 2.0),
    "torchvision/mobilenet_v3_small": partial(torchvision_mobilenet_v3, "small"),
    "torchvision/mobilenet_v3_large": partial(torchvision_mobilenet_v3, "large"),
    "timm/swin_tiny_patch4_window7_224": timm_swin_tiny,
    "timm/vit_base_patch16_224": timm_vit_base,
    "paddleclas/resnet18": partial(paddleclas_resnet, 18),
    "paddleclas/resnet34": partial(paddleclas_resnet, 34),
}
"""The function that makes each network, by publisher and name."""


IN_CHANNELS = "in_channels"
"""The option that every network has: the channels of the image."""


def keeps_activations(name: str) -> bool:
    """Return whether a network has its publisher's activations unless `act` is given.

    These are the networks in `sources`. The others have one activation, for which `act` stands.

    Parameters
    ----------
    name : str
        A name of the registry.

    Returns
    -------
    bool
        Whether the default of `act` is None.
    """
    return inspect.signature(NETWORKS[name]).parameters["act"].default is None


def create(
    name: str, act: Node | str | None = None, num_classes: int | None = None, *, features: Sequence[str] = (), **options: Any
) -> Network:
    """Return the network of a name as data.

    Parameters
    ----------
    name : str
        A name in `NETWORKS`, or ``package.module:function``: a function of your own without
        arguments that returns a `Graph` or a `Network`. It accepts no other parameter of this
        function but `features`.
    act : Node or str, optional
        The activation. Default: the published one.
    num_classes : int, optional
        Number of classes. Default: the published number.
    features : sequence of str
        Stages whose values become the outputs, in this order, in place of the class scores.
    **options
        Options of the network's function, such as `repeats` or `image_size`, and `in_channels`, the
        channels of the image, 3 by default.

    Returns
    -------
    Network
        The network, without values of parameters.

    Raises
    ------
    SpecError
        If the name, an option or a stage does not exist, or a value is out of range.

    Examples
    --------
    >>> from acon_core.networks import create
    >>> network = create("acon/shufflenet_v2_x0_5", "meta_acon", num_classes=10)
    >>> network.graph.out_shapes((1, 3, 224, 224))
    ((1, 10),)
    >>> create("acon/resnet50", features=["stage3", "stage4"]).graph.out_shapes((1, 3, 64, 96))
    ((1, 1024, 4, 6), (1, 2048, 2, 3))
    """
    made = _create(name, act, num_classes, options)
    return made.features(features) if features else made


def _create(name: str, act: Node | str | None, num_classes: int | None, options: Mapping[str, Any]) -> Network:
    if ":" in name:
        given = [option for option, value in {"act": act, "num_classes": num_classes, **options}.items() if value is not None]
        if given:
            raise SpecError(f"network {name!r}: takes no {given[0]}; set it inside the function, which takes no arguments")
        return _import_network(name)
    if name not in NETWORKS:
        raise SpecError(
            f"network {name!r} is not known; {choices(name, NETWORKS, 'acon list networks')}; "
            "a function of your own is package.module:function"
        )
    make = NETWORKS[name]
    known = inspect.signature(make).parameters
    unknown = [option for option in options if option not in known and option != IN_CHANNELS]
    if unknown:
        raise SpecError(f"network {name!r}: {unknown[0]!r} is not an option; {choices(unknown[0], [*known, IN_CHANNELS])}")
    published = {"act": act, "num_classes": num_classes}
    try:
        own = {option: value for option, value in {**published, **options}.items() if value is not None}
        in_channels = own.pop(IN_CHANNELS, None)
        made = make(**own).resized(in_channels=in_channels)
    except (TypeError, ValueError) as error:
        if not options or isinstance(error, SpecError):
            raise
        described = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise SpecError(f"network {name!r}: cannot be made with {described}: {error}") from error
    return replace(made, options=options) if options else made


def _import_network(name: str) -> Network:
    module_name, _, function_name = name.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), function_name)()
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"network {name!r} cannot be imported: {error}; expected package.module:function that this Python can import"
        ) from error
    if isinstance(made, Graph):
        return Network(name, made)
    if not isinstance(made, Network):
        raise SpecError(f"network {name!r}: expected a Graph or a Network, found {type(made).__name__}")
    return made


__all__ = ["NETWORKS", "Network", "Preprocessing", "as_tuples", "create", "keeps_activations"]
