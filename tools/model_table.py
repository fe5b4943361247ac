# mypy: ignore-errors
# (The frameworks are not installed where mypy runs, and models are subclasses of theirs.)
"""Make docs/models.md: `replace_activations` on the models that people have.

`python tools/model_table.py measure torch FILE.json` runs the models of one framework: those of
torchvision and timm, of `paddle.vision`, and small ones for Flax and MegEngine, whose packages
have no collection. `python tools/model_table.py page FILE.json ...` prints the page, and
`python tools/model_table.py lost OLD.json NEW.json` names each model that was better before.
Weights are random: nothing is downloaded.

torchvision does not import beside a PyTorch of another build, since its compiled operators are
missing. No model here needs one, so their registrations are left out.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

# What takes the place of what; SiLU keeps its function exactly, HardSwish becomes RepAct.
WANTED = {
    "relu": "acon_c", "relu6": "acon_c", "silu": "acon_c", "gelu": "acon_c", "gelu(approximate=tanh)": "acon_c",
    "hardswish": "repact", "leaky_relu": "acon_c",
}  # fmt: skip

# Name, size of the image. Models of tokens are marked by a star: channels are last.
TORCHVISION = {
    "alexnet": 96, "vgg11_bn": 64, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "densenet121": 64, "googlenet": 96,
    "mobilenet_v2": 64, "mobilenet_v3_small": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 96, "mnasnet0_5": 64,
    "efficientnet_b0": 64, "regnet_y_400mf": 64, "convnext_tiny*": 64, "swin_t*": 64,
}  # fmt: skip
TIMM = {
    "resnet26d": 64, "mobilenetv3_small_050": 64, "efficientnet_lite0": 64, "convnext_atto*": 64, "vit_tiny_patch16_224*": 224,
    "deit_tiny_patch16_224*": 224, "mixer_s32_224*": 224, "poolformer_s12": 64, "ghostnet_100": 64, "hardcorenas_a": 64,
    "regnetx_002": 64, "levit_128s*": 224, "mobilevit_xxs*": 64, "edgenext_xx_small*": 64, "fbnetc_100": 64, "repvgg_a0": 64,
    "eca_resnet33ts": 64, "darknet53": 64,
}  # fmt: skip
PADDLE = {
    "alexnet": 224, "vgg11": 64, "resnet18": 64, "resnet50": 64, "mobilenet_v1": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "shufflenet_v2_x0_25": 64, "squeezenet1_1": 96, "densenet121": 64, "googlenet": 224,
    "inception_v3": 299, "LeNet": 28,
}  # fmt: skip


@dataclass
class Row:
    """One model. `change` is that of the output, relative to its norm; a text says what failed."""

    package: str
    model: str
    sites: int = 0
    replaced: int = 0
    change: float | str = ""
    trains: str = ""
    exports: str = ""
    left: tuple[str, ...] = ()


def replaced(package: Any, model: Any, example: Any, tokens: bool) -> Any:
    """Replace the activations. A version of the package that finds no axes is told them."""
    finds_axes = getattr(import_module(f"{package.__name__}.surgery").modules, "shows_axes", False)
    axis = None if finds_axes or not tokens or package.__name__ == "acon_jax" else -1
    return package.replace_activations(model, WANTED, example, channel_axis=axis)


def attempt(row: Row, column: str, step: Callable[[], Any]) -> bool:
    """Set a column to the result of a step, or to the last line of its error."""
    try:
        setattr(row, column, step())
    except Exception as error:  # the page shows whatever failed
        lines = str(error).strip().splitlines() or [""]
        unconverted = "PyLayer.forward" in lines[-1]
        setattr(row, column, "no: PyLayer in unconverted code" if unconverted else f"{type(error).__name__}: {lines[-1]}"[:120])
        return False
    return True


def measure(row: Row, package: Any, tokens: bool, model: Any, example: Any, run: Any, train: Any, export: Any) -> Row:
    """Fill in a row. `run`, `train` and `export` are those of the framework."""
    before = run(model, example)

    def change() -> float:
        done = replaced(package, model, example, tokens)
        row.replaced, row.sites = len(done.replaced), len(done.sites) + len(done.functional)
        row.left = tuple(str(each)[:160] for each in (*done.kept, *done.functional))
        after = run(model, example)
        return float(np.linalg.norm(after - before) / np.linalg.norm(before))

    if attempt(row, "change", change):
        attempt(row, "exports", lambda: export(model, example))
        attempt(row, "trains", lambda: train(model, example))
    return row


def trained(gradients: Iterable[tuple[str, Any]]) -> str:
    """Return "yes" if every parameter of a new activation has a finite gradient, not all zero."""
    new = {
        path: gradient for path, gradient in gradients if path.rpartition(".")[2] in ("p1", "p2", "beta", "weights", "alpha")
    }
    bad = [path for path, gradient in new.items() if gradient is None or not np.isfinite(gradient).all()]
    return "yes" if not bad else f"no gradient: {bad[0]} ({len(bad)} of {len(new)})"


def torch_rows() -> Iterable[Row]:
    """Run the models of torchvision and timm."""
    import torch

    with patch("torch.library.register_fake", lambda *_, **__: lambda function: function):
        import timm
        import torchvision

    import acon_torch

    def run(model: Any, x: Any) -> Any:
        with torch.no_grad():
            return model.eval()(x).double().numpy()

    def train(model: Any, x: Any) -> str:
        out = model.train()(x)
        (out if isinstance(out, torch.Tensor) else out[0]).square().mean().backward()
        return trained((path, None if p.grad is None else p.grad.numpy()) for path, p in model.named_parameters())

    def export(model: Any, x: Any) -> str:
        exported = torch.export.export(model.eval(), (x,)).module()
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x), rtol=1e-3, atol=1e-4)
        return "yes"

    makers = [("torchvision", each, size, torchvision.models.get_model) for each, size in TORCHVISION.items()]
    makers += [("timm", each, size, timm.create_model) for each, size in TIMM.items()]
    for package, name, size, make in makers:
        torch.manual_seed(0)
        options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        model = make(name.rstrip("*"), num_classes=10, **options)
        for module in model.modules():  # a head of zeros would hide every change
            if isinstance(module, torch.nn.Linear) and not module.weight.any():
                torch.nn.init.normal_(module.weight, std=0.02)
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        yield measure(Row(package, name.rstrip("*")), acon_torch, name.endswith("*"), model.eval(), x, run, train, export)


def paddle_rows() -> Iterable[Row]:
    """Run the models of `paddle.vision`."""
    import tempfile

    import acon_paddle
    import paddle

    def first(out: Any) -> Any:
        return out[0] if isinstance(out, list | tuple) else out

    def run(model: Any, x: Any) -> Any:
        model.eval()
        with paddle.no_grad():
            return first(model(x)).numpy().astype(np.float64)

    def train(model: Any, x: Any) -> str:
        model.train()
        first(model(x)).square().mean().backward()
        return trained((path, None if p.grad is None else p.grad.numpy()) for path, p in model.named_parameters())

    def export(model: Any, x: Any) -> str:
        model.eval()
        with tempfile.TemporaryDirectory() as folder:
            spec = [paddle.static.InputSpec([None, *x.shape[1:]], "float32")]
            paddle.jit.save(model, f"{folder}/model", input_spec=spec)
            loaded = first(paddle.jit.load(f"{folder}/model")(x)).numpy()
        np.testing.assert_allclose(loaded, run(model, x), rtol=1e-3, atol=1e-4)
        return "yes"

    for name, size in PADDLE.items():
        paddle.seed(0)
        model = getattr(paddle.vision.models, name)(num_classes=10)
        x = paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 1 if name == "LeNet" else 3, size, size), np.float32))
        yield measure(Row("paddle.vision", name), acon_paddle, False, model, x, run, train, export)


def jax_rows() -> Iterable[Row]:
    """Run models after the documentation and the examples of Flax."""
    import acon_jax
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Cnn(nnx.Module):
        """The network of Flax's MNIST tutorial."""

        def __init__(self, rngs: Any) -> None:
            self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
            self.batch_norm1 = nnx.BatchNorm(32, rngs=rngs)
            self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
            self.linear1 = nnx.Linear(3136, 256, rngs=rngs)
            self.linear2 = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.avg_pool(nnx.relu(self.batch_norm1(self.conv1(x))), (2, 2), (2, 2))
            x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
            return self.linear2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1))))

    class Block(nnx.Module):
        """A residual block, whose one function is called twice."""

        def __init__(self, width: int, act: Any, rngs: Any) -> None:
            self.conv1 = nnx.Conv(width, width, (3, 3), rngs=rngs)
            self.norm1 = nnx.BatchNorm(width, rngs=rngs)
            self.conv2 = nnx.Conv(width, width, (3, 3), rngs=rngs)
            self.norm2 = nnx.BatchNorm(width, rngs=rngs)
            self.act = act

        def __call__(self, x: Any) -> Any:
            return self.act(x + self.norm2(self.conv2(self.act(self.norm1(self.conv1(x))))))

    class Residual(nnx.Module):
        """A residual network with an activation that it is given, as Flax's ImageNet example."""

        def __init__(self, act: Any, rngs: Any) -> None:
            self.stem = nnx.Conv(1, 16, (3, 3), 2, rngs=rngs)
            self.blocks = nnx.List([Block(16, act, rngs) for _ in range(3)])
            self.head = nnx.Linear(16, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    class Encoder(nnx.Module):
        """Blocks of attention and an MLP, as Flax's language model example."""

        def __init__(self, rngs: Any) -> None:
            self.embed = nnx.Conv(1, 24, (7, 7), 7, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(3, 24, decode=False, rngs=rngs)
            self.norm = nnx.LayerNorm(24, rngs=rngs)
            self.mlp = nnx.Sequential(nnx.Linear(24, 48, rngs=rngs), nnx.gelu, nnx.Linear(48, 24, rngs=rngs))
            self.head = nnx.Linear(24, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            tokens = self.embed(x).reshape(x.shape[0], -1, 24)
            tokens = tokens + self.attention(self.norm(tokens))
            return self.head((tokens + self.mlp(tokens)).mean(1))

    def run(model: Any, x: Any) -> Any:
        model.eval()
        return np.asarray(model(x), np.float64)

    def train(model: Any, x: Any) -> str:
        model.train()
        gradients = nnx.grad(lambda model: jnp.square(model(x)).mean())(model)
        return trained((".".join(map(str, path)), np.asarray(v[...])) for path, v in nnx.to_flat_state(gradients))

    def export(model: Any, x: Any) -> str:
        model.eval()
        graph, state = nnx.split(model)
        exported = jax.export.export(jax.jit(lambda state, x: nnx.merge(graph, state)(x)))
        flat, tree = jax.tree.flatten(state)
        made = jax.export.export(jax.jit(lambda flat, x: nnx.merge(graph, jax.tree.unflatten(tree, flat))(x)))(flat, x)
        del exported
        loaded = jax.export.deserialize(made.serialize())
        np.testing.assert_allclose(loaded.call(flat, x), run(model, x), rtol=1e-3, atol=1e-4)
        return "yes"

    makers: dict[str, Callable[[Any], Any]] = {
        "MNIST tutorial": Cnn,
        "residual, nnx.relu": lambda rngs: Residual(nnx.relu, rngs),
        "residual, nnx.swish": lambda rngs: Residual(nnx.swish, rngs),
        "encoder, nnx.gelu": Encoder,
    }
    for name, make in makers.items():
        x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 28, 28, 1), np.float32))
        model = make(nnx.Rngs(0))
        model.eval()
        yield measure(Row("flax.nnx", name), acon_jax, False, model, x, run, train, export)


