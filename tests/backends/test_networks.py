"""Networks that accept a single image size refuse all others, in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from acon_core.backends import Backend, Model
from acon_core.errors import SpecError
from acon_core.networks import create

# Options, the image size, and other sizes: equally many patches, a partial patch, not square.
SIZES: dict[str, tuple[dict[str, Any], int, list[tuple[int, int]]]] = {
    "repact/vit_base_patch16_224": ({"depth": 1, "num_classes": 3}, 224, [(448, 112), (112, 448), (225, 224), (224, 240)]),
    "timm/swin_tiny_patch4_window7_224": ({"depths": (1, 1, 1, 2), "num_classes": 3}, 224, [(448, 112), (224, 256)]),
    "acon/dcn": ({"num_classes": 3}, 32, [(33, 32), (32, 34), (64, 16)]),
}


@pytest.fixture(scope="module", params=SIZES)
def network(request: pytest.FixtureRequest, backend: Backend) -> tuple[str, Model]:
    return request.param, backend.build(create(request.param, **SIZES[request.param][0]).graph)


def test_wrong_image_size_is_refused(network: tuple[str, Model]) -> None:
    name, model = network
    _, size, others = SIZES[name]
    assert model(np.ones((2, 3, size, size), np.float32)).y.shape == (2, 3)
    for other in others:
        message = rf"ImageSize: expected \(N, C, {size}, {size}\), .*, found shape .*{other[0]}, {other[1]}"
        with pytest.raises(SpecError, match=message):
            model(np.ones((2, 3, *other), np.float32))
