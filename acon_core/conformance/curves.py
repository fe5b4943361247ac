"""Training curves: 30 steps of the published recipe on handwritten digits, each framework's losses against float64's.

The images are the first 480 of the digits that scikit-learn ships (UCI; Alpaydin and Kaynak 1998;
CC BY 4.0), 8x8 pixels enlarged to 32x32, in three channels, with a little noise, so that no two
pixels of a pooling window are equal. `tools/training_curves.py` makes the table and the picture of
docs/training.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acon_core import networks
from acon_core.backends import Backend
from acon_core.checkpoint import read_network
from acon_core.conformance.cases import DATA
from acon_core.random import Stream
from acon_core.reference.training import fit
from acon_core.spec import Node, deterministic, initial_state
from acon_core.training import Batch, Recipe

DIGITS = DATA / "digits_8x8.npz"
STORED = DATA / "curves.json"
BATCH = 16
# The published rate is 0.5 for batches of 1024. The decay is large enough to show in 30 steps to what it was applied.
RECIPE = Recipe(steps=30, rate=0.5 * BATCH / 1024, weight_decay=0.01)
SHOWN = (1, 10, 30)


@dataclass(frozen=True)
class Run:
    """One network that is trained in `recipe`, and how far float32's losses may be off up to steps 1, 10 and 30.

    It starts from its published initial values under `seed`; with `checkpoint`, all but the classifier comes from that file.
    """

    network: str
    act: str
    recipe: Recipe
    bounds: tuple[float, float, float]
    seed: int = 0
    checkpoint: str = ""

    @property
    def name(self) -> str:
        return f"{self.network} {self.act}"

    def node(self) -> Node:
        return deterministic(networks.create(self.network, self.act, 10).graph)

    def state(self) -> dict[str, NDArray]:
        """What every framework starts from, exact in float32."""
        state = initial_state(self.node(), self.seed)
        if self.checkpoint:
            found = read_network(DATA / self.checkpoint).state
            state |= {path: array for path, array in found.items() if array.shape == state[path].shape}
        return state


# What rounding explains. A loss is a mean of 16 terms near 2, each a rounding or two of 1e-7 off at the first step, and in step
# thereafter until a ReLU lies so near its kink that rounding decides on which side: that moves a loss by 1e-4 to 1e-2, in
# float64 too when parameters are moved by 2^-22 of themselves. The seeds are those of a few in which none does so early.
# TFNet amplifies: from its published initial values, and at any rate from 1e-7 up, the float64 loss is another by 0.2 after
# ten steps when parameters are moved by 2^-24 of themselves. So it starts from weights that have settled, and goes slowly.
RUNS = (
    Run("acon/dcn", "acon_c", replace(RECIPE, rate=0.002), (1e-6, 1e-6, 2e-6)),
    Run("acon/dcn", "meta_acon", RECIPE, (1e-6, 1e-6, 6e-6), seed=2),
    Run("acon/tfnet_0_5", "acon_frelu", replace(RECIPE, rate=1e-6), (1e-5, 1e-4, 3e-4), checkpoint="tfnet_0.5.pth.tar"),
)


def batches() -> list[Batch]:
    """The 30 batches in order: (16, 3, 32, 32), nearly from -1 to 1, and their classes."""
    with np.load(DIGITS) as digits:
        images, classes = digits["images"], digits["classes"].astype(np.int64)
    enlarged = np.kron(images, np.ones((1, 4, 4))) / 8.0 - 1.0
    noise = Stream("digits").uniform((len(images), 3, *enlarged.shape[1:]), -0.125, 0.125)
    whole = (enlarged[:, None] + noise).astype(np.float32)
    return [(whole[i : i + BATCH], classes[i : i + BATCH]) for i in range(0, RECIPE.steps * BATCH, BATCH)]


def reference(run: Run) -> NDArray[np.float64]:
    """The losses in float64 from the same initial state, which is exact in float32."""
    return fit(run.node(), run.state(), batches(), run.recipe)


def train(backend: Backend, run: Run) -> NDArray[np.float64]:
    """The losses of a framework in float32, with its own optimiser."""
    model = backend.build(run.node(), seed=None)
    model.load(run.state())
    return model.fit(batches(), run.recipe)


def stored() -> dict[str, NDArray[np.float64]]:
    """The float64 losses by the run's name, as `regenerate` wrote them."""
    return {name: np.array(losses) for name, losses in json.loads(STORED.read_text()).items()}


def regenerate() -> None:
    """Train in float64 and write the losses."""
    STORED.write_text(json.dumps({run.name: list(reference(run)) for run in RUNS}, indent=1) + "\n")


def divergence(losses: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, ...]:
    """The largest |difference| of the losses up to steps 1, 10 and 30."""
    return tuple(float(np.abs(losses - exact)[:step].max()) for step in SHOWN)