def megengine_rows() -> Iterable[Row]:
    """Run models after MegEngine's own model hub, which is not a package."""
    import acon_megengine
    import megengine
    import megengine.functional as F
    import megengine.module as M

    class BasicBlock(M.Module):
        """ResNet's basic block: one ReLU for two places."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = M.Conv2d(width, width, 3, 1, 1, bias=False), M.BatchNorm2d(width)
            self.conv2, self.bn2 = M.Conv2d(width, width, 3, 1, 1, bias=False), M.BatchNorm2d(width)

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(y)) + x)

    class ResNet(M.Module):
        """A small residual network of functional calls, as the hub's."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = M.Conv2d(3, 16, 7, 2, 3, bias=False), M.BatchNorm2d(16)
            self.layer1 = M.Sequential(BasicBlock(16), BasicBlock(16))
            self.fc = M.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            x = self.layer1(F.relu(self.bn1(self.conv1(x))))
            return self.fc(F.flatten(F.avg_pool2d(x, x.shape[-1]), 1))

    class Mobile(M.Module):
        """Convolutions with a module for every activation."""

        def __init__(self, act: Any) -> None:
            super().__init__()
            layers, width = [], 3
            for outputs in (12, 20, 28):
                layers += [M.Conv2d(width, outputs, 3, 2, 1), M.BatchNorm2d(outputs), act()]
                width = outputs
            self.features, self.fc = M.Sequential(*layers), M.Linear(28, 10)

        def forward(self, x: Any) -> Any:
            return self.fc(self.features(x).mean(axis=(2, 3)))

    def run(model: Any, x: Any) -> Any:
        model.eval()
        return model(x).numpy().astype(np.float64)

    def train(model: Any, x: Any) -> str:
        from megengine.autodiff import GradManager

        model.train()
        manager = GradManager().attach(model.parameters())
        with manager:
            manager.backward((model(x) ** 2).mean())
        return trained((path, None if p.grad is None else p.grad.numpy()) for path, p in model.named_parameters())

    def export(model: Any, x: Any) -> str:
        import io

        from megengine.jit import trace

        model.eval()
        function = trace(lambda x: model(x), symbolic=True, capture_as_const=True)
        function(x)
        file = io.BytesIO()
        function.dump(file, arg_names=["x"])
        return "yes" if file.tell() else "no"

    makers: dict[str, Callable[[], Any]] = {
        "ResNet, F.relu": ResNet,
        "ReLU": lambda: Mobile(M.ReLU),
        "SiLU": lambda: Mobile(M.SiLU),
        "GELU": lambda: Mobile(M.GELU),
    }
    for name, make in makers.items():
        megengine.random.seed(0)
        x = megengine.tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 64)).astype(np.float32))
        yield measure(Row("megengine", name), acon_megengine, False, make(), x, run, train, export)


