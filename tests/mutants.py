"""Break a copy of the code, one breakage at a time; the tests must fail each time.

Run `python -m nox -s mutants`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in `file`; then `tests` must fail in the environment of `backend`.

    `old` must occur exactly once. `tests` are arguments of pytest.
    """

    what: str
    file: str
    old: str
    new: str
    backend: str
    tests: str


REFERENCE = "acon_core/reference/layers.py"
NETWORK = "acon_core/networks/shufflenet_v2.py"
RESNET = "acon_core/networks/resnet.py"
TFNET = "acon_core/networks/tfnet.py"
ACON = "acon_core/spec/acon.py"
RECTIFIERS = "acon_core/spec/rectifiers.py"
FUSION = "acon_core/spec/fusion.py"
GATED = "acon_core/reference/gated.py"
KERNELS = "acon_core/kernels.py"
POINTWISE = "acon_core/reference/pointwise.py"
CONVERT = "acon_core/checkpoint/convert.py"
READING = "acon_core/checkpoint/reading.py"
UNPICKLER = "acon_core/checkpoint/codecs/unpickler.py"
SIZES = "tests/checkpoint/test_sizes.py"
PLAIN = "tests/checkpoint/test_plain.py"
RUNNER = "acon_core/conformance/runner.py"
TORCH = "backends/acon_torch/functional.py"
TORCH_MODULES = "backends/acon_torch/modules.py"
TORCH_KERNELS_FILE = "backends/acon_torch/kernels.py"
JAX = "backends/acon_jax/modules.py"
PADDLE = "backends/acon_paddle/modules.py"
PADDLE_KERNELS = "backends/acon_paddle/kernels.py"
MGE = "backends/acon_megengine/modules.py"
MGE_FUNCTIONAL = "backends/acon_megengine/functional.py"
MGE_KERNELS, MGE_KERNEL_TESTS = "backends/acon_megengine/kernels.py", "tests/backends/test_megengine_kernels.py"
MGE_LAYOUT = "backends/acon_megengine/checkpoint/layout.py"

CORE = "tests/reference/test_reference.py"
SPEC = "tests/spec/test_spec.py"
NETWORKS = "tests/networks/test_networks.py"
FAMILY = "tests/reference/test_activations.py"
FUSE = "tests/spec/test_fusion.py"
REPLACE = "tests/surgery/test_replace.py"
LAYOUT = "tests/test_layout.py tests/checkpoint/test_convert.py -k layout or caught or one_file"
REPACT = "tests/networks/test_repact_networks.py"
REPACT_VALUES = "tests/networks/test_repact_values.py"
DIALECT = "tests/checkpoint/test_dialects.py"
CAST = "tests/checkpoint/test_cast.py"
OTHERS = "tests/networks/test_published_networks.py"

EAGER = "tests/backends/test_conformance.py -k eager"
TORCH_KERNELS = "tests/backends/test_torch_kernels.py -k"
PADDLE_GRADIENTS = "tests/backends/test_paddle_gradients.py"
REPLACE_TORCH = "tests/backends/test_torch_replace.py"
STACKED = "tests/backends/test_jax_stacked.py"
JAX_KERNELS = "tests/backends/test_jax_kernels.py"

