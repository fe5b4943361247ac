"""Errors of the other gated functions against exact values, element by element."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from gated_accuracy import BOUNDS, FUNCTIONS, REGIONS, measure
from repository import ROOT

from acon_core import kernels
from acon_core.backends import Backend


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_elementwise_errors_within_bounds(backend: Backend, name: str, region: str) -> None:
    for quantity, error in measure(backend, name, region).items():
        assert error <= BOUNDS[quantity], quantity


@pytest.mark.backend("torch")
@pytest.mark.skipif(kernels.library() is None, reason=f"the kernel library: {kernels.status()}")
@pytest.mark.parametrize("width", ["16", "32"])
def test_errors_within_bounds_at_narrower_vectors(width: str) -> None:
    """The tests above and those of ACON-C, with the library held to vectors of this many bytes."""
    files = ["tests/backends/test_accuracy.py", "tests/backends/test_gated_accuracy.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--backend", "torch", *files]
    environment = os.environ | {"ACON_KERNELS_WIDTH": width}
    done = subprocess.run(
        [*command, "-k", "elementwise or summed"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"with {8 * int(width)}-bit vectors" in kernel_status(environment)


def kernel_status(environment: dict[str, str]) -> str:
    """Return what a process with this environment says of the kernel library."""
    code = "from acon_core import kernels; print(kernels.status())"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
