"""paddle.jit.save on our layers; the saved model runs in a process that imports only paddle."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_networks import FUSED, NETWORKS, fused, size

pytestmark = [pytest.mark.backend("paddle"), pytest.mark.slow]

ALONE = """
import sys
import numpy as np
import paddle

network = paddle.jit.load("network")
network.eval()
x = paddle.to_tensor(np.load("x.npy"))
for count in (3, 2):
    outputs = network(x[:count])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    np.savez(f"found_{count}.npz", *[output.numpy() for output in outputs])
assert not [name for name in sys.modules if name.startswith("acon")]
"""


def check_save(model: Any, size: tuple[int, int], folder: Path) -> None:
    """Save, run elsewhere, and compare: 1e-5 of the largest output, at other batch sizes."""
    import paddle
    from paddle.static import InputSpec

    random = np.random.default_rng(6)
    x, more = (paddle.to_tensor(random.uniform(-2, 2, (count, 3, *size)).astype("float32")) for count in (3, 5))
    with paddle.no_grad():
        model(more)  # in training: move the statistics off their initial values
        model.eval()
        outputs = model(x)
    paddle.jit.save(model, str(folder / "network"), input_spec=[InputSpec([None, 3, *size], "float32")])
    np.save(folder / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", ALONE], cwd=folder, check=True)
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    for count in (3, 2):
        with np.load(folder / f"found_{count}.npz") as found:
            for name, output in zip(found.files, expected, strict=True):
                scale = float(output.abs().max())
                assert scale > 0
                np.testing.assert_allclose(found[name], output[:count].numpy(), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("network", "act", "options"), NETWORKS, ids=lambda each: str(each).rpartition("/")[2])
def test_networks(network: str, act: str, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_paddle

    check_save(acon_paddle.create(network, act, 7, **options), size(network), tmp_path)


@pytest.mark.parametrize(("network", "variant", "options"), FUSED, ids=lambda each: str(each).rpartition("/")[2])
def test_fused_networks(network: str, variant: int, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_paddle

    check_save(fused(acon_paddle, network, variant, options), size(network), tmp_path)


def test_stages(tmp_path: Path) -> None:
    import acon_paddle

    backbone = acon_paddle.create("acon/shufflenet_v2_x0_5", "meta_acon", features=("stem", "stage2"), repeats=(1, 1, 1))
    check_save(backbone, (64, 96), tmp_path)


def test_export_page_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    section = page.partition("## PaddlePaddle")[2].partition("\n## ")[0]
    saving, running = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(saving, {})
    subprocess.run([sys.executable, "-c", f"{running}\nassert logits.shape == [2, 1000]"], check=True)
