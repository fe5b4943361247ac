"""Run a process as if a framework were not installed, whether or not it is."""

from __future__ import annotations

import os
from pathlib import Path

HOOK = """
import sys
from importlib.machinery import PathFinder


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {names!r}:
            found = PathFinder.find_spec(name, [each for each in sys.path if "-packages" not in each])
            if found is None:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
            return found


sys.meta_path.insert(0, Hidden)
"""


def without(folder: Path, *names: str) -> dict[str, str]:
    """Write the hook to a new folder and return an environment in which these packages are missing.

    They are found in every other folder of the path, such as the current one.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(names=set(names)))
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}
