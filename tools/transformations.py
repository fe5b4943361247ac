"""Make docs/transformations.md: transformations of each framework by activation.

`python tools/transformations.py torch docs/transformations.md` runs every cell of PyTorch, and
writes its tables. `python -m nox -s transformations` does so for every backend.

A framework's cells are the tuple `TRANSFORMATIONS` of `tests/helpers/transformations_NAME.py`. A
cell that is not "yes" says so there, with the reason. `tests/backends/test_transformations.py` runs
the same function for each cell as this script.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHANNELS = 8
TITLES = {"torch": "PyTorch", "jax": "JAX", "paddle": "PaddlePaddle", "megengine": "MegEngine"}


@dataclass(frozen=True)
class Subject:
    """What is transformed: an activation of 8 channels, or a small network with 7 classes.

    `title` is the heading of its column. `name` is that of `activation` or `create` of the backend.
    `act` and `options` are those of `create`. `size` is the height and width of the images.
    """

    title: str
    name: str
    act: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (5, 6)


ACTIVATIONS = (
    Subject("PReLU", "prelu(shared=False)"),
    Subject("Swish", "swish"),
    Subject("AReLU", "arelu"),
    Subject("DyReLU", "dyrelu"),
    Subject("FReLU", "frelu"),
    Subject("AconA", "acon_a"),
    Subject("AconB", "acon_b"),
    Subject("AconC", "acon_c"),
    Subject("MetaAconC", "meta_acon"),
    Subject("MetaAconC, pixel", "meta_acon(level=pixel)"),
    Subject("AconFReLU", "acon_frelu"),
    Subject("RepAct", "repact(variant=3)"),
    Subject("FusedRepAct", "fused_repact(shift=True)"),
)
"""One of each public class, and Meta-ACON of another level."""

NETWORKS = (
    Subject("ShuffleNetV2", "acon/shufflenet_v2_x0_5", "meta_acon", {"repeats": (1, 1, 1)}, (32, 40)),
    Subject("ResNet", "acon/resnet18", "acon_c", {}, (32, 40)),
    Subject("TFNet", "acon/tfnet_0_5", "acon_frelu", {"repeats": (1, 1, 1, 1)}, (32, 40)),
    Subject("DCN", "acon/dcn", "meta_acon", {}, (32, 32)),
    Subject("MobileNetV3", "repact/mobilenet_v3_small", "repact(variant=2)", {}, (32, 40)),
    Subject("Swin", "repact/swin_tiny_patch4_window7_224", "repact(variant=1)", {"depths": (1, 2, 1, 1)}, (56, 64)),
    Subject("ViT", "repact/vit_base_patch16_224", "repact(variant=3)", {"depth": 1, "image_size": 32}, (32, 32)),
)
"""A small network of each family."""


@dataclass(frozen=True)
class Refusal:
    """Why a transformation does not work. `error` is part of the text of its error."""

    reason: str
    error: str


@dataclass(frozen=True)
class Transformation:
    """A row: `check` transforms a subject, and raises an error where the result is not right.

    `name` is the framework's own, `about` says what a cell checks. `refused` has the columns, by
    title, that are not "yes". `on` is what the row is run for.
    """

    name: str
    about: str
    check: Callable[[Subject], None]
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    on: tuple[Subject, ...] = ACTIVATIONS + NETWORKS

    def verify(self, subject: Subject) -> None:
        """Run a cell. Raise AssertionError where it is not as the table says."""
        refusal = self.refused.get(subject.title)
        if refusal is None:
            self.check(subject)
            return
        try:
            self.check(subject)
        except Exception as error:
            if refusal.error in str(error):
                return
            raise AssertionError(f"{self.name}, {subject.title}: expected {refusal.error!r}, found: {error}") from error
        raise AssertionError(f"{self.name}, {subject.title}: works; take it out of `refused`")


def transformations(backend: str) -> tuple[Transformation, ...]:
    """Return the rows of a backend. They need its framework."""
    if importlib.util.find_spec(f"transformations_{backend}") is None:
        return ()
    found: tuple[Transformation, ...] = importlib.import_module(f"transformations_{backend}").TRANSFORMATIONS
    return found


def cells(backend: str) -> Iterator[tuple[Transformation, Subject]]:
    """Yield every cell of a backend."""
    for row in transformations(backend):
        for subject in row.on:
            yield row, subject


def _table(rows: tuple[Transformation, ...], subjects: tuple[Subject, ...], reasons: list[str]) -> list[str]:
    """Format as Markdown: a row per transformation, a column per subject; collect the reasons."""
    lines = [f"| | {' | '.join(subject.title for subject in subjects)} |", f"|---|{'---|' * len(subjects)}"]
    for row in rows:
        found = []
        for subject in subjects:
            refusal = row.refused.get(subject.title)
            if refusal is not None and refusal.reason not in reasons:
                reasons.append(refusal.reason)
            word = "yes" if refusal is None else f"no ({reasons.index(refusal.reason) + 1})"
            found.append(word if subject in row.on else "")
        if any(found):
            lines.append(f"| {row.name} | {' | '.join(found)} |")
    return lines


def _numbered(reasons: list[str]) -> Iterator[str]:
    for number, reason in enumerate(reasons, 1):
        yield from textwrap.wrap(f"{number}. {reason}", 100, subsequent_indent="   ")


def section(backend: str) -> str:
    """Return the text between the marks of a backend."""
    rows = transformations(backend)
    if not rows:
        return ""
    reasons: list[str] = []
    meanings = [line for row in rows for line in textwrap.wrap(f"- {row.name}: {row.about}.", 100, subsequent_indent="  ")]
    tables = ["", *_table(rows, ACTIVATIONS, reasons), "", *_table(rows, NETWORKS, reasons)]
    refusals = ["", *_numbered(reasons)] if reasons else []
    return "\n".join([f"## {TITLES[backend]}", "", *meanings, *tables, *refusals])


def marks(backend: str) -> tuple[str, str]:
    """Return the lines of the page before and after the section of a backend."""
    return f"<!-- {backend} -->\n", f"\n<!-- end of {backend} -->\n"


def replaced(page: str, backend: str) -> str:
    """Return the page with the section of a backend as it is to be."""
    start, end = marks(backend)
    before, _, rest = page.partition(start)
    after = rest.partition(end)[2]
    return before + start + section(backend) + end + after


def main() -> int:
    """Run the cells of a backend and write its section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backend", choices=TITLES)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    wrong = []
    for row, subject in cells(arguments.backend):
        try:
            row.verify(subject)
        except Exception as error:
            wrong.append(f"{row.name}, {subject.title}: {type(error).__name__}: {error}")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    arguments.page.write_text(replaced(arguments.page.read_text(), arguments.backend))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
    sys.modules["transformations"] = sys.modules["__main__"]
    sys.exit(main())
