"""The public functions of every backend, over the hooks that each backend supplies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, wraps
from os import PathLike
from typing import Any, Generic, TypeVar

from acon_core import spec, surgery
from acon_core.backends import Backend
from acon_core.checkpoint import NetworkQuery, load_network
from acon_core.errors import SpecError
from acon_core.framework import FUNCTIONS, Framework
from acon_core.frontend.docstrings import completed, joined, sections, with_parameters
from acon_core.networks import create as create_network
from acon_core.spec.activation_base import Activation
from acon_core.spec.node import Node
from acon_core.surgery import Diagnosis, GradientBounds, Modules, Replacements

M = TypeVar("M")


class Frontend(Generic[M]):
    """What every backend offers its users, for modules of type `M`.

    A backend makes a subclass that sets the attributes and implements `make`; a `Modules` object
    gives access to native modules. In docstrings, `$name` stands for a text of the framework.
    """

    framework: Framework
    backend: Backend
    modules: Modules
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
            Options of the network, such as ``repeats=(1, 1, 1)``.

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
            If the network, the activation or an option does not exist.

        Examples
        --------
        $imports
        >>> from $package import load
        >>> network = load("shufflenetv2_acon_0.5x.pth.tar")
        >>> tuple(network($image).shape)
        (2, 1000)
        """
        checkpoint = load_network(path, NetworkQuery(network, act, dialect, options), features)
        self.check_dtype(checkpoint.dtype)
        dtype = self.loaded_dtype(checkpoint.dtype)
        model = self.backend.build(checkpoint.network.graph, dtype=dtype, seed=None)
        model.load(checkpoint.cast(dtype))
        model.native.eval()
        module: M = model.native
        return module

    def replace_activations(
        self,
        model: M,
        replacements: Mapping[str, str | Node],
        example: Any,
        *,
        channel_axis: int | None = None,
        beta: float = 100.0,
    ) -> Replacements:
        """Replace activations of a model in place, preserving its function where possible.

        Parameters
        ----------
        model : $module
            Any model. $sites
        replacements : mapping from str to str or Node
            Old activations to new ones. An old name matches any options, or those that it states:
            ``"gelu(approximate=tanh)"``.
        example : $tensor or tuple
            An input, or a tuple of arguments. The model is run on it once, in evaluation mode and
            without gradients, to find the number of channels at each place. Modes and running
            statistics do not change.
        channel_axis : int, optional
            Axis of the channels in the inputs of the activations. The default is $channel_axis, the
            framework's convention.$axis_of_tokens
        beta : float, optional
            The beta of ACON where it replaces ReLU or PReLU.

        Returns
        -------
        Replacements
            What was done at each place, why the rest was kept, and the calls of functions, such as
            ``relu(x)``, that cannot be replaced. Print it for a report.

        Raises
        ------
        SpecError
            If a name does not exist.
        AconError
            If the model is itself an activation, or if `channel_axis` or `beta` is invalid.

        Notes
        -----
        SiLU becomes ACON, and identity, ReLU, PReLU and HardSwish become RepAct, exactly. ReLU and
        PReLU become ACON with an error of at most 0.2785 / `beta`. Other activations start at their
        own initial values. New modules take over dtype, device and mode. Their parameters are new:
        create the optimizer afterwards.

        Examples
        --------
        $imports
        >>> from $package import replace_activations
        >>> model = $model
        >>> done = replace_activations(model, {"relu": "acon_c"}, $image)
        >>> [(site.old, site.new, site.channels) for site in done.replaced]
        [('relu', 'acon_c', 8)]
        """
        axis = self.modules.channel_axis if channel_axis is None else channel_axis
        return surgery.replace_activations(self.modules, model, replacements, example, channel_axis=axis, beta=beta)

    def fuse(self, model: M) -> M:
        """Replace every RepAct of a model by its exact closed form, for inference.

        Parameters
        ----------
        model : $module
            A model that contains RepAct modules of this package.

        Returns
        -------
        $module
            The model, changed in place. A model that was made from a spec as a whole, such as one
            from `create` or `load`, comes back as a new module and stays as it was.

        Raises
        ------
        AconError
            If the model contains no RepAct.

        Notes
        -----
        The closed form is y = A x + B relu(x) + H hardswish(x) + c, with A = w0 + alpha w2, B = w1
        + (1 - alpha) w2 and H = w3, or the same of the softmax of w (variant 2). The norm of
        variant 3 is included with its running statistics, so that the result equals the model in
        evaluation mode. Coefficients are computed in float64. Dtype, device and mode are kept, and
        the result can be trained.

        Examples
        --------
        $imports
        >>> from $package import RepAct, fuse
        >>> type(fuse(RepAct($only_random))).__name__
        'FusedRepAct'
        """
        module: M = surgery.fuse(self.modules, model)
        return module

    def fold(self, model: M) -> M:
        """Fold the batch norms of every Meta-ACON generator into its convolutions, for inference.

        Parameters
        ----------
        model : $module
            A model that contains MetaAconC modules with ``norm="batch"``.

        Returns
        -------
        $module
            The model, changed in place. A model that was made from a spec as a whole comes back as
            a new module and stays as it was. The activations then have ``norm="none"``, which also
            accepts a batch of one.

        Raises
        ------
        AconError
            If the model contains no such activation.

        Notes
        -----
        The generator is linear up to its sigmoid, so that the result equals the model in evaluation
        mode: weight becomes weight * gain, bias becomes (bias - mean) * gain + shift. It saves 2
        (hidden + C) parameters per activation. Values are computed in float64. Dtype, device and
        mode are kept.

        Examples
        --------
        $imports
        >>> from $package import MetaAconC, fold
        >>> fold(MetaAconC(8$random)).spec.norm
        'none'
        """
        module: M = surgery.fold(self.modules, model)
        return module

    def doctor(self, module: M, *, channel_axis: int | None = None) -> Diagnosis:
        """Check whether a module computes ACON-C, by nine exact identities.

        Parameters
        ----------
        module : $module
            Any module with parameters or attributes `p1`, `p2` and `beta` of C elements each. They
            are set to test values and restored afterwards. It is run in evaluation mode, in its own
            dtype and on its own device.
        channel_axis : int, optional
            Axis of the channels in the input. The default is $channel_axis, the framework's
            convention.

        Returns
        -------
        Diagnosis
            Each identity with its error and the error that rounding explains; `healthy` if all
            hold. Print it for a report.

        Raises
        ------
        AconError
            If the module has no such parameters or cannot be run.

        Examples
        --------
        $imports
        >>> from $package import AconC, doctor
        >>> doctor(AconC(8$random)).healthy
        True
        """
        return surgery.doctor(self.modules, module, self.modules.channel_axis if channel_axis is None else channel_axis)

    def gradient_bounds(self, model: M) -> dict[str, GradientBounds]:
        """Compute the interval of the derivative of every ACON activation, per channel.

        Parameters
        ----------
        model : $module
            A model that contains ACON-A, B, C or Meta-ACON modules of this package.

        Returns
        -------
        dict from str to GradientBounds
            The bounds by path of the module: arrays `low` and `high`, of shape (C,); `beta`, None
            where it is generated; `linear`, True for channels that have become linear. Empty if
            there is no such activation.

        Notes
        -----
        The derivative lies between kappa p1 + (1 - kappa) p2 and kappa p2 + (1 - kappa) p1, kappa =
        1.0998, for every input and every beta. A generated beta is held constant.

        References
        ----------
        Ma et al. 2021, "Activate or Not: Learning Customized Activation", equations 9 and 10.

        Examples
        --------
        $imports
        >>> from $package import AconC, gradient_bounds
        >>> bounds = gradient_bounds(AconC(8, init="paper"$random))[""]
        >>> round(float(bounds.low[0]), 4), round(float(bounds.high[0]), 4)
        (-0.0998, 1.0998)
        """
        return surgery.gradient_bounds(self.modules, model)

    def param_groups(self, model: M, weight_decay: float) -> Any:
        """Separate the trainable parameters that decay from those that do not.

        Parameters
        ----------
        model : $module
            Any model.
        weight_decay : float
            Weight decay of the parameters that decay.

        Returns
        -------
        $groups

        Notes
        -----
        p1, p2, beta, branch weights, biases and the parameters of norms do not decay: with decay,
        ACON loses accuracy (ultralytics/yolov5, issue 2891). For modules of this package the spec
        decides. In others, parameters with two axes or more decay$undecayed.

        Examples
        --------
        $imports
        >>> from $package import param_groups
        >>> model = $model
        >>> $optimizer
        """
        return surgery.param_groups(self.modules, model, weight_decay)


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