MUTANTS = [
    # The reference and the spec.
    Mutant("reference: a sign in the ACON gradient", GATED, "c * p2 * (t - curvature)", "c * p2 * (t + curvature)", "core", CORE),
    Mutant("reference: biased running variance", REFERENCE, "variance * (count / max(count - 1, 1))", "variance", "core", CORE),
    Mutant("reference: decay and 1 - decay swapped", REFERENCE, "keep * context", "(1 - keep) * context", "core", CORE),
    Mutant("reference: split off by one", REFERENCE, "slice(i, None,", "slice((i + 1) % 2, None,", "core", CORE),
    Mutant("reference: channel shuffle without transpose", REFERENCE, "reshape(node.groups, -1).T", "reshape(node.groups, -1)", "core", CORE),
    Mutant("reference: convolution groups reversed", REFERENCE, "weight.reshape(groups,", "weight[::-1].reshape(groups,", "core", CORE),
    Mutant("reference: max pool takes the last of equal values", REFERENCE, "flat.argmax(-1)", "flat.shape[-1] - 1 - flat[..., ::-1].argmax(-1)", "core", CORE),
    Mutant("shufflenet: contiguous instead of interleaved split", NETWORK, "Split(2, interleaved=True)", "Split(2, interleaved=False)", "core", CORE),
    Mutant("shufflenet: concat order reversed", NETWORK, "concat(proj, main)", "concat(main, proj)", "core", CORE),
    Mutant("shufflenet: no std 0.01 under `first`", NETWORK, 'under="first"', 'under="nowhere"', "core", SPEC),
    Mutant("shufflenet: reduction 16 at width 0.5", NETWORK, "reduction=8 if width == 0.5 else 16", "reduction=16", "core", SPEC),
    Mutant("shufflenet: dropout at every width", NETWORK, "dropout=width == 2.0", "dropout=True", "core", f"{NETWORKS} -k dropout"),
    Mutant("meta_acon: fc2 defined before fc1", ACON, '{"fc1": fc1, "fc2": fc2}', '{"fc2": fc2, "fc1": fc1}', "core", SPEC),
    Mutant("resnet: stride on the 3x3", RESNET, "(stride, 1) if stride_on == 1 else", "(stride, 1) if stride_on == 3 else", "core", f"{NETWORKS} -k stride"),
    Mutant("resnet: first block of a stage dilated too", RESNET, "(channels, stride, previous_dilation) if first", "(channels, stride, dilation) if first", "core", f"{NETWORKS} -k dilation"),
    Mutant("resnet: Kaiming fan in instead of fan out", RESNET, 'KaimingNormal("out")', 'KaimingNormal("in")', "core", f"{NETWORKS} -k initial"),
    Mutant("tfnet: concat order reversed", TFNET, "concat(x, main)", "concat(main, x)", "core", f"{CORE} -k published"),
    Mutant("tfnet: dropout at width 0.5 too", TFNET, "dropout=width > 0.5", "dropout=width > 0", "core", f"{NETWORKS} -k dropout"),
    Mutant("stages: zero blocks accepted", "acon_core/networks/network.py", "or min(blocks) < 1", "", "core", f"{NETWORKS} -k refused"),
    Mutant("stages: wrong number of depths accepted", "acon_core/networks/network.py", "len(blocks) != stages or ", "", "core", f"{NETWORKS} -k refused"),
    Mutant("features: outputs in execution order", "acon_core/spec/transforms.py", "outputs=tuple(taps),", "outputs=tuple(dict.fromkeys(n for s in steps for n in s.outputs if n in taps)),", "core", f"{NETWORKS} -k features"),
    Mutant("features: unused children kept", "acon_core/spec/transforms.py", "if not own and not below:", "if False:", "core", f"{NETWORKS} -k features"),
    # The activations: at least one breakage each, in the spec or in the reference.
    Mutant("identity: a sign in the gradient", POINTWISE, "elementwise(x, np.ones(()))", "elementwise(x, -np.ones(()))", "core", FAMILY),
    Mutant("relu: gradient 1 at 0", POINTWISE, "return (x > 0).astype", "return (x >= 0).astype", "core", FAMILY),
    Mutant("relu6: gradient 1 at 6", POINTWISE, "(x < 6)).astype", "(x <= 6)).astype", "core", FAMILY),
    Mutant("leaky_relu: gradient 1 at 0", POINTWISE, "np.where(x > 0, 1.0, node.slope)", "np.where(x >= 0, 1.0, node.slope)", "core", FAMILY),
    Mutant("elu: gradient without alpha", POINTWISE, "node.alpha * np.exp(low)))", "np.exp(low)))", "core", FAMILY),
    Mutant("selu: constants in float32", "acon_core/spec/pointwise.py", "1.6732632423543772848170429916717", "1.6732632", "core", FAMILY),
    Mutant("celu: multiplied instead of divided by alpha", POINTWISE, "np.minimum(x, 0.0) / node.alpha", "np.minimum(x, 0.0) * node.alpha", "core", FAMILY),
    Mutant("gelu: wrong tail of erfc", POINTWISE, "_erfc(-x / math.sqrt(2.0))", "_erfc(x / math.sqrt(2.0))", "core", FAMILY),
    Mutant("gelu_tanh: wrong digit in the cubic coefficient", POINTWISE, "0.044715", "0.04475", "core", FAMILY),
    Mutant("silu: a sign in the gradient", POINTWISE, "return elementwise(x * s, s + x * (s * t))", "return elementwise(x * s, s - x * (s * t))", "core", FAMILY),
    Mutant("mish: gradient without its second term", POINTWISE, "np.tanh(soft) + x *", "np.tanh(soft) + 0 *", "core", FAMILY),
    Mutant("softplus: gradient without beta", POINTWISE, "sigmoid(node.beta * x))", "sigmoid(x))", "core", FAMILY),
    Mutant("hardswish: wrong gradient at 3", POINTWISE, "np.where(x >= 3.0, 1.0", "np.where(x > 3.0, 1.0", "core", FAMILY),
    Mutant("hardsigmoid: wrong gradient at 3", POINTWISE, "(x < 3.0)) / 6.0", "(x <= 3.0)) / 6.0", "core", FAMILY),
    Mutant("sigmoid: gradient s * s instead of s * (1 - s)", POINTWISE, "sigmoid(x) * sigmoid(-x))", "sigmoid(x) * sigmoid(x))", "core", FAMILY),
    Mutant("swish: initial beta 1", RECTIFIERS, '{"weight": Param((1,), Constant(0.25))})\n\n\n@dataclass(frozen=True)\nclass PReLU', '{"weight": Param((1,), Constant(1.0))})\n\n\n@dataclass(frozen=True)\nclass PReLU', "core", FAMILY),
    Mutant("prelu: shared when per channel", RECTIFIERS, "1 if self.shared else", "1 if not self.shared else", "core", FAMILY),
    Mutant("arelu: alpha not clipped", GATED, "np.clip(alpha, 0.01, 0.99)", "alpha * 1.0", "core", "tests/reference/test_reference.py tests/reference/test_activations.py"),
    Mutant("arelu: wrong sign in the gradient of beta", GATED, "np.maximum(x, 0.0) * (sigmoid(beta_logit)", "np.maximum(x, 0.0) * (-sigmoid(beta_logit)", "core", CORE),
    Mutant("dyrelu: slopes and intercepts swapped", GATED, "a1, a2, b1, b2 = (", "b1, b2, a1, a2 = (", "core", FAMILY),
    Mutant("dyrelu: variant B shares coefficients between channels", RECTIFIERS, '4 if self.variant == "A" else 4 * self.width', "4", "core", SPEC + " " + FAMILY),
    Mutant("frelu: a tie gives all gradient to the first argument", GATED, "np.where(a == b, 0.5, 0.0)", "np.where(a == b, 1.0, 0.0)", "core", FAMILY),
    Mutant("frelu: no padding", ACON, "Conv2d(self.width, self.width, 3, 1, 1,", "Conv2d(self.width, self.width, 3, 1, 0,", "core", FAMILY),
    Mutant("acon_a: p2 of acon_b", ACON, 'Acon(1.0, 0.0)}, params)', 'Acon(1.0, 0.25)}, params)', "core", FAMILY),
    Mutant("acon_b: initial p2 of SiLU", ACON, "Constant(0.25)", "Constant(0.0)", "core", FAMILY),
    Mutant("acon_c: initial values of the paper instead of the code", ACON, '"published": Normal(1.0)', '"published": Constant(paper)', "core", FAMILY),
    Mutant("meta_acon: mean instead of sum", ACON, "ReduceSample(self.reduce)", 'ReduceSample("mean")', "core", FAMILY),
    Mutant("meta_acon: mean after the convolutions", ACON, '{"mean": GlobalAvgPool(), **self._convolutions()}', '{**self._convolutions(), "mean": GlobalAvgPool()}', "core", FAMILY),
    Mutant("acon_frelu: no pool at stride 2", ACON, "MaxPool2d(3, 2, 1) if", "MaxPool2d(1, 2) if", "core", FAMILY),
    Mutant("smooth_maximum: gradient without beta", GATED, "direct * (node.beta * (offsets - mean))", "direct * (offsets - mean)", "core", FAMILY),
    Mutant("repact: PReLU and HardSwish branches swapped", GATED, "w[1:2] + (1.0 - alpha) * w[2:3], w[3:])", "w[1:2] + (1.0 - alpha) * w[3:], w[2:3])", "core", FUSE),
    Mutant("fused_repact: variant 3 without the mean", FUSION, "- gain * mean", "- 0 * mean", "core", FUSE),
    Mutant("fuse: no softmax in variant 2", FUSION, "weights = weights / weights.sum()", "pass", "core", FUSE),
    Mutant("fold: bias not scaled", FUSION, '(bias - wide["running_mean"]) * gain', '(bias - wide["running_mean"])', "core", FUSE),
    Mutant("channel axis: output not moved back", "acon_core/spec/activation_base.py", '"from_channels": MoveAxis(1, axis)', '"from_channels": MoveAxis(1, 1)', "core", FAMILY),
    Mutant("preserve: weight on the identity branch", "acon_core/surgery/preserve.py", "branches, alpha = [0.0, 1.0, 0.0, 0.0]", "branches, alpha = [0.1, 1.0, 0.0, 0.0]", "core", REPLACE),
    Mutant("preserve: slope above 1 treated as a maximum", "acon_core/surgery/preserve.py", "np.where(negative > 1.0, -beta, beta)", "beta", "core", REPLACE),
    Mutant("preserve: channel axes not compared", "acon_core/surgery/preserve.py", "pair[0].channel_axis == pair[1].channel_axis", "True", "core", REPLACE),
    Mutant("checks: gate broadcast along the batch accepted", "acon_core/spec/gated.py", "ranked = len(gate) in (4, rank)", "ranked = True", "core", REPLACE),
    Mutant("bounds: kappa to four digits", "acon_core/surgery/bounds.py", "KAPPA = 1.099839320128866917", "KAPPA = 1.0998", "core", FAMILY),
    # Layouts, codecs, conversion, the runner.
    Mutant("flax: wrong weight permutation", "backends/acon_jax/checkpoint/layout.py", "transpose(2, 3, 1, 0)", "transpose(2, 3, 0, 1)", "core", LAYOUT),
    Mutant("paddle: Linear not transposed", "backends/acon_paddle/checkpoint/layout.py", "np.transpose, np.transpose", "", "core", LAYOUT),
    Mutant("megengine: one-dimensional bias", MGE_LAYOUT, "bias.reshape(1, -1, 1, 1)", "bias", "core", LAYOUT),
    Mutant("convert: written bits not verified", CONVERT, "        if path not in regenerated:\n            _check_same_bits", "        if False:\n            _check_same_bits", "core", LAYOUT),
    Mutant("convert: source overwritten", CONVERT, "source.samefile(target)", "False", "core", LAYOUT),
    Mutant("unpickler: unknown globals accepted", UNPICKLER, "if not (self.allow_foreign and is_foreign(module, name)):", "if False:", "core", "tests/checkpoint tests/cli/test_cli.py"),
    Mutant("runner: every error passes", RUNNER, "return self.error <= self.bound", "return True", "core", "tests/conformance/test_runner.py"),
    Mutant("names: unexpected tensors accepted", "acon_core/tensors.py", "if missing or unexpected:", "if missing:", "core", "tests/test_tensors.py"),
    Mutant("errors: NaN not equal to NaN", "acon_core/numerics.py", " & ~(np.isnan(found) & np.isnan(expected))", "", "core", "tests/conformance/test_runner.py"),
    Mutant("runner: unneeded waivers accepted", RUNNER, "    if unneeded:", "    if False:", "core", "tests/conformance/test_runner.py"),
    # Metadata, casts, and verification of a converted file.
    Mutant("reading: file warnings dropped", READING, "    for text in checkpoint.warnings:", "    for text in ():", "core", "tests/checkpoint/test_metadata.py"),
    Mutant("metadata: class count not checked", "acon_core/checkpoint/metadata.py", "if classes and classes != str(network.num_classes):", "if False:", "core", "tests/checkpoint/test_metadata.py"),
    Mutant("metadata: preprocessing not written", "acon_core/checkpoint/metadata.py", 'json.dumps(asdict(network.input)) if network.input else ""', '""', "core", "tests/checkpoint/test_metadata.py"),
    Mutant("preprocessing: range without normalization", "acon_core/networks/preprocessing.py", "(edge - m) / s", "edge", "core", "tests/verification/test_run.py"),
    Mutant("run: image range not checked", "acon_core/verification/run.py", "if not (lower - slack <= low and high <= upper + slack):", "if False:", "core", "tests/verification/test_run.py"),
    Mutant("cast: overflow accepted", "acon_core/checkpoint/cast.py", "        if lost.any():", "        if False:", "core", CAST),
    Mutant("cast: float8 stored in int8", "acon_core/checkpoint/cast.py", '"float8_e4m3fn": ("float16", ', '"float8_e4m3fn": ("int8", ', "core", CAST),
    Mutant("convert: shard size ignored", CONVERT, "sharded.write(path, native, entries, shard_bytes=shard_bytes)", "sharded.write(path, native, entries)", "core", "tests/checkpoint/test_convert.py -k shard"),
    Mutant("check: tensors not decoded", "acon_core/cli/checkpoints.py", "content.tensors[name]  # some", "name  # some", "core", "tests/cli/test_checkpoints.py -k check"),
    Mutant("diff: 0 and -0 counted as distant", "acon_core/checkpoint/diff.py", "np.where(pattern & sign, -magnitude, magnitude)", "np.where(pattern & sign, 1 - magnitude, magnitude)", "core", "tests/checkpoint/test_diff.py"),
    Mutant("diff: NaN payloads not compared", "acon_core/checkpoint/diff.py", "differs = _bits(a) != _bits(b)", "differs = _bits(a) != _bits(a)", "core", "tests/checkpoint/test_diff.py"),
    Mutant("diff: tensors that a format drops are compared", "acon_core/checkpoint/diff.py", "if path not in skipped})", "})", "core", "tests/checkpoint/test_diff.py"),
    Mutant("verify: every difference passes", "acon_core/verification/verify.py", "if not error <= BOUND:", "if False:", "torch", "tests/backends/test_verify.py"),
    Mutant("verify: state used instead of the probe", "acon_core/verification/verify.py", 'for path, array in asymmetric_state(graph, "probe").items()', "for path, array in checkpoint.state.items()", "torch", "tests/backends/test_verify.py"),
    Mutant("verify: worker runs in the current folder", "acon_core/verification/verify.py", "cwd=folder, ", "", "torch", "tests/backends/test_verify.py"),
    Mutant("verify: user folder first in sys.path", "acon_core/verification/run.py", "sys.path.append(str(folder))", "sys.path.insert(0, str(folder))", "torch", "tests/backends/test_verify.py"),
    Mutant("cli: current folder always in sys.path", "acon_core/cli/app.py", 'if network is not None and ":" in network:', "if True:", "core", "tests/verification/test_run.py"),
    Mutant("cli: traceback without --debug", "acon_core/cli/__init__.py", "if settings.debug:", "if True:", "core", "tests/cli/test_cli.py -k usage"),
    Mutant("cli: an error of --json is a line", "acon_core/cli/__init__.py", "if as_json and not", "if False and not", "core", "tests/cli/test_json.py -k errors"),
    Mutant("cli: JSON has infinity", "acon_core/cli/output.py", "not math.isfinite(value)", "False", "core", "tests/cli/test_json.py -k fields"),
    Mutant("cli: FORCE_COLOR makes a pipe a terminal", "acon_core/cli/output.py", "disable=not on_terminal", "disable=not err.is_terminal", "core", "tests/cli/test_terminal.py -k colors"),
    Mutant("cli: names cut to a width in a pipe", "acon_core/cli/output.py", "is_terminal(sys.stdout) else 1_000_000", "is_terminal(sys.stdout) else None", "core", "tests/cli/test_cli.py -k inspect"),
    Mutant("discovery: a stranger's entry point of our name used", "acon_core/discovery.py", "if not each.problem}", "}", "core", "tests/test_discovery.py -k taken"),
    Mutant("discovery: a broken package ends a command", "acon_core/discovery.py", "except (Exception, SystemExit) as error:", "except ImportError as error:", "core", "tests/test_discovery.py -k broken"),
    Mutant("conformance: what is not built fails", RUNNER, "except (SpecError, NotImplementedError) as error:", "except ZeroDivisionError as error:", "core", "tests/test_discovery.py -k unsupported"),
    Mutant("torch: options not printed", "backends/acon_torch/activations.py", "return self._one_line(self._shown(self.spec, shapes))", 'return ""', "torch", "tests/backends/test_constructors.py -k print"),
    Mutant("cli: options of conformance ignored before golden", "acon_core/cli/conformance.py", "if backend or report or case or compiled or as_json:", "if False:", "core", "tests/cli/test_cli.py -k golden"),
    Mutant("metadata: block counts not limited", "acon_core/checkpoint/metadata.py", "MAX_OPTION = 64", "MAX_OPTION = 5000", "core", "tests/checkpoint/test_metadata.py"),
    Mutant("jax: inputs not converted to the layer's dtype", JAX, "if all(array is None or array.dtype == (layer.dtype or x.dtype) for array in arrays):", "if True:", "jax", "tests/backends/test_jax_models.py"),
    Mutant("zip: checksums not verified", "acon_core/checkpoint/codecs/zip_archive.py", "if crc32(content) != member.crc:", "if False:", "core", "tests/checkpoint/codecs/test_zip_archive.py"),
    Mutant("orbax: symbolic links accepted", "backends/acon_jax/checkpoint/array_store.py", "elif entry.is_file(follow_symlinks=False):", "elif entry.is_file():", "core", "tests/checkpoint/codecs/test_hostile_orbax.py"),
    Mutant("orbax: links not checked again before loading", "backends/acon_jax/checkpoint/array_store.py", "list_files(folder)  #", "pass  #", "core", "tests/checkpoint/codecs/test_orbax.py"),
    Mutant("orbax: chunks cost nothing", "backends/acon_jax/checkpoint/array_store.py", " + cells // math.prod(read) * _CHUNK_COST", "", "core", "tests/checkpoint/codecs/test_orbax.py"),
    Mutant("orbax: missing chunks accepted", "backends/acon_jax/checkpoint/array_store.py", '"fill_missing_data_reads": not self._complete', '"fill_missing_data_reads": True', "core", "tests/checkpoint/codecs/test_orbax.py"),
    Mutant("orbax: every codec accepted", "backends/acon_jax/checkpoint/array_store.py", "if name not in _CODECS:", "if False:", "core", "tests/checkpoint/codecs/test_hostile_orbax.py"),
    Mutant("unpickler: dict keys not limited", "acon_core/checkpoint/codecs/pickle_values.py", "not 0 <= key < 1 << 31", "False", "core", "tests/checkpoint/codecs/test_unpickler.py -k hashes"),
    Mutant("verify: layers not compared", "acon_core/verification/worker.py", "        elif named_params(child):", "        elif False:", "torch", "tests/backends/test_verify.py"),
    # The networks and dialects of the RepAct code.
    Mutant("repact shufflenet: interleaved instead of contiguous split", "acon_core/networks/shufflenet_v2.py", "interleaved=False", "interleaved=True", "core", REPACT_VALUES),
    Mutant("load: a new head keeps the old seed", READING, "initial_state(network.graph, seed, self.dtype, only=changed)", "initial_state(network.graph, 0, self.dtype, only=changed)", "torch", "tests/backends/test_finetuning.py -k new_layers"),
    Mutant("resnet: the 3x3 convolution is not grouped", RESNET, "dilation, dilation, groups, bias),", "dilation, dilation, 1, bias),", "core", SIZES),
    Mutant("sizes: groups from the wrong tensor", "acon_core/networks/sizes.py", 'file.elements("layer1.0.conv2.weight"), 1)', 'file.elements("layer1.0.conv1.weight"), 1)', "core", SIZES),
    Mutant("target: a device is replaced", "acon_core/checkpoint/codecs/atomic_write.py", "if not stat.S_ISREG(mode) or streams:", "if streams:", "core", PLAIN),
    Mutant("convert: a dry run writes the target", CONVERT, "for part in parts if not dry_run else ():", "for part in parts:", "core", PLAIN),
    Mutant("convert: an unknown network goes to any layout", "acon_core/checkpoint/plain.py", "if _layout_of(format) != _layout_of(target):", "if False:", "core", PLAIN),
    Mutant("convert: prefixes of an unknown network are stripped", "acon_core/checkpoint/plain.py", "_bag(path, replace(format, backend=None), file, note)", "_bag(path, replace(format, backend=None), strip_prefix(file), note)", "core", PLAIN),
    Mutant("mobilenet: no 10% rule in channel rounding", "acon_core/networks/mobilenet_v3.py", "nearest + 8 if nearest < 0.9 * channels else nearest", "nearest", "core", REPACT),
    Mutant("mobilenet: decay 0.9", "acon_core/networks/mobilenet_v3.py", "decay=0.99", "decay=0.9", "core", REPACT),
    Mutant("swin: windows not shifted", "acon_core/networks/swin.py", "shift * (i % 2)", "0 * (i % 2)", "core", REPACT_VALUES),
    Mutant("swin: constant drop path rate", "acon_core/networks/swin.py", "DROP_PATH * place / max(sum(depths) - 1, 1)", "DROP_PATH", "core", REPACT),
    Mutant("vit: image size not checked", "acon_core/spec/tokens.py", "len(x) == 4 and fits(x[2:], (self.height, self.width))", "len(x) == 4", "core", REPACT),
    Mutant("acon_c shared: one parameter per channel", ACON, "size = 1 if self.shared else self.width", "size = self.width", "core", REPACT),
    Mutant("others: shift where one window covers the image", "acon_core/networks/swin.py", "shift = 0 if covered else", "shift = 1 if covered else", "core", f"{OTHERS} -k function"),
    Mutant("others: HardSwish one block early", "acon_core/networks/sources/torchvision.py", '"small": 3', '"small": 2', "core", f"{OTHERS} -k function"),
    Mutant("others: torchvision's stride on the first 1x1", "acon_core/networks/sources/torchvision.py", "bias=False, stride_on=3,", "bias=False, stride_on=1,", "core", f"{OTHERS} -k function"),
    Mutant("others: PaddleClas's first block without projection", "acon_core/networks/sources/paddleclas.py", "project_first=True", "project_first=False", "core", f"{OTHERS} -k names"),
    Mutant("others: running index of blocks not increased", "acon_core/checkpoint/dialects/dialect.py", "matches[pattern] += 1", "matches[pattern] += 0", "core", f"{OTHERS} -k names"),
    Mutant("others: timm's index buffer required", "acon_core/checkpoint/dialects/timm.py", 'absent=("layers', 'absent=("nowhere', "core", f"{OTHERS} -k names"),
    Mutant("others: dialects not limited to their networks", "acon_core/checkpoint/dialects/dialect.py", "return not self.networks or any(", "return True or any(", "core", f"{OTHERS} -k refused"),
    Mutant("others: torch.compile's prefix not removed", "acon_core/checkpoint/dialects/__init__.py", '"_orig_mod": "torch.compile"', '"_mod": "torch.compile"', "core", f"{OTHERS} -k wrappers"),
    Mutant("names: any module named module removed", "acon_core/checkpoint/names.py", "== count}", ">= count}", "core", "tests/checkpoint/test_names.py -k only_wrappers"),
    Mutant("names: thop's counters kept", "acon_core/checkpoint/names.py", 'BOOKKEEPING = {"total_ops": "thop", ', 'BOOKKEEPING = {', "core", "tests/checkpoint/test_names.py -k bookkeeping"),
    Mutant("reading: formats of one encoding not compared", READING, "        for rival, again in read_as(rivals, path, query):\n            _check", "        for rival, again in ():\n            _check", "core", "tests/checkpoint/test_names.py -k ambiguous"),
    Mutant("state dict: an average beside it ignored", "acon_core/checkpoint/codecs/state_dict.py", "or (usual and averages)", "", "core", "tests/checkpoint/codecs/test_state_dict.py -k single"),
    Mutant("unpickler: a call of any name is plain", UNPICKLER, "Instance(callee, plain=False)", "Instance(callee)", "core", "tests/checkpoint/codecs/test_pickled_module.py -k inert"),
    Mutant("torch: open sizes are fixed", "backends/acon_torch/tracing.py", "int(size) if has_static_value(size) else OPEN", "int(size)", "torch", "tests/backends/test_transformations.py -k export_open_batch-DyReLU"),
    Mutant("torch: a Function in a trace", "backends/acon_torch/gradient.py", "if is_traced() or not is_differentiated(x, *gates):", "if not is_differentiated(x, *gates):", "torch", "tests/backends/test_transformations.py -k jit_trace-AconC"),
    Mutant("torch: a fake seed is read", "backends/acon_torch/modules.py", "if isinstance(drawn, FakeTensor):", "if False:", "torch", "tests/backends/test_transformations.py -k fake_tensors-AconC"),
    Mutant("torch: reset leaves values", "backends/acon_torch/modules.py", "getattr(self.get_submodule(module), name).copy_(torch.from_numpy(array))", "pass", "torch", "tests/backends/test_transformations.py -k meta_device-AconC"),
    Mutant("lazy: parameters are new objects", "backends/acon_torch/lazy_modules.py", "made.get_submodule(holder)._parameters[name] = own[path]", "pass", "torch", "tests/backends/test_torch_lazy.py"),
    Mutant("lazy: axis of rank 3 guessed", "backends/acon_torch/lazy_modules.py", "if axis is None and rank == 3:", "if False:", "torch", "tests/backends/test_torch_lazy.py"),
    Mutant("lazy: width of a state dict ignored", "backends/acon_torch/lazy_modules.py", "if shapes.items() <= layout", "if shapes.items() < layout", "torch", "tests/backends/test_torch_lazy.py"),
    Mutant("others: act ignored by torchvision's MobileNetV3", "acon_core/networks/sources/torchvision.py", "if act is not None:", "if False:", "core", f"{OTHERS} -k activations"),
    Mutant("others: files with other activations not recognised", "acon_core/checkpoint/recognise.py", " or self._fitting(kept, groups)", "", "core", f"{OTHERS} -k activations"),
    Mutant("recognise: ambiguous match accepted", "acon_core/checkpoint/recognise.py", "if len(successful) > 1:", "if len(successful) > 9:", "core", DIALECT),
    Mutant("meta_acon: biases in the first generator", ACON, 'released = self.generator == "released"', "released = True", "core", f"{OTHERS} -k older"),
    Mutant("meta_acon: reduction in the first generator", ACON, "self.reduction if released else 1", "self.reduction", "core", f"{OTHERS} -k older"),
    Mutant("dialect: RepAct's branch order not converted", "acon_core/checkpoint/dialects/repact.py", '"weights": (0, 1, 3, 2)', '"weights": (0, 1, 2, 3)', "core", DIALECT),
    Mutant("dialect: permutation instead of its inverse", "acon_core/checkpoint/dialects/dialect.py", "_permutation(tuple(np.argsort(order).tolist()))", "_permutation(order)", "core", DIALECT),
    Mutant("reading: derived index not compared", READING, 'if param.kind == "derived" and', "if False and", "core", "tests/checkpoint/test_reading.py"),
    Mutant("recognise: unmatched tensors accepted", "acon_core/checkpoint/recognise.py", "return count == len(self.shapes)", "return True", "core", DIALECT),
    Mutant("random: a second draw starts inside a block again", "acon_core/random.py", "return values[skipped:]", "return values[:count]", "core", "tests/test_random.py"),
    Mutant("random: a second draw repeats the first", "acon_core/random.py", "self._drawn += count", "self._drawn += 0", "core", "tests/test_random.py"),
    Mutant("surgery: modes are not restored", "acon_core/surgery/modules.py", "part.training = mode", "part.training = False", "torch", "tests/backends/test_torch.py"),
    Mutant("building: the last namespace wins", "acon_core/building.py", "table[kind] = found[0]", "table[kind] = found[-1]", "core", "tests/test_building.py"),
    # The backends.
    Mutant("torch: a small call has no gradient", "backends/acon_torch/gradient.py", "return torch.is_grad_enabled() and any(", "return False and any(", "torch", f"{EAGER} and gelu"),
    Mutant("frontend: channels at another axis", "acon_core/frontend/from_spec.py", 'options["channel_axis"] = self.framework.channel_axis', 'options["channel_axis"] = -1', "torch", "tests/backends/test_docstrings.py"),
    Mutant("frontend: the framework's parameters are not documented", "acon_core/frontend/docstrings.py", "table[own.name] =", "_ =", "torch", "tests/backends/test_docstrings.py"),
    Mutant("torch: a sign in the gradient", TORCH, 'inplace_if_safe(t, "sub", curvature)', 'inplace_if_safe(t, "add", curvature)', "torch", f"{TORCH_KERNELS} agree"),
    Mutant("torch: 1 - sigmoid(z) instead of sigmoid(-z)", TORCH, 'inplace_if_safe(-z, "sigmoid")', "1 - torch.sigmoid(z)", "torch", f"{TORCH_KERNELS} digits"),
    Mutant("torch: wrong side in PReLU's weight gradient", TORCH, "below * x if needed[2]", "above * x if needed[2]", "torch", f"{TORCH_KERNELS} agree"),
    Mutant("torch: maximum gives a tie to one argument", TORCH, "torch.sign(a - b).add_(1)", "torch.sign(a - b).add_(2)", "torch", f"{TORCH_KERNELS} agree"),
    Mutant("torch: wrong clamp in RepAct's ReLU branch", TORCH, "torch.addcmul(y, torch.relu(x), relu)", "torch.addcmul(y, x.clamp(max=0), relu)", "torch", f"{EAGER} and repact_1"),
    Mutant("jax: wrong side in PReLU's weight gradient", "backends/acon_jax/functional.py", "g * jnp.maximum(x, 0.0), g * jnp.minimum(x, 0.0)", "g * jnp.maximum(x, 0.0), g * jnp.maximum(x, 0.0)", "jax", f"{JAX_KERNELS} -k prelu"),
    Mutant("jax: a constant gate taken as an operand", "backends/acon_jax/kernels.py", "sum(constant is None and 1 << k", "sum(1 << k", "jax", f"{JAX_KERNELS} -k fixed"),
    Mutant("jax: a call of the library in a program that XLA divides", "backends/acon_jax/kernels.py", "return alone and not", "return not", "jax", f"{JAX_KERNELS} -k devices"),
    Mutant("jax: a call of the library in an exported program", "backends/acon_jax/kernels.py", "return alone and not module.lowering_parameters.for_export", "return alone", "jax", f"{JAX_KERNELS} -k exported"),
    Mutant("surgery: beta grows with the scale of the inputs", "acon_core/surgery/plan.py", "SHARPNESS / scale if", "SHARPNESS * scale if", "torch", REPLACE_TORCH),
    Mutant("surgery: old functions at the new places not compared", "acon_core/surgery/replace.py", "    if _agree(plan, before, seen):", "    if True:", "torch", REPLACE_TORCH),
    Mutant("surgery: the first call is rewritten", "acon_core/surgery/rewrite.py", "call = calls[edit.call]", "call = calls[0]", "torch", REPLACE_TORCH),
    Mutant("surgery: all arguments of a function go to its module", "acon_core/surgery/rewrite.py", "(call.args or named or method)[:1], []", "call.args, call.keywords", "torch", REPLACE_TORCH),
    Mutant("surgery: stacked layers are all the first", "backends/acon_jax/stacked.py", "itemgetter(index), state)", "itemgetter((0,) * len(index)), state)", "jax", STACKED),
    Mutant("surgery: stacked layers start with the same random values", "acon_core/surgery/plan.py", "part, beta, seed + 15485863 * at)", "part, beta, seed)", "jax", STACKED),
    Mutant("jax: gradients of equal gates not summed over devices", "backends/acon_jax/gradient.py", "len(set(map(_mesh_axes, arrays))) == 1", "True", "jax", f"{JAX_KERNELS} -k devices"),
    Mutant("paddle: wrong hardswish gradient at 3", "backends/acon_paddle/pointwise.py", "(x >= 3).astype(x.dtype)", "(x > 3).astype(x.dtype)", "paddle", f"{EAGER} and (hardswish or repact_1)"),
    Mutant("paddle: wrong gradient of beta", "backends/acon_paddle/functional.py", "slope * (x * (slope * st))", "x * (slope * st)", "paddle", "tests/backends/test_paddle_functions.py -k to_static"),
    Mutant("paddle: the kernel reads tensors with gaps", PADDLE_KERNELS, "tensor if tensor.is_contiguous() else tensor.contiguous()", "tensor", "paddle", "tests/backends/test_paddle_kernels.py -k transposed"),
    Mutant("paddle: the kernel reads another device", PADDLE_KERNELS, "value.is_dense() and value.place.is_cpu_place()", "value.is_dense()", "paddle", "tests/backends/test_paddle_kernels.py -k elsewhere"),
    Mutant("paddle: the kernel reads gates of any dtype", PADDLE_KERNELS, "any(given != needed and not", "any(False and not", "paddle", "tests/backends/test_paddle_kernels.py -k not_serve"),
    Mutant("paddle: arguments that paddle.grad takes or leaves together", "backends/acon_paddle/gradient.py", "(tensors, value, gradients, needed), list(compress(tensors, needed)))", "(tensors, value, gradients, needed), *compress(tensors, needed))", "paddle", PADDLE_GRADIENTS),
    Mutant("megengine: fake quantisation of no weight", "backends/acon_megengine/quantization.py", "y = convolved(self, inp, weight)", "y = convolved(self, inp, self.weight)", "megengine", "tests/backends/test_megengine_quantization.py"),
    Mutant("megengine: layers that quantize_qat does not know", "backends/acon_megengine/build.py", "quantization.register()", "", "megengine", "tests/backends/test_megengine_quantization.py"),
    Mutant("jax: a bias of another rank", JAX, "y = x @ kernel\n    return y if bias is None else y + beside(bias, y)", "y = x @ kernel\n    return y if bias is None else y + bias", "jax", "tests/backends/test_jax_transformations.py -k ranks"),
    Mutant("jax: compiled functions in pickles", JAX, '| {"_function": None}', "", "jax", "tests/backends/test_jax_transformations.py -k pickle"),
    Mutant("jax: the smooth maximum of what varies over a mesh", "backends/acon_jax/functional.py", "_smooth(*varying_alike(scalar, *values))", "_smooth(scalar, *values)", "jax", "tests/backends/test_transformations.py -k shard_map"),
    Mutant("jax: two merges of a sharded array at once", "backends/acon_jax/tokens.py", "tiles.reshape(n, down * window, across, window, c).reshape(n,", "tiles.reshape(n,", "jax", "tests/backends/test_jax_transformations.py -k meshes"),
    Mutant("paddle: a group without parameters", "backends/acon_paddle/backend.py", '(model, weight_decay) if group["params"]]', "(model, weight_decay)]", "paddle", PADDLE_GRADIENTS),
    Mutant("paddle: second derivatives of the kernel", "backends/acon_paddle/gradient.py", "if not paddle.is_grad_enabled():", "if True:", "paddle", "tests/backends/test_paddle_kernels.py -k second"),
    Mutant("megengine: wrong hardswish gradient at -3", "backends/acon_megengine/pointwise.py", "low * (high * inside + (1.0 - high))", "high * inside + (1.0 - high)", "megengine", f"{EAGER} and hardswish"),
    Mutant("megengine: maximum gives a tie to one argument", MGE_FUNCTIONAL, "(1.0 + F.sign(a - b)) * 0.5", "F.maximum(F.sign(a - b), 0.0)", "megengine", f"{MGE_KERNEL_TESTS} -k kinks"),
    Mutant("torch: momentum and 1 - momentum swapped", "backends/acon_torch/build.py", "momentum=1 - node.decay", "momentum=node.decay", "torch", f"{EAGER} and norm"),
    Mutant("jax: biased running variance", JAX, "var * (count / max(count - 1, 1))", "var", "jax", f"{EAGER} and norm"),
    Mutant("jax: flatten in H, W, C order", JAX, "jnp.moveaxis(x, -1, 1).reshape(x.shape[0]", "x.reshape(x.shape[0]", "jax", f"{EAGER} and flatten"),
    Mutant("paddle: biased running variance", PADDLE, "variance * (count / (count - 1))", "variance", "paddle", f"{EAGER} and norm"),
    Mutant("megengine: one value per channel accepted", MGE, "raise OneValuePerChannelError", "OneValuePerChannelError", "megengine", f"{EAGER} and one_value"),
    Mutant("megengine: wrong gradient of beta", MGE_FUNCTIONAL, "slope * (x * (slope * st))", "x * (slope * st)", "megengine", f"{MGE_KERNEL_TESTS} -k kinks"),
    Mutant("megengine: the kernel does not wait for its arguments", MGE_KERNELS, "    core2.full_sync()\n", "", "megengine", "tests/backends/test_megengine_memory.py -k many_calls"),
    Mutant("megengine: second derivatives of the kernel", MGE_KERNELS, "sum(map(len, Grad.stack)) > 1", "len(Grad.stack) < 0", "megengine", f"{MGE_KERNEL_TESTS} -k second"),
    Mutant("megengine: the kernel writes what may be dropped", MGE_KERNELS, 'get_option("enable_drop")', "False", "megengine", "tests/backends/test_megengine_memory.py -k dropped"),
    Mutant("megengine: the kernel reads another device", MGE_KERNELS, "each.device != device", "False", "megengine", f"{MGE_KERNEL_TESTS} -k not_serve"),
    Mutant("recipe: no momentum", "acon_core/reference/training.py", "recipe.momentum * velocity[path]", "velocity[path]", "core", "tests/conformance/test_curves.py"),
    Mutant("reference: sign of the window mask", "acon_core/reference/tokens.py", "bias = bias + np.tile", "bias = bias - np.tile", "core", "tests/conformance/test_runner.py tests/networks/test_repact_values.py"),
    Mutant("features: single stage not a tuple", "acon_core/networks/network.py", "single_output=False)", "single_output=True)", "torch", "tests/backends/test_features.py"),
    Mutant("torch: window index off by one", "backends/acon_torch/tokens.py", "torch.arange(1, count + 1", "torch.arange(0, count", "torch", f"{EAGER} and windows"),
    Mutant("kernels: memory order ignored", KERNELS, "axes.sort(key=lambda axis: -strides[axis])", "axes.sort()", "core", "tests/test_kernels.py"),
    Mutant("kernels: arrays with gaps accepted", KERNELS, "if strides[axis] != expected:", "if strides[axis] < 0:", "core", "tests/test_kernels.py"),
    Mutant("kernels: sizes with other gates merged", KERNELS, "runs[-1][0] == covering", "runs[-1][1] > 1", "core", "tests/test_kernels.py"),
    Mutant("kernels: a gate per sample taken as one value", KERNELS, "frozenset([0] * batch +", "frozenset([0] * 0 +", "core", "tests/test_kernels.py"),
    Mutant("torch: kernels under a transform", TORCH_KERNELS_FILE, "_thread_keys() not in _NO_MODE or ", "", "torch", f"{TORCH_KERNELS} worked_on"),
    Mutant("torch: kernels on dual tensors", TORCH_KERNELS_FILE, "_current_level >= 0", "_current_level >= 9", "torch", f"{TORCH_KERNELS} worked_on"),
    Mutant("torch: kernels on negative views", TORCH_KERNELS_FILE, " or _keys(value) not in plain", "", "torch", f"{TORCH_KERNELS} worked_on"),
    Mutant("torch: kernels in a double backward", TORCH_KERNELS_FILE, "torch.is_grad_enabled() or not usable(g, x)", "not usable(g, x)", "torch", f"{TORCH_KERNELS} double"),
    Mutant("torch: kernels round gates", TORCH_KERNELS_FILE, "(() if wide else {torch.float64})", "()", "torch", f"{TORCH_KERNELS} other_dtypes"),
    Mutant("torch: memory order ignored", TORCH_KERNELS_FILE, "value if value.stride() == call.strides else", "value if True else", "torch", f"{TORCH_KERNELS} right"),
    Mutant("torch: statistics of another batch norm mixed up", TORCH_MODULES, "self.running_var.copy_(var)", "self.running_var.copy_(mean)", "torch", "tests/backends/test_torch_dtypes.py -k is_that_of_pytorch"),
    Mutant("torch: update_bn counts one batch", TORCH_MODULES, "1.0 / float(self.num_batches_tracked)", "1.0", "torch", "tests/backends/test_torch_dtypes.py -k is_that_of_pytorch"),
    Mutant("jax: an empty batch moves the statistics", JAX, " or x.size == 0", "", "jax", "tests/backends/test_dtypes.py -k empty"),
    Mutant("doctor: gradients are not judged", "acon_core/surgery/doctor.py", "if made is None:", "if made is None and False:", "torch", "tests/backends/test_torch_doctor.py"),
    Mutant("doctor: evaluation in place of training", "backends/acon_torch/surgery.py", "module.train(train)", "module.train(False)", "torch", "tests/backends/test_torch_doctor.py"),
    Mutant("jax: integers become floats", "backends/acon_jax/activations.py", "if not is_floating(x.dtype):", "if False:", "jax", "tests/backends/test_dtypes.py -k refuses"),
    Mutant("paddle: statistics of 16 bits", PADDLE, "mean = _mean(wide)", "mean = _mean(x).astype(wide.dtype)", "paddle", "tests/backends/test_dtypes.py -k 16_bit"),
    Mutant("torch: x and g swapped in compiled code", TORCH_KERNELS_FILE, "x, gates, g, list(needed)", "g, gates, x, list(needed)", "torch", f"{TORCH_KERNELS} compiled_code"),
]  # fmt: skip