FRAMEWORKS = {"torch": torch_rows, "paddle": paddle_rows, "jax": jax_rows, "megengine": megengine_rows}


def page(rows: list[Row]) -> str:
    """Return docs/models.md."""
    lines = [
        "# Models that people have",
        "",
        "<!-- Made by tools/model_table.py. -->",
        "",
        "`replace_activations` on models of torchvision, timm and Paddle, and on small ones for Flax and",
        "MegEngine. [tools/model_table.py](../tools/model_table.py) makes this page and has the models.",
        "Weights are random. ReLU, ReLU6, SiLU, GELU and leaky ReLU become ACON-C, HardSwish becomes RepAct.",
        "*Output* is the change of the output in evaluation, relative to its norm: GELU and ReLU6 have no",
        "exact equivalent. *Trains*: every parameter of a new activation has a finite gradient. *Exports*:",
        "`torch.export`, `paddle.jit.save`, `jax.export`, MegEngine's `dump`. Paddle does not convert code of",
        "its own package, which `paddle.vision` is, so it cannot export a new gradient there; in a model of",
        "one's own it can, see [export.md](export.md).",
        "",
        "| package | model | replaced | output | trains | exports |",
        "|---|---|--:|--:|---|---|",
    ]
    for row in rows:
        change = f"{row.change:.1e}" if isinstance(row.change, float) else row.change
        lines.append(
            f"| {row.package} | {row.model} | {row.replaced} of {row.sites} | {change} | {row.trains} | {row.exports} |"
        )
    left = [
        f"- {row.package} {row.model}: {row.left[0]}" + (f" ({len(row.left)} such)" if len(row.left) > 1 else "")
        for row in rows
        if row.left
    ]
    whole = sum(row.replaced == row.sites > 0 for row in rows)
    lines += ["", f"{len(rows)} models, {whole} replaced whole.", *(["", "What was left:", "", *left] if left else [])]
    return "\n".join(lines) + "\n"


def lost(old: list[Row], new: list[Row]) -> list[str]:
    """Name each model of which less is replaced, trained or exported than before."""
    found = []
    now = {(row.package, row.model): row for row in new}
    for row in old:
        other = now.get((row.package, row.model))
        if (
            other is None
            or other.replaced < row.replaced
            or any(getattr(row, column) == "yes" != getattr(other, column) for column in ("trains", "exports"))
        ):
            found.append(f"{row} -> {other}")
    return found


def read(paths: Iterable[str]) -> list[Row]:
    """Read the rows of result files."""
    return [Row(**row) for path in paths for row in json.loads(Path(path).read_text())]


def main(command: str, *arguments: str) -> int:
    """Run a command of the module's docstring."""
    if command == "measure":
        warnings.simplefilter("ignore")
        rows = []
        for row in FRAMEWORKS[arguments[0]]():
            print(row, file=sys.stderr, flush=True)
            rows.append(asdict(row))
            Path(arguments[1]).write_text(json.dumps(rows, indent=1) + "\n")
        return 0
    if command == "lost":
        found = lost(read(arguments[:1]), read(arguments[1:]))
        print("\n".join(found) or "no model is lost")
        return bool(found)
    print(page(read(arguments)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
