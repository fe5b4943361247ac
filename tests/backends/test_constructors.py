"""What the activation classes show when they are printed, and how their constructors refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from acon_core import backends
from acon_core.backends import Backend
from acon_core.errors import SpecError


@pytest.fixture
def package(backend: Backend) -> ModuleType:
    if backend.name == "numpy":
        pytest.skip("the reference has no classes")
    return import_module(backends.packages()[backend.name])


@pytest.fixture
def keywords(backend: Backend) -> dict[str, Any]:
    return {"rngs": import_module("flax.nnx").Rngs(0)} if backend.name == "jax" else {}


def test_print(backend: Backend, package: ModuleType, keywords: dict[str, Any]) -> None:
    plain = str(package.AconC(7, **keywords))
    nested = str(package.MetaAconC(6, reduction=3, level="channel", channel_axis=2, **keywords))
    alpha = str(package.RepAct(variant=2, **keywords))
    if backend.name == "jax":
        for part in ("p1=Param( # 7", "channels=7", "channel_axis=-1", "init='published'", "shared=False"):
            assert part in plain
        for part in ("channels=6", "reduction=3", "channel_axis=2", "norm='batch'", "fc1=Conv2d("):
            assert part in nested
        assert "variant=2" in alpha
        return
    shape = "(1, 7, 1, 1)"
    assert plain == (f"AconC(7, channel_axis=1, init='published', shared=False, p1={shape}, p2={shape}, beta={shape})")
    head = re.sub(r"\s+", " ", nested.partition("(mean)")[0]).replace("( ", "(")
    assert head == (
        "MetaAconC(6, channel_axis=2, reduction=3, norm='batch', init='published', level='channel', reduce='sum', "
        "generator='released', p1=(1, 6, 1, 1), p2=(1, 6, 1, 1) "
    )
    assert "(fc1): Conv2" in nested
    assert "(acon): Acon()" in nested
    assert alpha == "RepAct(variant=2, weights=(4,), alpha=(1,))"
    assert str(package.PReLU(**keywords)) == "PReLU(channel_axis=1, shared=True, weight=(1,))"


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p, k: p.AconC(8, shraed=True, **k), TypeError, r"^AconC: 'shraed' is not an option; did you mean shared\?"),
        (lambda p, k: p.AconC(chanels=8, **k), TypeError, r"^AconC: 'chanels' is not an option; did you mean channels\?"),
        (lambda p, k: p.AconC(**k), TypeError, "^AconC: missing a required argument: 'channels'; it takes channels, init, "),
        (lambda p, k: p.AconA(8, 1, 2, 3, **k), TypeError, "^AconA: too many positional arguments; it takes channels"),
        (lambda p, k: p.AconC(8, init="papr", **k), SpecError, r"^AconC: expected init in published, paper, .* mean paper\?"),
        (lambda p, k: p.MetaAconC(8, level="pixle", **k), SpecError, r"^MetaAconC: expected level in .* mean pixel\?"),
        (
            lambda p, k: p.activation("acon_c", 8, shraed=True, **k),
            SpecError,
            r"'shraed' is not an option; did you mean shared\?",
        ),
        (lambda p, k: p.activation("metacon", 8, **k), SpecError, r"'metacon' is not known; did you mean meta_acon"),
        (lambda p, k: p.MetaAcon, AttributeError, r"no attribute 'MetaAcon'; did you mean MetaAconC\?"),
    ],
)
def test_errors_name_the_class_and_the_nearest_option(
    package: ModuleType, keywords: dict[str, Any], make: Callable[..., Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make(package, keywords)