def survives(mutant: Mutant, python: str) -> bool:
    """Return whether the tests pass on a copy of the project with the breakage."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".nox", ".*_cache", "demo_output", "__pycache__"))
        target = copy / mutant.file
        text = target.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(
                f"mutants: {mutant.what}: {mutant.file} has {mutant.old!r} {text.count(mutant.old)} times, not once"
            )
        target.write_text(text.replace(mutant.old, mutant.new))
        path, _, expression = mutant.tests.partition(" -k ")
        command = [python, "-m", "pytest", "-x", "-q", *path.split(), "-p", "no:cacheprovider"]
        command += ["--backend", "numpy" if mutant.backend == "core" else mutant.backend]
        command += ["-k", expression] if expression else []
        environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'backends'}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"mutants: {mutant.what}: pytest could not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run `mutants.py BACKEND=PYTHON ... [WORD ...]`; return 1 if a mutant survives.

    It runs every mutant whose environment is given. With words, it runs only those with one of the
    words in the description.
    """
    pythons = {"core": sys.executable, **dict(argument.split("=", 1) for argument in arguments if "=" in argument)}
    words = [argument for argument in arguments if "=" not in argument] or [""]
    table, alive = Table("breakage", "environment", "result"), 0
    for mutant in (mutant for mutant in MUTANTS if any(word in mutant.what for word in words)):
        if mutant.backend not in pythons:
            table.add_row(mutant.what, mutant.backend, "[yellow]not run: no such environment given[/]")
            continue
        survived = survives(mutant, pythons[mutant.backend])
        alive += survived
        table.add_row(mutant.what, mutant.backend, "[red]survived[/]" if survived else "[green]caught[/]")
        print(f"{mutant.what}: {'SURVIVED' if survived else 'caught'}", flush=True)
    Console().print(table)
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
