"""Draw docs/acon.png: ACON-C and its derivative for several beta. Needs the extra `plot`.

Run `python tools/plot_acon.py docs/acon.png` or `python -m nox -s picture`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from acon_core.reference import forward
from acon_core.spec import AconC

P1, P2 = 1.2, -0.2
BETAS = (0.0, 0.5, 1.0, 2.0, 8.0)


def main() -> None:
    """Draw the two panels and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    x = np.linspace(-4.0, 4.0, 801)
    node = AconC(1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
    for beta, color in zip(BETAS, plt.get_cmap("viridis")(np.linspace(0.9, 0.0, len(BETAS))), strict=True):
        values = {"p1": P1, "p2": P2, "beta": beta}
        state = {name: np.full((1, 1, 1, 1), value) for name, value in values.items()}
        result = forward(node, state, [x[:, None]])
        derivative = result.vjp((np.ones((x.size, 1)),)).inputs[0]
        left.plot(x, result.values[0][:, 0], color=color, label=f"β = {beta:g}")
        right.plot(x, derivative[:, 0], color=color)
    for axes, name in ((left, "ACON-C"), (right, "its derivative")):
        axes.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
        axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
        axes.set_title(f"{name}, p₁ = {P1:g}, p₂ = {P2:g}", fontsize=9)
        axes.set_xlabel("x")
    left.legend(frameon=False)
    figure.savefig(target, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main()
