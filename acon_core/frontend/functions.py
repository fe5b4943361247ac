"""The public functions of every backend, over the hooks that each backend supplies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, wraps
from os import PathLike
from typing import Any

from acon_core import spec
from acon_core.backends import Backend
from acon_core.checkpoint import NetworkQuery, load_network
from acon_core.errors import SpecError
from acon_core.framework import FUNCTIONS, Framework
from acon_core.frontend.docstrings import completed, joined, sections, with_parameters
from acon_core.frontend.model_functions import M, ModelFunctions
from acon_core.networks import create as create_network
from acon_core.spec.activation_base import Activation
from acon_core.spec.node import Node


class Frontend(ModelFunctions[M]):
    """What every backend offers its users, for modules of type `M`.

    A backend makes a subclass that sets the attributes and implements `make`; a `Modules` object
    gives access to native modules. In docstrings, `$name` stands for a text of the framework.
    """

    framework: Framework
    backend: Backend
    classes: Mapping[type[Activation], type[M]]

    def make(self, node: Node, **own: Any) -> M:
        """Build the module of a node without parameters (hook). `own` are the framework's."""
        raise NotImplementedError

    def check_dtype(self, dtype: str) -> None:
        """Raise SpecError if the framework, as configured, cannot compute in `dtype` (hook)."""

    def loaded_dtype(self, dtype: str) -> str:
        """Return the dtype for the parameters of a checkpoint of `dtype` (hook)."""
        return dtype

    @cached_property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The public functions by name, with this framework's docstrings and signatures."""
        return {name: self._public(name) for name in FUNCTIONS}

    def _public(self, name: str) -> Callable[..., Any]:
        method = getattr(self, name)

        @wraps(method)
        def function(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        function.__module__, function.__qualname__ = self.framework.package, name
        function.__signature__ = function_signature(name, self.framework)  # type: ignore[attr-defined]
        function.__doc__ = completed(getattr(Frontend, name).__doc__, self.framework)
        if name == "activation":
            parts = sections(function.__doc__)
            parts["Parameters"] = with_parameters(parts["Parameters"], self.framework.added)
            function.__doc__ = joined(parts)
        return function

    def activation(self, name: str, channels: int | None = None, *, channel_axis: int | None = None, **options: Any) -> M:
        """Make an activation by its name.

        Parameters
        ----------
        name : str
            A name that `acon list activations` prints, or an alias from a published table. Case and
            underscores are ignored. It may carry options: ``"dyrelu(variant=B)"``.
        channels : int, optional
            Number of channels C. Required by activations with one parameter per channel, ignored by
            the others.
        channel_axis : int, optional
            Axis of the channels in the input; ignored by activations without channels. The default
            is $channel_axis, the framework's convention.
        **options
            Options of the activation, such as ``level="pixel"``: the parameters of its class.

        Returns
        -------
        $module
            An instance of the public class, with initial values; a plain module for functions
            without parameters.

        Raises
        ------
        SpecError
            If the name, an option or a value does not exist, or if `channels` is missing.

        Examples
        --------
        $imports
        >>> from $package import activation
        >>> pixel = activation("meta_acon", 8, level="pixel"$random)
        >>> type(pixel).__name__
        'MetaAconC'
        >>> tuple(pixel($features).shape)
        $features_shape
        >>> relu = activation("relu")
        """
        own = {each.name: options.pop(each.name, each.default) for each in self.framework.added}
        axis = 1 if channel_axis is None else channel_axis
        node = spec.activation(name, channels, channel_axis=axis, **options)
        if not isinstance(node, Activation) or type(node) not in self.classes:
            return self.make(node, **own)
        for each in self.framework.added:
            if each.required and own[each.name] is None:
                raise SpecError(
                    f"activation {name!r} has parameters: pass {each.name}={each.example} to draw their initial values"
                )
        values = {each.name: getattr(node, each.name) for each in fields(node)}
        if "channel_axis" in values:
            values["channel_axis"] = channel_axis
        return self.classes[type(node)](**values, **own)

    def create(
        self,
        name: str,
        act: Node | str | None = None,
        num_classes: int | None = None,
        *,
        features: Sequence[str] = (),
        dtype: str = "float32",
        seed: int = 0,
        **options: Any,
    ) -> M:
        """Create a published network with its published initial values, in training mode.

        Attribute names are those of the published code.$create

        Parameters
        ----------
        name : str
            A network that `acon list networks` prints, or ``"package.module:function"``, a function
            that returns a spec graph.
        act : Node or str, optional
            Activation, as for `activation`. The default is the published one.
        num_classes : int, optional
            Number of classes. The default is the published one.
        features : sequence of str, optional
            Names of stages. If given, the module returns a tuple with the values of these stages,
            and layers that none of them needs are left out.
        dtype : str, optional
            Dtype of the parameters: $dtypes.
        seed : int, optional
            Seed of the initial values. The same seed gives the same values in every framework.
        **options
            Options of the network, such as ``repeats=(1, 1, 1)``, and ``in_channels``, the channels
            of the images, 3 by default.

        Returns
        -------
        $module
            The network: images $images -> logits (N, num_classes), or the feature maps $maps. H and
            W are arbitrary, except in ViT and DCN.

        Raises
        ------
        SpecError
            If the name, the activation, a stage, an option or the dtype does not exist.

        Examples
        --------
        $imports
        >>> from $package import create
        >>> repeats = (1, 1, 1)  # blocks of each stage
        >>> network = create("acon/shufflenet_v2_x0_5", "acon_c", num_classes=10, repeats=repeats)
        >>> tuple(network($image).shape)
        (2, 10)
        """
        self.check_dtype(dtype)
        network = create_network(name, act, num_classes, features=features, **options)
        module: M = self.backend.build(network.graph, dtype=dtype, seed=seed).native
        return module

    def load(
        self,
        path: str | PathLike[str],
        network: str | None = None,
        act: str | None = None,
        dialect: str | None = None,
        features: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        seed: int = 0,
        key: str = "",
        strip_prefix: str | Sequence[str] = (),
        ignore: str | Sequence[str] = (),
        format: str | None = None,
        **options: Any,
    ) -> M:
        """Load the network of a checkpoint, in evaluation mode.

        The file may be of any of the frameworks. It is read without them, and nothing in it is
        executed.

        Parameters
        ----------
        path : str or path-like
            The checkpoint: a file or a folder.
        network : str, optional
            Name of the network, where the names and shapes of the tensors leave a choice.
        act : str, optional
            Name of the activation, where they leave a choice.
        dialect : str, optional
            The published code whose names the tensors have, where several fit.
        features : sequence of str, optional
            Names of stages, as for `create`.
        num_classes : int, optional
            Number of classes, for fine-tuning. If the checkpoint has another, the layer that
            computes the class scores gets initial values.
        in_channels : int, optional
            Number of channels of the images. If the checkpoint has another, the first convolution
            gets initial values.
        seed : int, optional
            Seed of these initial values, which are those of `create` with this seed.
        key : str, optional
            Where the tensors are in the file, such as ``"student.model"`` or ``"ema"``.
        strip_prefix : str or sequence of str, optional
            Prefixes to remove from the tensor names that have them, such as ``"backbone."``.
        ignore : str or sequence of str, optional
            Patterns of tensors to leave out, such as ``"total_*"``.
        format : str, optional
            The format of the file, where its content fits several.
        **options
            Options of the network. Those that change no shape, such as
            ``replace_stride_with_dilation``, must be given, unless the file has metadata of this
            package.

        Returns
        -------
        $module
            The network, with parameters in the dtype of the checkpoint$loaded_dtype.

        Raises
        ------
        CheckpointError
            If the file cannot be read or is not safe to load.
        StateError
            If names or shapes of the tensors are not those of the network.
        SpecError
            If the network, the activation or an option does not exist, or if the network has no
            layer for `num_classes`.

        Examples
        --------
        $imports
        >>> from $package import load
        >>> network = load("shufflenetv2_acon_0.5x.pth.tar")
        >>> tuple(network($image).shape)
        (2, 1000)
        >>> ten = load("shufflenetv2_acon_0.5x.pth.tar", num_classes=10)  # a new classifier
        >>> tuple(ten($image).shape)
        (2, 10)
        """
        query = NetworkQuery(network, act, dialect, options, key, strip_prefix, ignore, format)
        checkpoint = load_network(path, query, features, num_classes, in_channels, seed)
        self.check_dtype(checkpoint.dtype)
        dtype = self.loaded_dtype(checkpoint.dtype)
        model = self.backend.build(checkpoint.network.graph, dtype=dtype, seed=None)
        model.load(checkpoint.cast(dtype))
        model.native.eval()
        module: M = model.native
        return module


def function_signature(name: str, framework: Framework) -> inspect.Signature:
    """Make the signature of a public function, with the framework's types and parameters."""
    shared = inspect.signature(getattr(Frontend, name))
    parameters = list(shared.parameters.values())[1:]
    if name == "activation":
        parameters[-1:] = [*(each.parameter(required=False) for each in framework.added), parameters[-1]]
    native = {"M": framework.module}
    if name == "param_groups":
        native[shared.return_annotation] = framework.groups
    parameters = [each.replace(annotation=native.get(each.annotation, each.annotation)) for each in parameters]
    result = shared.return_annotation
    return inspect.Signature(parameters, return_annotation=native.get(result, result))
