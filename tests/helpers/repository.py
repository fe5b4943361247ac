"""The repository's folders: the wheel has neither checkpoints nor photographs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "conformance_data"
