"""ACON for PyTorch. The first use of a name imports torch."""

from acon_core.framework import PATH, AddedParameter, Framework, attach

_SAVES_INPUT = "For the backward pass, only the input and the parameters are saved."

FRAMEWORK = Framework(
    package=__name__,
    imports=("import torch", "from torch import nn"),
    module="nn.Module",
    tensor="torch.Tensor",
    weight="nn.Parameter",
    channel_axis=1,
    zeros="torch.zeros({})",
    call="def forward(self, input: torch.Tensor) -> torch.Tensor: ...",
    added=(
        AddedParameter("dtype", "torch.dtype | None", "Dtype of the parameters. The default is PyTorch's."),
        AddedParameter("device", "torch.device | str | None", "Device of the parameters. The default is PyTorch's."),
        PATH,
    ),
    texts={
        "array": "torch.tensor",
        "differentiation": "Supports torch.compile, torch.export, `grad`, `vmap` and `jvp` of\n"
        "torch.func, and double backward.",
        "model": "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())",
        "optimizer": "optimizer = torch.optim.SGD(param_groups(model, 4e-5), lr=0.1, momentum=0.9)",
        "dtypes": "``float32``, ``float64``, ``float16`` or ``bfloat16``",
        "sites": "Modules and functions of PyTorch are replaced, and what computes the same.",
        "found_axis": "the axis of the layer that the input comes from, such as 1 after a convolution",
    },
    notes={
        "": _SAVES_INPUT,
        "MetaAconC": "For the backward pass, nothing of the size of the input is saved beside it, except for "
        '``level="pixel"``, whose\nbeta has that size.',
        "FReLU": "`bn_frelu` is a `torch.nn.BatchNorm2d`, so that `SyncBatchNorm.convert_sync_batchnorm` finds it.",
        "AconFReLU": "`bn1` and `bn2` are `torch.nn.BatchNorm2d`, so that `SyncBatchNorm.convert_sync_batchnorm` finds them.",
        "RepAct": "For the backward pass, only the input, the parameters and three numbers are saved; variant 3 also saves\n"
        "what its norm needs.",
        "PReLU": f"It loads the state dict of `torch.nn.PReLU`. {_SAVES_INPUT}",
        "DyReLU": "`lambdas` and `init_v` are buffers. For the backward pass, nothing of the size of the input is saved "
        "beside it.",
    },
    own={"lazy": "lazy_modules"},
)
__getattr__, __dir__, __all__ = attach(FRAMEWORK)
