"""megengine.jit dumps of our modules; the dump runs in a process that imports only megengine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_networks import FUSED, NETWORKS, fused, size

pytestmark = [pytest.mark.backend("megengine"), pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

ALONE = """
import sys
import numpy as np
from megengine.utils.comp_graph_tools import GraphInference

network = GraphInference("network.mge")
for size in (3, 2):
    found = network.run(inp_dict={"image": np.load(f"x{size}.npy")})
    np.savez(f"found{size}.npz", **found)
assert not [name for name in sys.modules if name.startswith("acon")]
"""


def check_dump(model: Any, size: tuple[int, int], folder: Path) -> None:
    """Dump, run elsewhere, and compare: 1e-5 of the largest output, at two batch sizes."""
    import megengine as mge
    from megengine.jit import trace

    random = np.random.default_rng(6)
    arrays = {count: random.uniform(-2, 2, (count, 3, *size)).astype(np.float32) for count in (5, 3, 2)}
    model.train()
    model(mge.Tensor(arrays[5]))  # move the statistics off their initial values
    model.eval()
    run = trace(model, symbolic=True, capture_as_const=True)
    traced = run(mge.Tensor(arrays[3]))
    names = [f"y{index}" for index in range(len(traced) if isinstance(traced, tuple) else 1)]
    run.dump(str(folder / "network.mge"), arg_names=["image"], output_names=names)
    for count in (3, 2):
        np.save(folder / f"x{count}.npy", arrays[count])
    subprocess.run([sys.executable, "-c", ALONE], cwd=folder, check=True)
    for count in (3, 2):
        outputs = model(mge.Tensor(arrays[count]))
        expected = [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]
        with np.load(folder / f"found{count}.npz") as found:
            assert sorted(found.files) == names
            for name, y in zip(names, expected, strict=True):
                scale = float(np.abs(y).max())
                assert scale > 0
                np.testing.assert_allclose(found[name], y, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("network", "act", "options"), NETWORKS, ids=lambda each: str(each).rpartition("/")[2])
def test_networks(network: str, act: str, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_megengine

    check_dump(acon_megengine.create(network, act, 7, **options), size(network), tmp_path)


@pytest.mark.parametrize(("network", "variant", "options"), FUSED, ids=lambda each: str(each).rpartition("/")[2])
def test_fused_networks(network: str, variant: int, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_megengine

    check_dump(fused(acon_megengine, network, variant, options), size(network), tmp_path)


def test_export_page_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets run, the second without this package; a direct call of the network agrees."""
    import megengine as mge

    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## MegEngine\n")[2].partition("\n## ")[0]
    dump, run = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    made: dict[str, Any] = {}
    exec(dump, made)
    assert "acon" not in run
    subprocess.run([sys.executable, "-c", run + 'np.savez("found.npz", x=images, y=logits)'], check=True)
    with np.load("found.npz") as found:
        y = made["model"](mge.Tensor(found["x"])).numpy()
        np.testing.assert_allclose(found["y"], y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_stages(tmp_path: Path) -> None:
    import acon_megengine

    backbone = acon_megengine.create("acon/shufflenet_v2_x0_5", features=("stem", "stage2"), repeats=(1, 1, 1))
    assert not hasattr(backbone, "classifier")
    check_dump(backbone, (64, 96), tmp_path)
