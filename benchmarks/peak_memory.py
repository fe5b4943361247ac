"""Measure the peak memory of training steps in PyTorch, with ACON-C, SiLU and ReLU.

`python benchmarks/peak_memory.py` prints a Markdown table: the largest resident set of a process
that runs three steps of ShuffleNetV2 1.0x on 32 images of 224 x 224, and the bytes of the
parameters. Each activation has a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import acon_torch
import torch
from torch.nn import functional as F

ACTIVATIONS = ("relu", "silu", "acon_c", "meta_acon")
MEBI = 2**20


def train(act: str) -> None:
    """Run three steps and print the peak of the process and the bytes of the parameters."""
    torch.manual_seed(0)
    model = acon_torch.create("acon/shufflenet_v2_x1_0", act=act)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, classes = torch.randn(32, 3, 224, 224), torch.randint(1000, (32,))
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(peak / MEBI, sum(each.numel() * each.element_size() for each in model.parameters()) / MEBI)


def main() -> None:
    """Print the table, or train with the activation that is named."""
    if len(sys.argv) > 1:
        train(sys.argv[1])
        return
    print("| activation | peak, MiB | parameters, MiB |")
    print("|---|--:|--:|")
    for act in ACTIVATIONS:
        done = subprocess.run([sys.executable, __file__, act], check=True, capture_output=True, text=True)
        peak, parameters = map(float, done.stdout.split())
        print(f"| `{act}` | {peak:.0f} | {parameters:.1f} |")


if __name__ == "__main__":
    main()
