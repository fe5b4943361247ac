"""Write schemas.json anew: run it when a change of names, shapes, kinds or decay is meant."""

from __future__ import annotations

import json
from pathlib import Path

from test_spec import pinned, schema

if __name__ == "__main__":
    found = {name: schema(node) for name, node in pinned()}
    Path(__file__).with_name("schemas.json").write_text(json.dumps(found, indent=1) + "\n")
