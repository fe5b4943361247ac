"""`acon run`: images are checked, and nothing is imported from the current folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hidden import without
from small_checkpoints import write_smallest

from acon_core.checkpoint import NetworkQuery
from acon_core.errors import AconError
from acon_core.networks import Preprocessing, create
from acon_core.verification.run import check_images, run_checkpoint

ACON = Path(sys.executable).with_name("acon")


def trap(folder: Path) -> Path:
    """Fill a folder with modules that leave a mark when they are imported."""
    mark = folder / "mark"
    code = f"open({str(mark)!r}, 'a').write(__name__)\n"
    for name in ("numpy", "torch", "acon_torch", "acon_core", "evil"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    (folder / "evil-1.0.dist-info").mkdir()
    (folder / "evil-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (folder / "evil-1.0.dist-info" / "entry_points.txt").write_text("[acon.backends]\nevil = evil\n")
    return mark


RGB = Preprocessing("RGB", (0.0, 1.0), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 192, 208)


def test_check_images() -> None:
    bgr = create("acon/resnet50").input
    photo = np.linspace(0, 255, 3 * 8 * 6).reshape(1, 3, 8, 6)
    assert check_images(bgr, photo, Path("x.npz")) == []
    assert "values from 0 to 1 only" in check_images(bgr, photo / 255, Path("x.npz"))[0]
    with pytest.raises(AconError, match="expected 0 to 255"):
        check_images(bgr, photo - 30, Path("x.npz"))
    assert RGB.bounds == pytest.approx((-2.0, (1 - 0.4) / 0.2))
    assert check_images(RGB, (photo / 255 - 0.5) / 0.25, Path("x.npz")) == []
    assert check_images(None, photo * 1e6, Path("x.npz")) == []


def test_output_is_an_input(tmp_path: Path) -> None:
    path, images = write_smallest(tmp_path / "a"), tmp_path / "x.npz"
    np.savez(images, x=np.zeros((1, 3, 32, 32), np.uint8))
    (tmp_path / "link").hardlink_to(path)
    for output in (path, images, tmp_path / "link"):
        with pytest.raises(AconError, match="is an input file"):
            run_checkpoint(path, images, output, "numpy", NetworkQuery(), lambda done, total: None)


@pytest.mark.parametrize("command", [["check", "a"], ["inspect", "a"], ["convert", "a", "b.pth"], ["diff", "a", "a"], ["list"]])
def test_nothing_in_the_current_folder_is_run(tmp_path: Path, command: list[str]) -> None:
    mark = trap(tmp_path)
    write_smallest(tmp_path / "a")
    done = subprocess.run([ACON, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_missing_framework_in_the_current_folder(tmp_path: Path) -> None:
    mark = trap(tmp_path)
    env = without(tmp_path / "hook", "torch")
    write_smallest(tmp_path / "a")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 32, 32), np.uint8))
    command = [ACON, "run", "a", "--input", "x.npz", "--output", "y.npz", "--backend", "torch"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, mark.exists()) == (2, False)
    assert "'torch' cannot be used here" in done.stderr


def test_own_function_in_the_current_folder(tmp_path: Path) -> None:
    mark = trap(tmp_path)
    (tmp_path / "mine.py").write_text("from acon_core import spec\ndef net():\n    return spec.sequential(a=spec.AconC(3))\n")
    done = subprocess.run(
        [ACON, "summary", "mine:net", "--size", "9"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^parameters: +9$", done.stdout, re.MULTILINE)
    assert not mark.exists()
