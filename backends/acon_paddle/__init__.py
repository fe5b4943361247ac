"""ACON for PaddlePaddle. The first use of a name imports paddle."""

from acon_core.framework import PATH, AddedParameter, Framework, attach

_SAVES_INPUT = "For the backward pass, only the input and the parameters are saved."
_NORM = "Its BatchNorm is ours, whose running variance is the unbiased one."
_ONCE = "It can be differentiated once:"

FRAMEWORK = Framework(
    package=__name__,
    imports=("import paddle", "from paddle import nn"),
    module="nn.Layer",
    tensor="paddle.Tensor",
    weight="paddle.Tensor",
    channel_axis=1,
    zeros="paddle.zeros([{}])",
    call="def forward(self, x: paddle.Tensor) -> paddle.Tensor: ...",
    added=(
        AddedParameter("dtype", "str | None", "Dtype of the parameters, ``float32`` or ``float64``. The default is Paddle's."),
        PATH,
    ),
    texts={
        "array": "paddle.to_tensor",
        "differentiation": "Supports paddle.jit.to_static and, in dynamic mode, paddle.grad\nwith create_graph.",
        "model": "nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU())",
        "optimizer": "optimizer = paddle.optimizer.AdamW(parameters=param_groups(model, 0.05))",
        "create": " Only the leaves that Paddle names otherwise (`_mean`, `_variance`) are Paddle's.",
        "dtypes": "``float32`` or ``float64``",
        "loaded_dtype": "; 16-bit parameters become float32",
        "groups": "list of dict\n"
        '    ``[{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}]``,\n'
        "    for any optimizer of Paddle. A group without parameters is left out. Each parameter occurs\n"
        "    once, in the order of the model. Frozen parameters are left out.",
        "sites": "Layers of this package and of `paddle.nn` are replaced, not subclasses of them.",
    },
    notes={
        "": _SAVES_INPUT,
        "MetaAconC": _NORM,
        "FReLU": f"{_NORM} {_ONCE}\nPaddle has no second derivative of a depthwise convolution on a CPU.",
        "AconFReLU": f"{_NORM} {_ONCE}\nPaddle has no second derivative of a depthwise convolution on a CPU.",
        "RepAct": "For the backward pass, only the input and a few numbers are saved; variant 3 also saves what its\n"
        "norm needs.",
        "Swish": f"`paddle.nn.Swish` is SiLU and learns nothing. {_SAVES_INPUT}",
        "PReLU": f"`weight` is `_weight` in `paddle.nn.PReLU`. {_SAVES_INPUT}",
        "DyReLU": f"`lambdas` and `init_v` are buffers. {_ONCE} so can Paddle's ReLU.",
    },
)
__getattr__, __dir__, __all__ = attach(FRAMEWORK)
