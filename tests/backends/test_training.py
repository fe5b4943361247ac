"""Four steps of the published recipe with the framework's own optimizer, compared with float64."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core import spec, training
from acon_core.backends import Backend
from acon_core.conformance.tolerances import TOLERANCES
from acon_core.numerics import scaled_error
from acon_core.random import Stream
from acon_core.reference.training import fit

CLASSES = 4
NETWORK = spec.sequential(
    conv=spec.Conv2d(3, 5, (3, 2), stride=2), norm=spec.BatchNorm(5), act=spec.AconC(5), pool=spec.GlobalAvgPool(),
    flatten=spec.Flatten(), head=spec.Linear(5, CLASSES),
)  # fmt: skip
# Each number changes losses and weights by far more than the bounds. All are exact in float32, in
# which Paddle stores them.
RECIPE = training.Recipe(steps=4, rate=0.25, momentum=0.75, weight_decay=0.0625, label_smoothing=0.25)


def batches() -> list[training.Batch]:
    """Make four batches, one of them smaller."""
    made = []
    for step, size in enumerate((6, 6, 5, 6)):
        random = Stream("training", step)
        images = random.uniform((size, 3, 9, 8), -1.0, 1.0).astype(np.float32)
        made.append((images, random.uniform((size,), 0.0, CLASSES).astype(np.int64)))
    return made


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_against_float64(backend: Backend, dtype: str) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"unsupported: {backend.name} does not compute in {dtype}")
    model = backend.build(NETWORK, dtype=dtype, seed=3)
    expected = model.state()
    expected_losses = fit(NETWORK, expected, batches(), RECIPE)
    losses = model.fit(batches(), RECIPE)
    assert losses.dtype == np.float64
    assert scaled_error(losses, expected_losses, np.abs(expected_losses).max()) <= TOLERANCES["training", "y", dtype].bound
    found = model.state()
    spread = float(np.sqrt(expected["norm.running_var"].max()))
    for path, param in spec.named_params(NETWORK).items():
        if param.kind == "counter":
            continue
        quantity = "dparams" if param.kind == "weight" else path.rpartition(".")[2]
        scale = spread if quantity == "running_mean" else float(np.abs(expected[path]).max())
        error = scaled_error(found[path], expected[path], scale)
        assert error <= TOLERANCES["training", quantity, dtype].bound, path  # type: ignore[index]
