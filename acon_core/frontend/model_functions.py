"""The public functions of every backend that take a native model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from acon_core import surgery
from acon_core.surgery import Diagnosis, GradientBounds, Modules, Replacements, Value, Where

M = TypeVar("M")


class ModelFunctions(Generic[M]):
    """The half of `Frontend` that works on any model of type `M`, through `modules`."""

    modules: Modules

    def replace_activations(
        self,
        model: M,
        replacements: Mapping[Any, Value],
        example: Any,
        *,
        channel_axis: int | Mapping[str, int] | None = None,
        beta: float | None = None,
        where: Where = None,
    ) -> Replacements:
        """Replace activations of a model in place, preserving its function where possible.

        Parameters
        ----------
        model : $module
            Any model. $sites
        replacements : mapping
            Old activations to new ones. A key is a name, which matches any options, or those that
            it states (``"gelu(approximate=tanh)"``); a class of modules; or a function of path and
            module that says whether it matches. ``"swish"`` matches SiLU too. A value is a name, a
            spec, or a function of the number of channels that returns one of these or a module.
        example : $tensor, tuple or dict
            An input, a tuple of arguments, or a dictionary of keyword arguments. The model is run
            on it, in evaluation mode and without gradients, before and after. Modes and running
            statistics do not change.
        channel_axis : int or mapping from str to int, optional
            Axis of the channels in the inputs of the activations, for all or by path. The default:
            $found_axis.
        beta : float, optional
            The beta of ACON where it replaces ReLU or PReLU. The default is 100 divided by the root
            mean square of the inputs that the example gives at each place.
        where : str, iterable of str or callable, optional
            The places to replace at: patterns of paths, ``"layer4.*"``, or a function of the path.

        Returns
        -------
        Replacements
            What was done at each place, why the rest was kept, the calls of functions, such as
            ``relu(x)``, that could not be replaced, the wanted names that met nothing, and the
            change of the output. Print it for a report.

        Raises
        ------
        SpecError
            If a name does not exist.
        AconError
            If the model is itself an activation or cannot be changed, if `channel_axis` or `beta`
            is invalid, or if the channel axis of a place is unknown.

        Notes
        -----
        SiLU becomes ACON, and identity, ReLU, PReLU and HardSwish become RepAct, exactly. ReLU and
        PReLU become ACON with an error of at most 0.2785 / `beta`. Other activations start at their
        own initial values. New modules take over dtype, device and mode. Their parameters are new:
        create the optimizer afterwards. A module that is called at several places, or that has
        several paths, becomes several. Where a method of a module has to call another module for
        it, this module gets a subclass of its class with that call changed.

        Examples
        --------
        $imports
        >>> from $package import replace_activations
        >>> model = $model
        >>> done = replace_activations(model, {"relu": "acon_c"}, $image)
        >>> [(site.old, site.new, site.channels) for site in done.replaced]
        [('relu', 'acon_c', 8)]
        """
        return surgery.replace_activations(
            self.modules, model, replacements, example, channel_axis=channel_axis, beta=beta, where=where
        )

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
        """Check whether a module computes ACON-C: exact identities, gradients, and training.

        Parameters
        ----------
        module : $module
            Any module with parameters or attributes `p1`, `p2` and `beta` of C elements or one, or
            a model that contains such modules: each is examined. They are set to test values and
            restored afterwards. Without `beta`, it is generated: p1, p2 and the identity at that
            beta are examined. Modules run in both modes, in their own dtype, on their own device.
        channel_axis : int, optional
            Axis of the channels in the input. The default is $channel_axis, the framework's
            convention.

        Returns
        -------
        Diagnosis
            Each identity with its error and the error that rounding explains; `healthy` if all
            hold; `mistake` names a known mistake. Print it for a report.

        Raises
        ------
        AconError
            If no module has such parameters or cannot be run.

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
