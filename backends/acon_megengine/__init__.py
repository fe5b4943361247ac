"""ACON for MegEngine. The first use of a name imports megengine.

Importing megengine flushes denormal numbers to zero for the whole process, NumPy's included.
"""

from acon_core.framework import Framework, attach

FRAMEWORK = Framework(
    package=__name__,
    imports=("import megengine", "from megengine import functional as F", "from megengine import module as M"),
    module="M.Module",
    tensor="megengine.Tensor",
    weight="megengine.Parameter",
    channel_axis=1,
    zeros="F.zeros(({}))",
    python=((3, 10), (3, 10)),
    call="def forward(self, x: megengine.Tensor) -> megengine.Tensor: ...",
    texts={
        "array": "megengine.Tensor",
        "differentiation": "Supports trace, symbolic or not. With gates per sample, batches of 1\n"
        "and of more need separate traces for gradients. MegEngine's kernels swallow NaN, and so does this.",
        "model": "M.Sequential(M.Conv2d(3, 8, 3), M.ReLU())",
        "optimizer": "optimizer = megengine.optimizer.SGD(param_groups(model, 1e-4), lr=0.1, momentum=0.9)",
        "dtypes": "``float32``, the only one",
        "loaded_dtype": ", which must be float32",
        "sites": "Modules of this package and of `megengine.module` are replaced, not subclasses of them. Calls of a\n"
        "    function that was imported by its name, ``from megengine.functional import relu``, are not seen.",
    },
    notes={
        "": "Parameters are float32; 16-bit inputs are computed in float32. For the backward pass, each function saves only\n"
        "its arguments. MegEngine's kernels do not propagate NaN, and neither does this.",
    },
)
__getattr__, __dir__, __all__ = attach(FRAMEWORK)
