"""Train for 30 steps on handwritten digits and compare each framework's losses with float64.

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
# The published learning rate is 0.5 for batches of 1024. The weight decay is large enough that 30
# steps show which parameters it applies to.
RECIPE = Recipe(steps=30, rate=0.5 * BATCH / 1024, weight_decay=0.01)
SHOWN = (1, 10, 30)


@dataclass(frozen=True)
class Run:
    """One training run and its tolerances.

    Parameters
    ----------
    network, act : str
        The network and its activation.
    recipe : Recipe
        How it is trained.
    bounds : tuple of three floats
        How far the losses in float32 may be from those in float64, up to steps 1, 10 and 30.
    seed : int
        Seeds the initial values.
    checkpoint : str
        A file whose weights replace the initial values of all but the classifier. None if empty.
    """

    network: str
    act: str
    recipe: Recipe
    bounds: tuple[float, float, float]
    seed: int = 0
    checkpoint: str = ""

    @property
    def name(self) -> str:
        """The name of the run, for tables and test ids."""
        return f"{self.network} {self.act}"

    def node(self) -> Node:
        """Build the network, with 10 classes and nothing random."""
        return deterministic(networks.create(self.network, self.act, 10).graph)

    def state(self) -> dict[str, NDArray]:
        """Make the initial state, exact in float32."""
        state = initial_state(self.node(), self.seed)
        if self.checkpoint:
            found = read_network(DATA / self.checkpoint).state
            state |= {path: array for path, array in found.items() if array.shape == state[path].shape}
        return state


# The bounds are what rounding explains. A loss is a mean of 16 terms near 2, each with one or two
# roundings of 1e-7 at the first step. The error stays of this size until a ReLU's input is so
# close to 0 that rounding decides its sign. That changes a loss by 1e-4 to 1e-2, as does a
# relative change of the parameters by 2^-22 in float64. The seed of Meta-ACON's run is one for
# which sixteen such changes stay within the bounds; a test repeats three. For ACON-C's, nine of
# twelve do, and no seed of 20 did better. TFNet amplifies errors: from its published initial
# values, with any learning rate of 1e-7 or more, a relative change of the parameters by 2^-24
# changes the float64 loss by 0.2 after ten steps. So its run starts from trained weights, with a
# small learning rate.
RUNS = (
    Run("acon/dcn", "acon_c", replace(RECIPE, rate=0.002), (1e-6, 1e-6, 2e-6)),
    Run("acon/dcn", "meta_acon", replace(RECIPE, rate=0.004), (1e-6, 1e-6, 2e-6), seed=24),
    Run("acon/tfnet_0_5", "acon_frelu", replace(RECIPE, rate=1e-6), (1e-5, 1e-4, 3e-4), checkpoint="tfnet_0.5.pth.tar"),
)


def batches() -> list[Batch]:
    """Return the 30 batches: images (16, 3, 32, 32), about -1 to 1, and classes (16,)."""
    with np.load(DIGITS) as digits:
        images, classes = digits["images"], digits["classes"].astype(np.int64)
    enlarged = np.kron(images, np.ones((1, 4, 4))) / 8.0 - 1.0
    noise = Stream("digits").uniform((len(images), 3, *enlarged.shape[1:]), -0.125, 0.125)
    whole = (enlarged[:, None] + noise).astype(np.float32)
    return [(whole[i : i + BATCH], classes[i : i + BATCH]) for i in range(0, RECIPE.steps * BATCH, BATCH)]


def reference(run: Run) -> NDArray[np.float64]:
    """Train the reference in float64 and return the losses."""
    return fit(run.node(), run.state(), batches(), run.recipe)


def train(backend: Backend, run: Run) -> NDArray[np.float64]:
    """Train a framework in float32 with its own optimiser and return the losses."""
    model = backend.build(run.node(), seed=None)
    model.load(run.state())
    return model.fit(batches(), run.recipe)


def stored() -> dict[str, NDArray[np.float64]]:
    """Read the stored float64 losses by name of the run."""
    return {name: np.array(losses) for name, losses in json.loads(STORED.read_text()).items()}


def regenerate() -> None:
    """Train in float64 and write the losses."""
    STORED.write_text(json.dumps({run.name: list(reference(run)) for run in RUNS}, indent=1) + "\n")


def divergence(losses: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the largest absolute difference of the losses up to steps 1, 10 and 30."""
    return tuple(float(np.abs(losses - exact)[:step].max()) for step in SHOWN)
