"""ACON for JAX with Flax NNX. The first use of a name imports both."""

from acon_core.framework import PATH, AddedParameter, Framework, attach

_SAVES_INPUT = "For the backward pass, only the input and the parameters are saved."

FRAMEWORK = Framework(
    package=__name__,
    imports=(
        "import jax",
        "import optax",
        "from flax import nnx",
        "from jax import numpy as jnp",
        "from jax.typing import DTypeLike",
    ),
    module="nnx.Module",
    tensor="jax.Array",
    weight="nnx.Param",
    channel_axis=-1,
    zeros="jnp.zeros(({}))",
    python=((3, 11), None),
    call="def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = ..., taps: dict[str, jax.Array] | None = ...)"
    " -> jax.Array: ...",
    added=(
        AddedParameter("dtype", "DTypeLike | None", "Dtype of the parameters. The default is float32."),
        AddedParameter(
            "rngs",
            "nnx.Rngs | None",
            "Random streams for the initial values. None leaves zeros, for a state that is loaded afterwards.",
            required=True,
            example="nnx.Rngs(0)",
        ),
        PATH,
    ),
    groups="optax.GradientTransformation",
    texts={
        "array": "jnp.array",
        "differentiation": "Supports jit, vmap, grad, grad of grad and hessian, but not\n"
        "jvp and jacfwd: JAX has no forward mode for custom_vjp.",
        "model": "nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)",
        "optimizer": "descent = optax.chain(param_groups(model, 5e-4), optax.sgd(0.1, momentum=0.9))\n"
        ">>> optimizer = nnx.Optimizer(model, descent, wrt=nnx.Param)",
        "groups": "optax.GradientTransformation\n"
        "    Adds weight decay to the updates. It takes `nnx.Param` states, or trees with the same paths, such\n"
        "    as `nnx.to_pure_dict`; for a parameter that the model did not have, it raises AconError. Chain it\n"
        "    before `optax.sgd` for decay in the gradient, or between `optax.scale_by_adam` and\n"
        "    `optax.scale_by_learning_rate` for AdamW.",
        "undecayed": ",\nunless they are called p1, p2, beta, bias or scale",
        "create": "\n\nIn training, dropout draws from ``network(x, rngs=nnx.Rngs(0))``. No module keeps a random stream, so\n"
        "that `nnx.state` holds only weights and running statistics. ``network(x, taps=values)`` records every named\n"
        "value of the network in a dict.",
        "dtypes": "``float32``, ``float16``, ``bfloat16``, or, if JAX has it enabled, ``float64``",
        "loaded_dtype": ". It takes images (N, H, W, 3)",
        "sites": "Activations are modules of this package, `nnx.PReLU`, and functions that modules hold as attributes,\n"
        "    such as ``self.act = nnx.relu``, or in an `nnx.Sequential`.",
    },
    notes={
        "": _SAVES_INPUT,
        "AconA": f"`beta` has shape (C,). {_SAVES_INPUT}",
        "AconB": f"`p2` and `beta` have shape (C,). {_SAVES_INPUT}",
        "AconC": f"`p1`, `p2` and `beta` have shape (C,). {_SAVES_INPUT}",
        "MetaAconC": "`p1` and `p2` have shape (C,), the kernels (1, 1, in, out). `bn1` and `bn2` hold `scale`, `bias`,\n"
        "`mean` and `var`.",
        "FReLU": "Images are (N, H, W, C). `conv_frelu.kernel` has shape (3, 3, 1, C).",
        "AconFReLU": "Images are (N, H, W, C). `conv_frelu.kernel` has shape (3, 3, 1, C).",
        "RepAct": "For the backward pass, variants 1 and 2 save only the input and the parameters.",
        "Swish": "`nnx.swish` is this function with a fixed weight of 1.",
        "PReLU": "`nnx.PReLU` has one `negative_slope`, initially 0.01, and gradient 1 at 0.",
        "DyReLU": "`lambdas` and `init_v` belong to the state, as variables of type `Derived`, and are not `nnx.Param`.",
    },
)
__getattr__, __dir__, __all__ = attach(FRAMEWORK)
