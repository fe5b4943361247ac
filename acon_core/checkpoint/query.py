"""What a caller knows about the network in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acon_core.checkpoint.dialects import dialect_named


@dataclass(frozen=True)
class NetworkQuery:
    """What is known about the network in a file. The rest is recognised from the tensors.

    Parameters
    ----------
    network : str, optional
        A registered name such as ``"acon/resnet50"``, or ``"package.module:function"``.
    act : str, optional
        An activation such as ``"acon_c"`` or ``"meta_acon(reduction=8)"``.
    dialect : str, optional
        The naming scheme of the tensors, a key of `acon_core.checkpoint.dialects.DIALECTS`.
    options : mapping of str to object, optional
        Options of `acon_core.networks.create` that the tensors do not determine, such as
        ``{"replace_stride_with_dilation": (False, False, True)}``.

    Raises
    ------
    AconError
        If the dialect does not exist.

    Examples
    --------
    >>> NetworkQuery("acon/resnet50", act="acon_c").network
    'acon/resnet50'
    """

    network: str | None = None
    act: str | None = None
    dialect: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dialect_named(self.dialect)
