"""What a caller knows about the network in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    key : str
        Where the tensors are in the file: keys joined with dots, such as ``"student.model"`` or
        ``"ema"``.
    strip_prefix : str or sequence of str
        Prefixes to remove from the tensor names that have them, such as ``"backbone."``.
    ignore : str or sequence of str
        Patterns of tensors to leave out, such as ``"total_*"``. A pattern without a dot is compared
        with what follows the last dot of a name too.
    format : str, optional
        The format of the file, where its content fits several.

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
    key: str = ""
    strip_prefix: str | Sequence[str] = ()
    ignore: str | Sequence[str] = ()
    format: str | None = None

    def __post_init__(self) -> None:
        dialect_named(self.dialect)
        for name in ("strip_prefix", "ignore"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))

    @property
    def is_about_network(self) -> bool:
        """Whether it says something about the network, and not only where the tensors are."""
        return bool(self.network or self.act or self.dialect or self.options)
