"""jax.export of our modules; the exported file runs in a process that imports only jax."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_networks import FUSED, NETWORKS, fused, size

pytestmark = [pytest.mark.backend("jax"), pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

ALONE = """
import sys
import jax
import numpy as np

with open("network.stablehlo", "rb") as file:
    network = jax.export.deserialize(bytearray(file.read()))
for size in (3, 2):
    outputs = jax.tree.leaves(network.call(np.load("x.npy")[:size]))
    np.savez(f"found{size}.npz", *outputs)
assert not [name for name in sys.modules if name.startswith(("acon", "flax"))]
"""


def check_export(model: Any, size: tuple[int, int], folder: Path) -> None:
    """Export, run elsewhere, and compare: 1e-5 of the largest output, at other batch sizes."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    random = np.random.default_rng(6)
    x = random.uniform(-2, 2, (3, *size, 3)).astype(np.float32)
    for _, statistic in nnx.iter_graph(model):  # move the statistics off their initial values
        if isinstance(statistic, nnx.BatchStat):
            statistic[...] = jnp.asarray(random.uniform(0.5, 1.5, statistic.shape).astype(np.float32))
    model.eval()
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(model))(jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32))
    (folder / "network.stablehlo").write_bytes(exported.serialize())
    np.save(folder / "x.npy", x)
    subprocess.run([sys.executable, "-c", ALONE], cwd=folder, check=True)
    expected = jax.tree.leaves(jax.jit(model)(x))
    for count in (3, 2):
        with np.load(folder / f"found{count}.npz") as found:
            assert len(found.files) == len(expected)
            for name, y in zip(found.files, expected, strict=True):
                scale = float(np.abs(y).max())
                assert scale > 0
                np.testing.assert_allclose(found[name], y[:count], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("network", "act", "options"), NETWORKS, ids=lambda each: str(each).rpartition("/")[2])
def test_networks(network: str, act: str, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_jax

    check_export(acon_jax.create(network, act, 7, **options), size(network), tmp_path)


@pytest.mark.parametrize(("network", "variant", "options"), FUSED, ids=lambda each: str(each).rpartition("/")[2])
def test_fused_networks(network: str, variant: int, options: dict[str, Any], tmp_path: Path) -> None:
    import acon_jax

    check_export(fused(acon_jax, network, variant, options), size(network), tmp_path)


def test_stages(tmp_path: Path) -> None:
    import acon_jax

    backbone = acon_jax.create("acon/shufflenet_v2_x0_5", features=("stem", "stage2"), repeats=(1, 1, 1))
    assert not hasattr(backbone, "classifier")
    check_export(backbone, (64, 96), tmp_path)
    (alone,) = acon_jax.create("acon/shufflenet_v2_x0_5", features=["stem"])(np.zeros((2, 64, 96, 3), np.float32))
    assert alone.shape == (2, 16, 24, 24)


def test_export_page_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets run, the second without this package; a direct call of the network agrees."""
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## JAX\n")[2].partition("\n## ")[0]
    export, run = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    made: dict[str, Any] = {}
    exec(export, made)
    assert "acon" not in run
    run += 'import numpy as np\nnp.savez("found.npz", x=images, y=logits)'
    subprocess.run([sys.executable, "-c", run], check=True)
    with np.load("found.npz") as found:
        y = made["model"](found["x"])
        np.testing.assert_allclose(found["y"], y, rtol=0, atol=1e-5 * np.abs(y).max())
