"""Our convolution and linear layer in `megengine.quantization`.

`quantize_qat` and `quantize` find subclasses of MegEngine's layers, and then look their exact type
up in two tables, to which `register` adds ours.
"""

from __future__ import annotations

import megengine.module as M
from megengine import Tensor
from megengine.quantization.quantize import _float2qat_dict, _qat2quantized_dict

from acon_megengine.gradient import add_bias
from acon_megengine.modules import Conv2d, Linear, convolved, over_channels


class QatConv2d(M.qat.Conv2d):
    """`Conv2d` with fake quantisation of weight, bias and output."""

    def calc_conv_qat(self, inp: Tensor) -> Tensor:
        weight = self.apply_quant_weight(self.weight)
        y = convolved(self, inp, weight)
        return y if self.bias is None else add_bias(y, self.apply_quant_bias(self.bias, inp, weight))


class QatLinear(M.qat.Linear):
    """`Linear` over axis 1 of (N, C, ...), with fake quantisation of weight, bias and output."""

    def forward(self, inp: Tensor) -> Tensor:
        return over_channels(super().forward, inp, self.in_features, self.out_features)


class QuantizedLinear(M.quantized.Linear):
    """The same in integers."""

    def forward(self, inp: Tensor) -> Tensor:
        out_features, in_features = self.weight.shape
        return over_channels(super().forward, inp, in_features, out_features)


def register() -> None:
    """Add our classes to MegEngine's tables."""
    _float2qat_dict.update({Conv2d: QatConv2d, Linear: QatLinear})
    _qat2quantized_dict.update({QatConv2d: M.quantized.Conv2d, QatLinear: QuantizedLinear})
