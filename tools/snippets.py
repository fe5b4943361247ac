"""Write every Python snippet of the README and docs to a file each, for type checkers.

Run `python tools/snippets.py FOLDER`.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> None:
    """Replace the folder by one file for each snippet."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)):
            (folder / f"{page.stem.lower()}_{number}.py").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
