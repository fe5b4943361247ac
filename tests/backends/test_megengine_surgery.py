"""Surgery on users' MegEngine models: replace, observe, fuse, fold, doctor, weight decay."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import AconError

pytestmark = pytest.mark.backend("megengine")


def users_model():  # type: ignore[no-untyped-def]
    """Build a user's model: activations in every container, a shared one, a function call."""
    import megengine.functional as F
    import megengine.module as M

    class Model(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = M.Sequential(M.Conv2d(3, 6, 3, padding=1), M.BatchNorm2d(6), M.SiLU())
            self.listed = [M.Conv2d(6, 4, 1), M.ReLU()]
            self.paired = (M.Conv2d(4, 4, 3, padding=1, groups=2), M.PReLU(4))
            self.named = {"conv": M.Conv2d(4, 6, 1), "act": M.LeakyReLU(0.125)}
            self.shared = M.ReLU()
            self.again = self.shared

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.stem(x)
            for layer in (*self.listed, *self.paired, self.named["conv"], self.named["act"]):
                x = layer(x)
            x = F.concat([self.shared(x), self.again(x[:, :2])], 1)
            return F.relu(x)

    return Model()


def test_replace_activations_and_later_surgery() -> None:
    import acon_megengine
    import megengine as mge
    from megengine.optimizer import SGD

    model, x = users_model(), mge.Tensor(np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype(np.float32))
    model.train()
    model.stem[1].eval()
    model(x)
    state = {name: array.copy() for name, array in model.state_dict().items()}
    model.eval()
    before = model(x).numpy()
    model.train()
    model.stem[1].eval()
    wanted = {"silu": "acon_c", "relu": "acon_b", "prelu": "prelu(shared=false)", "leaky_relu": "repact"}
    result = acon_megengine.replace_activations(model, wanted, x, beta=1000.0)
    assert model.training
    assert not model.stem[1].training
    assert result.functional == (), str(result)
    assert {site.path: site.new.split("(")[0] for site in result.replaced} == {
        "stem.2": "acon_c", "listed.1": "acon_b", "paired.1": "prelu", "named.act": "repact", "shared": "acon_b",
        "again": "acon_b", "relu": "acon_b",
    }  # fmt: skip
    assert (model.shared.beta.shape[1], model.again.beta.shape[1]) == (6, 2)  # one instance, a module for each path
    assert type(model.paired[1]) is acon_megengine.PReLU
    assert [site.bound for site in result.replaced if site.old != "relu"] == [0.0] * 3
    for name, array in state.items():
        if name in model.state_dict() and name != "paired.1.weight":
            np.testing.assert_array_equal(model.state_dict()[name], array)
    model.eval()
    np.testing.assert_allclose(model(x).numpy(), before, atol=2e-3)

    groups = acon_megengine.param_groups(model, 1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    decayed = {"listed.0.weight", "named.conv.weight", "paired.0.weight", "stem.0.weight"}
    assert {names[id(parameter)] for parameter in groups[0]["params"]} == decayed
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(names)
    SGD(groups, lr=0.1)

    bounds = acon_megengine.gradient_bounds(model)
    assert set(bounds) == {"stem.2", "listed.1", "shared", "again", "relu"}
    assert bounds["stem.2"].high.shape == (6,)
    acon_megengine.fuse(model)
    assert type(model.named["act"]) is acon_megengine.FusedRepAct
    np.testing.assert_allclose(model(x).numpy(), before, atol=2e-3)


def test_fold_and_fuse_preserve_outputs() -> None:
    import acon_megengine
    import megengine as mge
    import megengine.module as M

    x = mge.Tensor(np.random.default_rng(0).normal(size=(4, 8, 5, 3)).astype(np.float32))
    model = M.Sequential(acon_megengine.MetaAconC(8, reduction=4), acon_megengine.RepAct(3))
    for _ in range(3):
        model(x)
    model.eval()
    before = model(x).numpy()
    folded = acon_megengine.fuse(acon_megengine.fold(model))
    assert not any("norm" in name or "bn" in name for name in folded.state_dict())
    np.testing.assert_allclose(folded(x).numpy(), before, rtol=2e-5, atol=2e-6)
    assert not folded[0].training


def test_doctor() -> None:
    import acon_megengine
    import megengine as mge
    import megengine.functional as F
    import megengine.module as M

    class Copied(M.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign = sign
            self.p1, self.p2, self.beta = (mge.Parameter(np.ones((1, 4, 1, 1), np.float32)) for _ in range(3))

        def forward(self, x):  # type: ignore[no-untyped-def]
            slope = self.p1 - self.p2
            return slope * x * F.sigmoid(self.sign * self.beta * slope * x) + self.p2 * x

    assert acon_megengine.doctor(Copied(1.0)).healthy
    assert acon_megengine.doctor(acon_megengine.AconC(4)).healthy
    assert acon_megengine.doctor(acon_megengine.AconC(4, channel_axis=-1), channel_axis=-1).healthy
    wrong = Copied(0.5)
    assert not acon_megengine.doctor(wrong).healthy
    assert wrong.p2.numpy().tolist() == np.ones((1, 4, 1, 1)).tolist()


def test_new_modules_inherit_dtype_and_mode() -> None:
    import acon_megengine
    import megengine as mge
    import megengine.module as M
    from acon_megengine.surgery import modules

    model = M.Sequential(M.Conv2d(3, 4, 1), M.PReLU(4), M.ReLU(), acon_megengine.RepAct(1), M.Conv2d(4, 4, 1))
    model.train()
    for at in (1, 3):
        model[at].eval()
        for parameter in model[at].parameters():
            parameter._reset(parameter.astype("float16"))
    acon_c = spec.AconC(4)
    state = spec.initial_state(acon_c)
    for old, dtype, training in ((1, np.float16, False), (2, np.float32, True)):
        made = modules.make(acon_c, state, model[old], model)
        assert {parameter.dtype for parameter in made.parameters()} == {np.dtype(dtype)}
        assert {each.training for each in made.modules()} == {training}
    for parameter in model[0].parameters():
        parameter._reset(parameter.astype("float16"))
    assert {each.dtype for each in modules.make(acon_c, state, model[2], model).parameters()} == {np.dtype(np.float16)}
    assert modules.make(acon_c, state, M.ReLU(), M.ReLU()).p1.dtype == np.float32

    x = mge.Tensor(np.ones((2, 3, 4, 4), np.float32))
    model = M.Sequential(M.Conv2d(3, 4, 1), M.ReLU(), acon_megengine.RepAct(1))
    model.train()
    model[1].eval()
    acon_megengine.fuse(model)
    acon_megengine.replace_activations(model, {"relu": "meta_acon"}, x)
    assert model.training
    assert model[2].training
    assert not any(each.training for each in model[1].modules())


def test_user_subclass_is_not_recognised() -> None:
    import acon_megengine
    from acon_megengine.modules import Graph
    from acon_megengine.surgery import modules

    network = acon_megengine.create("acon/shufflenet_v2_x0_5", num_classes=5)
    assert all(modules.node(each) is not None for _, each in modules.sites(network) if hasattr(each, "spec"))
    for kind in (acon_megengine.AconC, Graph, type(network.features[1].branch_main[0])):

        class Mine(kind):  # type: ignore[misc,valid-type]
            def forward(self, x):  # type: ignore[no-untyped-def]
                return 2.0 * super().forward(x)

        mine = Mine.__new__(Mine)
        mine.__dict__ |= vars(acon_megengine.AconC(4))
        assert isinstance(mine.spec, spec.Node)
        assert modules.node(mine) is None
    assert type(modules.node(acon_megengine.AconC(4))) is spec.AconC
    # Its parameters have the usual names and follow the default rule.
    assert [len(group["params"]) for group in acon_megengine.param_groups(mine, 1e-4)] == [0, 3]
    with pytest.raises(AconError, match="nothing to do"):
        acon_megengine.fuse(type("Mine", (acon_megengine.RepAct,), {})(1))


def test_keyword_and_multiple_inputs() -> None:
    import acon_megengine
    import megengine as mge
    import megengine.module as M
    from acon_megengine.surgery import modules

    class Two(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.plain = M.ReLU(), acon_megengine.RepAct(1), M.ReLU()

        def forward(self, image, tokens=None):  # type: ignore[no-untyped-def]
            return self.first(x=image), self.second(x=self.plain(tokens)), M.ReLU()(image)

    class Broken(M.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            raise RuntimeError("on the way")

    model = Two()
    image, tokens = (mge.Tensor(np.zeros(shape, np.float32)) for shape in ((2, 6, 4, 4), (2, 5, 3)))
    seen = modules.observe(model, (image, tokens))
    assert {path: [call.shape for call in seen.calls[path]] for path in ("first", "second", "plain", "")} == {
        "first": [(2, 6, 4, 4)], "second": [(2, 5, 3)], "plain": [(2, 5, 3)], "": [(2, 6, 4, 4)],
    }  # fmt: skip
    assert [(each.name, each.where) for each in seen.functions] == [("relu", "")]  # the module that nothing holds
    with pytest.raises(RuntimeError, match="on the way"):
        modules.observe(Broken(), image)
    result = acon_megengine.replace_activations(model, {"relu": "acon_c"}, (image, tokens), channel_axis=1)
    assert {site.path: site.channels for site in result.replaced} == {"first": 6, "plain": 5, "relu": 6}
    assert M.Module.__call__.__module__ == "megengine.module.module"


def test_weight_decay_spares_user_gates_and_norms() -> None:
    import acon_megengine
    import megengine as mge
    import megengine.module as M

    class Copied(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2, self.beta = (mge.Parameter(np.ones((1, 4, 1, 1), np.float32)) for _ in range(3))
            self.p12 = mge.Parameter(np.ones((4, 4), np.float32))

        def forward(self, x):  # type: ignore[no-untyped-def]
            return x

    class MyPReLU(M.PReLU): ...

    model = M.Sequential(
        Copied(), MyPReLU(4), M.GroupNorm(2, 4), M.LayerNorm((4, 3)), M.InstanceNorm(4), M.GeneralNorm((4, 3), (1, 2)),
        M.BatchNorm1d(4), M.Linear(4, 4),
    )  # fmt: skip
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = acon_megengine.param_groups(model, 1e-4)
    assert {names[id(parameter)] for parameter in decayed["params"]} == {"0.p12", "7.weight"}
    assert len(rest["params"]) == len(names) - 2
