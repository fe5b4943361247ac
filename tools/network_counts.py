"""Make the table of docs/networks.md: the exact counts of every network beside the published ones.

`python tools/network_counts.py` prints it as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator

from acon_core.networks import NETWORKS, create
from acon_core.spec.transforms import Counts, count

# The activations that the paper of a network compares, by the longest prefix of its name.
ACTIVATIONS: dict[str, tuple[str | None, ...]] = {
    "": (None,),
    "acon/": ("relu", "acon_c", "meta_acon"),
    "acon/tfnet": ("acon_frelu",),
    "repact/": ("relu", "repact", "repact(variant=3)"),
}

# FLOPs and #Params as nmaac/acon's README prints them.
PRINTED = {
    ("acon/shufflenet_v2_x0_5", "relu"): ("41M", "1.4M"),
    ("acon/shufflenet_v2_x0_5", "acon_c"): ("41M", "1.4M"),
    ("acon/shufflenet_v2_x0_5", "meta_acon"): ("41M", "1.7M"),
    ("acon/shufflenet_v2_x1_0", "relu"): ("146M", "2.3M"),
    ("acon/shufflenet_v2_x1_5", "relu"): ("299M", "3.5M"),
    ("acon/shufflenet_v2_x1_5", "acon_c"): ("299M", "3.5M"),
    ("acon/shufflenet_v2_x1_5", "meta_acon"): ("299M", "3.9M"),
    ("acon/shufflenet_v2_x2_0", "relu"): ("591M", "7.4M"),
    ("acon/resnet50", "acon_c"): ("3.9G", "25.5M"),
    ("acon/resnet50", "meta_acon"): ("3.9G", "25.7M"),
    ("acon/resnet101", "acon_c"): ("7.6G", "44.4M"),
    ("acon/resnet101", "meta_acon"): ("7.6G", "44.8M"),
    ("acon/resnet152", "acon_c"): ("11.3G", "60.0M"),
    ("acon/resnet152", "meta_acon"): ("11.3G", "60.5M"),
    ("acon/tfnet_0_5", "acon_frelu"): ("43M", "1.3M"),
    ("acon/tfnet_1_0", "acon_frelu"): ("135M", "1.9M"),
    ("acon/tfnet_1_5", "acon_frelu"): ("279M", "2.7M"),
    ("acon/tfnet_2_0", "acon_frelu"): ("474M", "3.8M"),
}


def rounded(value: int, printed: str) -> str:
    """Format a count in the unit and with the digits of a printed one."""
    digits = len(printed[:-1].partition(".")[2])
    return f"{value / {'M': 1e6, 'G': 1e9}[printed[-1]]:.{digits}f}{printed[-1]}"


def verdict(counts: Counts, flops: str, params: str) -> str:
    """Return the printed counts, and the exact ones that do not round to them."""
    found = (("MACs", counts.macs, flops), ("parameters", counts.parameters, params), ("weights", counts.decayed, params))
    off = [f"{what} {rounded(value, printed)}" for what, value, printed in found if rounded(value, printed) != printed]
    return f"{flops} / {params}" + (f"; here {', '.join(off)}" if off else "")


def lines() -> Iterator[str]:
    """Yield the lines of the table."""
    labels = list(Counts(0, 0, 0, 0, 0, 0, 0).labelled())
    yield f"| network | activation | {' | '.join(labels)} | printed |"
    yield f"|---|---|{'--:|' * len(labels)}---|"
    for name in NETWORKS:
        for act in ACTIVATIONS[max((start for start in ACTIVATIONS if name.startswith(start)), key=len)]:
            network = create(name, act)
            counts = count(network.graph, network.input_shape)
            printed = verdict(counts, *PRINTED[name, act]) if act and (name, act) in PRINTED else ""
            found = " | ".join(f"{value:,}" for value in counts.labelled().values())
            yield f"| {name} | {act or 'as published'} | {found} | {printed} |"


if __name__ == "__main__":
    print("\n".join(lines()))
