"""torch.onnx.export of our modules; ONNX Runtime runs the file in a process without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_networks import FUSED, NETWORKS, fused, size

pytestmark = [pytest.mark.backend("torch"), pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ALONE = """
import sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])
np.savez("found.npz", *session.run(None, {"images": np.load("x.npy")}))
assert not [name for name in sys.modules if name.startswith("acon") or name == "torch"]
"""


def check_export(model: Any, size: tuple[int, int], sizes: dict[int, str], folder: Path) -> None:
    """Export, run elsewhere, and compare: 1e-5 of the largest output.

    The batch size, and the image size where it is dynamic, differ from those of the export.
    """
    import torch

    torch.manual_seed(6)
    other = (size[0] + 32, size[1] + 64) if 2 in sizes else size
    with torch.no_grad():
        model.train()(4 * torch.rand(5, 3, *size) - 2)  # move the statistics off their initial values
        model.eval()
        x = 4 * torch.rand(3, 3, *other) - 2
        outputs = model(x)
    torch.onnx.export(
        model, (torch.rand(2, 3, *size),), folder / "network.onnx", dynamo=True, input_names=["images"],
        dynamic_shapes={"x": {0: "batch"} | sizes},
    )  # fmt: skip
    np.save(folder / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", ALONE], cwd=folder, check=True)
    with np.load(folder / "found.npz") as found:
        for name, output in zip(found.files, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            scale = float(output.abs().max())
            assert scale > 0
            np.testing.assert_allclose(found[name], output.numpy(), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("network", "act", "options"), NETWORKS, ids=lambda each: str(each).rpartition("/")[2])
def test_networks(network: str, act: str, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_torch

    check_export(acon_torch.create(network, act, 7, **options), size(network), {}, tmp_path)


@pytest.mark.parametrize(("network", "variant", "options"), FUSED, ids=lambda each: str(each).rpartition("/")[2])
def test_fused_networks(network: str, variant: int, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_torch

    check_export(fused(acon_torch, network, variant, options), size(network), {}, tmp_path)


def test_stages(tmp_path: Path) -> None:
    import acon_torch

    backbone = acon_torch.create("acon/tfnet_0_5", "acon_c", features=("stem", "stage2"))
    check_export(backbone, (64, 96), {}, tmp_path)


def test_images_of_any_size(tmp_path: Path) -> None:
    import acon_torch

    model = acon_torch.create("acon/shufflenet_v2_x0_5", "acon_frelu", num_classes=7, repeats=(1, 1, 1))
    check_export(model, (64, 96), {2: "height", 3: "width"}, tmp_path)


def test_export_page_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    section = page.partition("## PyTorch")[2].partition("\n## ")[0]
    exporting, running = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(exporting, {})
    subprocess.run([sys.executable, "-c", f"{running}\nassert logits.shape == (3, 1000)"], check=True)
