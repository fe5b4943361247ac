"""Every activation by name: its public class, if any, and the options that its tests use.

Signatures are the same in all four backends; a framework's own parameters (dtype, device, rngs) are
keyword-only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Descriptor:
    """The public class of an activation and how to test it.

    `public` and `signature` are those of the class, empty for pointwise functions, which frameworks
    have. `options` has an entry per variant to test; `ranks` are the ranks of its inputs.
    """

    public: str = ""
    signature: str = ""
    options: tuple[dict[str, Any], ...] = field(default_factory=lambda: ({},))
    ranks: tuple[int, ...] = (2, 3, 4, 5)


CHANNELS = "channels"
DESCRIPTORS = {
    "identity": Descriptor(),
    "relu": Descriptor(),
    "relu6": Descriptor(),
    "leaky_relu": Descriptor(options=({}, {"slope": 0.3})),
    "elu": Descriptor(options=({}, {"alpha": 0.7})),
    "selu": Descriptor(),
    "celu": Descriptor(options=({}, {"alpha": 0.7})),
    "gelu": Descriptor(options=({}, {"approximate": "tanh"})),
    "silu": Descriptor(),
    "mish": Descriptor(),
    "softplus": Descriptor(options=({}, {"beta": 0.6})),
    "hardswish": Descriptor(),
    "hardsigmoid": Descriptor(),
    "sigmoid": Descriptor(),
    "prelu": Descriptor("PReLU", "(channels=None, shared=True)", ({}, {"shared": False})),
    "swish": Descriptor("Swish", "()"),
    "arelu": Descriptor("AReLU", "()"),
    "dyrelu": Descriptor(
        "DyReLU", "(channels, variant='A', reduction=4)", ({"variant": "A"}, {"variant": "B", "reduction": 2})
    ),
    "frelu": Descriptor("FReLU", "(channels)", ranks=(4,)),
    "acon_a": Descriptor("AconA", "(channels)"),
    "acon_b": Descriptor("AconB", "(channels)"),
    "acon_c": Descriptor(
        "AconC", "(channels, init='published', shared=False)", ({}, {"init": "paper"}, {"init": "paper", "shared": True})
    ),
    "meta_acon": Descriptor(
        "MetaAconC",
        "(channels, reduction=16, norm='batch', init='published', level='channel', reduce='sum', generator='released')",
        (
            {"reduction": 4},
            {"reduction": 4, "norm": "none"},
            {"norm": "none", "generator": "first"},
            {"reduction": 4, "norm": "layer", "init": "paper"},
            {"level": "layer", "reduce": "mean"},
            {"level": "pixel"},
        ),
    ),
    "acon_frelu": Descriptor("AconFReLU", "(channels, stride=1)", ({}, {"stride": 2}), ranks=(4,)),
    "repact": Descriptor("RepAct", "(variant=1)", ({"variant": 1}, {"variant": 2}, {"variant": 3})),
    "fused_repact": Descriptor("FusedRepAct", "(shift=False)", ({}, {"shift": True})),
}

# The other public functions. AXIS is the framework's channel axis: 1 or -1.
FUNCTIONS = {
    "acon": "(x, p1, p2, beta, channel_axis=AXIS)",
    "smooth_maximum": "(*values, beta=1.0)",
    "activation": "(name, channels=None, *, channel_axis=None, **options)",
    "create": "(name, act=None, num_classes=None, *, features=(), **options)",
    "load": "(path, network=None, act=None, dialect=None, features=(), *, num_classes=None, in_channels=None, "
    "key='', strip_prefix=(), ignore=(), format=None, **options)",
    "replace_activations": "(model, replacements, example, *, channel_axis=None, beta=None, where=None)",
    "param_groups": "(model, weight_decay)",
    "fuse": "(model)",
    "fold": "(model)",
    "doctor": "(module, *, channel_axis=None)",
    "gradient_bounds": "(model)",
}
# Keyword-only parameters of one framework, excluded from the comparison.
FRAMEWORK_OPTIONS = {"dtype", "device", "rngs", "path", "seed"}

SIGNATURES = {**{each.public: each.signature for each in DESCRIPTORS.values() if each.public}, **FUNCTIONS}
"""Every public name of a backend, and its signature without the framework's own parameters."""
