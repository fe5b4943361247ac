"""Docstring templates of the functions that every backend implements, such as `acon`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from string import Template
from typing import Any

from acon_core.framework import Framework
from acon_core.frontend.docstrings import completed

# Texts that several templates share: `$x` stands for the text "x", and so on.
_SHARED = {
    "x": "x : $tensor\n    Input of any rank, the batch first.",
    "axis": "channel_axis : int, optional\n    Axis of the channels of `x`. The default is $channel_axis.",
    "returns": "Returns\n-------\n$tensor\n    Same shape and dtype as `x`. 16-bit inputs are computed in float32.",
    "raises": "Raises\n------\nSpecError\n    If a shape or `channel_axis` is invalid for `x`.",
    "saved": "Only the arguments are saved for the backward pass.",
}

_DOCSTRINGS = {
    "acon": """
        Compute ACON-C, the smooth maximum of p1 x and p2 x.

        y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x))

        Parameters
        ----------
        $x
        p1, p2 : $tensor or float
            Slopes. Shape: $gate. A float is a constant, without gradient.
            p1 = 1.0 and p2 = 0.0 give ACON-A (Swish); p1 = 1.0 gives ACON-B.
        beta : $tensor or float
            Steepness, in any shape that `p1` may have.
        $axis

        $returns

        $raises

        Notes
        -----
        Smooth, without kinks.
        $saved $differentiation

        References
        ----------
        Ma et al. 2021, "Activate or Not: Learning Customized Activation", equation 8.

        Examples
        --------
        $imports
        >>> from $package import acon
        >>> acon($array([[0.0, 100.0]]), 1.0, 0.0, beta=1.0).tolist()
        [[0.0, 100.0]]
        """,
    "smooth_maximum": """
        Compute the smooth maximum of two or more values, element by element.

        y = sum_i(x_i exp(beta x_i)) / sum_i(exp(beta x_i))

        Parameters
        ----------
        *values : $tensor
            Two or more values of one shape and dtype.
        beta : $tensor or float, optional
            Steepness: a float, or a tensor of one element, which may require a gradient. Infinity
            gives the maximum, 0 the mean, minus infinity the minimum. The default is 1.

        Returns
        -------
        $tensor
            Same shape and dtype as the values. 16-bit values are computed in float32.

        Raises
        ------
        SpecError
            If there are fewer than two values, or if their shapes differ.

        Notes
        -----
        Smooth, without kinks. Finite for all finite values. $differentiation

        References
        ----------
        Ma et al. 2021, "Activate or Not: Learning Customized Activation", equation 2.

        Examples
        --------
        $imports
        >>> from $package import smooth_maximum
        >>> smooth_maximum($array([1.0]), $array([3.0]), beta=0.0).tolist()
        [2.0]
        """,
    "maximum": """
        Compute the maximum of two values, element by element.

        Parameters
        ----------
        a, b : $tensor
            Values of one shape and dtype.

        Returns
        -------
        $tensor
            Same shape and dtype as the values.

        Notes
        -----
        Where the values are equal, each gets half of the gradient.

        Examples
        --------
        $imports
        >>> from $package.functional import maximum
        >>> maximum($array([1.0]), $array([3.0])).tolist()
        [3.0]
        """,
    "prelu": """
        Compute PReLU: x where x > 0, else `negative` times x.

        Parameters
        ----------
        $x
        negative : $tensor
            Slope of the negative side. Shape: $gate.
        $axis

        $returns

        $raises

        Notes
        -----
        At x = 0, the gradient of x is `negative` and that of `negative` is 0.
        $saved $differentiation

        References
        ----------
        He et al. 2015, "Delving Deep into Rectifiers", equation 1.

        Examples
        --------
        $imports
        >>> from $package.functional import prelu
        >>> prelu($array([[-2.0, 3.0]]), $array([0.25])).tolist()
        [[-0.5, 3.0]]
        """,
    "arelu": """
        Compute AReLU: (1 + sigmoid(beta)) x where x > 0, else min(max(alpha, 0.01), 0.99) x.

        Parameters
        ----------
        $x
        alpha, beta : $tensor
            Coefficients. Shape: $gate.
        $axis

        $returns

        $raises

        Notes
        -----
        The gradient at x = 0 is that of the negative side. The gradient of alpha is 0 outside
        [0.01, 0.99].
        $saved $differentiation

        References
        ----------
        Chen et al. 2020, "AReLU: Attention-based Rectified Linear Unit", equation 4.

        Examples
        --------
        $imports
        >>> from $package.functional import arelu
        >>> arelu($array([[-2.0, 2.0]]), $array([0.25]), $array([0.0])).tolist()
        [[-0.5, 3.0]]
        """,
    "repact_coefficients": """
        Compute the factors of x, relu(x) and hardswish(x) in the sum of the branches of RepAct.

        The factors are w0 + alpha w2, w1 + (1 - alpha) w2 and w3, where w is `weights` or, with
        `softmax`, softmax(`weights`).

        Parameters
        ----------
        weights : $tensor
            Weights of the branches, shape (4,): identity, ReLU, PReLU and HardSwish.
        alpha : $tensor
            Slope of the PReLU, shape (1,).
        softmax : bool, optional
            Whether to apply softmax to the weights. The default is False.

        Returns
        -------
        tuple of $tensor
            The three factors, each of shape (1,).

        References
        ----------
        Wu et al. 2024, "RepAct: The Re-parameterizable Adaptive Activation Function".

        Examples
        --------
        $imports
        >>> from $package.functional import repact_coefficients
        >>> factors = repact_coefficients($array([1.0, 2.0, 4.0, 8.0]), $array([0.25]))
        >>> [each.tolist() for each in factors]
        [[2.0], [5.0], [8.0]]
        """,
    "repact": """
        Compute identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift.

        Parameters
        ----------
        $x
        identity, relu, hardswish : $tensor
            Factors. Shape: $gate.
        shift : $tensor, optional
            Offset, in any shape that a factor may have. The default is no offset.
        $axis

        $returns

        $raises

        Notes
        -----
        Gradients at kinks: relu'(0) = 0, hardswish'(-3) = 0, hardswish'(3) = 1.
        $saved $differentiation

        References
        ----------
        Wu et al. 2024, "RepAct: The Re-parameterizable Adaptive Activation Function".

        Examples
        --------
        $imports
        >>> from $package.functional import repact
        >>> repact($array([[-4.0, 4.0]]), $array([0.5]), $array([1.0]), $array([2.0])).tolist()
        [[-2.0, 14.0]]
        """,
    "dynamic_maximum": """
        Compute the maximum of two lines, max(a1 x + b1, a2 x + b2): the function of DyReLU.

        (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v

        Parameters
        ----------
        $x
        theta : $tensor
            Shape (N, 4), or (N, 4 C) with elements 4 c to 4 c + 3 for channel c.
        lambdas, init_v : $tensor
            Constants of shape (4,).
        $axis

        $returns

        $raises

        Notes
        -----
        Where the lines are equal, each gets half of the gradient.
        The backward pass saves x and no other tensor of its size. $differentiation

        References
        ----------
        Chen et al. 2020, "Dynamic ReLU", section 3.2.

        Examples
        --------
        $imports
        >>> from $package.functional import dynamic_maximum
        >>> theta, lambdas = $array([[0.0, 0.0, 0.0, 0.0]]), $array([1.0, 1.0, 0.5, 0.5])
        >>> dynamic_maximum($array([[-2.0, 3.0]]), theta, lambdas, $array([1.0, 0.0, 0.0, 0.0])).tolist()
        [[0.0, 3.0]]
        """,
}


def document(framework: Framework, *functions: Callable[..., Any]) -> None:
    """Set the docstring of each function from the template of the same name.

    `framework.texts` must have `array`, an expression that makes a tensor from a list, and
    `differentiation`, a sentence for the Notes section.
    """
    gate = "(1 or N, 1 or C, 1, 1)" if framework.channel_axis == 1 else "(1 or N, 1, 1, 1 or C)"
    texts = {"gate": f"(1,), (C,), {gate}, or the shape of `x`", **framework.texts}
    for function in functions:
        template = Template(inspect.cleandoc(_DOCSTRINGS[function.__name__])).safe_substitute(_SHARED)
        function.__doc__ = completed(template, replace(framework, texts=texts))
