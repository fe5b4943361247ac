"""Write published.json from an installed package: torchvision, timm or paddleclas.

Run `python tests/helpers/pin_published.py torchvision|timm|paddleclas` in an environment with that
package. The tests then need no package but ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from published_networks import CLASSES, PINNED, RUN, WHOLE, digest, filled, image


def torch_module(name: str, classes: int, options: dict[str, Any]) -> Any:
    """Build the package's own module in float64."""
    package, _, model = name.partition("/")
    if package == "timm":
        import timm

        names = {"image_size": "img_size"}
        return timm.create_model(model, num_classes=classes, **{names.get(each, each): options[each] for each in options})
    import torchvision

    if "repeats" in options:
        widths = {"0_5": (24, 48, 96, 192, 1024)}[model.rpartition("x")[2]]
        return torchvision.models.ShuffleNetV2(list(options["repeats"]), list(widths), classes)
    return getattr(torchvision.models, model)(num_classes=classes, **options)


def run_torch(name: str, options: dict[str, Any], size: tuple[int, int]) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Return the shapes of the module's state dict, and its outputs in evaluation."""
    import torch

    module = torch_module(name, CLASSES, options).double().eval()
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.from_numpy(value) for key, value in filled(shapes).items()})
    with torch.no_grad():
        return shapes, module(torch.from_numpy(image(size))).numpy()


def paddle_module(name: str, classes: int) -> Any:
    """Build PaddleClas's own layer in float64."""
    from ppcls.arch.backbone.legendary_models import resnet

    depth = name.rpartition("resnet")[2]
    return getattr(resnet, f"ResNet{depth}")(class_num=classes).to(dtype="float64")


def run_paddle(name: str, size: tuple[int, int]) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Return the shapes of the layer's state dict, and its outputs in evaluation."""
    import paddle

    layer = paddle_module(name, CLASSES)
    shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    layer.set_state_dict(filled(shapes))
    layer.eval()
    return shapes, layer(paddle.to_tensor(image(size))).numpy()


def pin(package: str) -> dict[str, Any]:
    """Return the stored entry of every network of the package."""
    found: dict[str, Any] = {}
    for name in (name for name in WHOLE if name.startswith(package)):
        module = paddle_module(name, 1000) if package == "paddleclas" else torch_module(name, 1000, {})
        found[name] = {"whole": digest({key: tuple(value.shape) for key, value in module.state_dict().items()})}
    for name in (name for name in RUN if name.startswith(package)):
        options, size = RUN[name]
        shapes, outputs = run_paddle(name, size) if package == "paddleclas" else run_torch(name, options, size)
        found[name] |= {"run": digest(shapes), "outputs": outputs.ravel().tolist()}
    return found


if __name__ == "__main__":
    stored = json.loads(PINNED.read_text()) if PINNED.exists() else {}
    PINNED.write_text(json.dumps(dict(sorted({**stored, **pin(sys.argv[1])}.items())), indent=1) + "\n")
