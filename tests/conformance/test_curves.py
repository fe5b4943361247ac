"""The training curves: stored losses, learning, and bounds that detect a changed recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acon_core.conformance import curves
from acon_core.reference.training import fit, loss_and_cotangent
from acon_core.spec import Node, Param, named_params
from acon_core.training import Recipe


def exceeds_bounds(run: curves.Run, losses: np.ndarray) -> bool:
    """Return whether the losses exceed the bounds."""
    found = curves.divergence(losses, curves.stored()[run.name])
    return any(each > bound for each, bound in zip(found, run.bounds, strict=True))


DCN = [run for run in curves.RUNS if run.network == "acon/dcn"]


@pytest.mark.slow
@pytest.mark.parametrize("run", curves.RUNS, ids=lambda run: run.name)
def test_stored_losses_match_the_reference(run: curves.Run) -> None:
    np.testing.assert_allclose(curves.stored()[run.name], curves.reference(run), rtol=0, atol=1e-9)


@pytest.mark.parametrize("run", DCN, ids=lambda run: run.name)
def test_losses_fall(run: curves.Run) -> None:
    """A network that does not learn would agree for any recipe."""
    losses = curves.stored()[run.name]
    assert losses[-5:].mean() < losses[:5].mean() - 0.2


CHANGES = {
    "no momentum": lambda recipe: replace(recipe, momentum=0.0),
    "no decay": lambda recipe: replace(recipe, weight_decay=0.0),
    "no smoothing": lambda recipe: replace(recipe, label_smoothing=0.0),
    "another rate": lambda recipe: replace(recipe, rate=1.001 * recipe.rate),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("run", DCN, ids=lambda run: run.name)
def test_changed_recipe_exceeds_bounds(run: curves.Run, change: str) -> None:
    assert exceeds_bounds(run, fit(run.node(), run.state(), curves.batches(), CHANGES[change](run.recipe)))


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["momentum", "rate", "label_smoothing"])
def test_slow_run_without_a_term_exceeds_bounds(zero: str) -> None:
    (run,) = (run for run in curves.RUNS if run not in DCN)
    assert exceeds_bounds(run, fit(run.node(), run.state(), curves.batches(), replace(run.recipe, **{zero: 0.0})))


@pytest.mark.slow
def test_rounding_stays_within_bounds() -> None:
    """Parameters that differ by 2^-22 stand for another order of rounding, another processor."""
    (run,) = (run for run in DCN if run.act == "meta_acon")
    for seed in range(3):
        random = np.random.default_rng(seed)
        state = {
            path: array * (1 + 2.0**-22 * random.choice([-1, 1], array.shape)) if array.dtype.kind == "f" else array
            for path, array in run.state().items()
        }
        assert not exceeds_bounds(run, fit(run.node(), state, curves.batches(), run.recipe))


@pytest.mark.slow
@pytest.mark.parametrize("run", DCN, ids=lambda run: run.name)
def test_decay_of_all_parameters_exceeds_bounds(run: curves.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def decayed(node: Node) -> dict[str, Param]:
        return {path: replace(param, decay=param.kind == "weight") for path, param in named_params(node).items()}

    monkeypatch.setattr("acon_core.reference.training.named_params", decayed)
    assert exceeds_bounds(run, curves.reference(run))


@pytest.mark.slow
def test_constant_rate_exceeds_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recipe, "rates", lambda self: [self.rate] * self.steps)
    assert all(exceeds_bounds(run, curves.reference(run)) for run in DCN)


def test_gradient_of_loss_against_finite_differences() -> None:
    random = np.random.default_rng(3)
    logits, classes = random.normal(size=(3, 5)), np.array([1, 4, 0])
    direction = random.normal(size=(3, 5))
    loss, cotangent = loss_and_cotangent(logits, classes, 0.1)
    ahead, behind = (loss_and_cotangent(logits + step * direction, classes, 0.1)[0] for step in (1e-6, -1e-6))
    assert (ahead - behind) / 2e-6 == pytest.approx((cotangent * direction).sum(), rel=1e-8)
    # From the definition, term by term.
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = [-sum((0.9 * (k == classes[n]) + 0.1 / 5) * np.log(probabilities[n, k]) for k in range(5)) for n in range(3)]
    assert loss == pytest.approx(np.mean(terms), rel=1e-12)
