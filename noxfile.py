"""Every task of the project, for people and CI alike. `python -m nox -l` lists them."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "tests"]
# Otherwise nox skips a session whose Python is not installed, and exits with 0.
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
DATA = ROOT / "conformance_data"
CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"
# PyTorch has wheels for every supported Python; the other frameworks run on one of these.
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = {"torch": "3.11", "jax": "3.11", "paddle": "3.11", "megengine": "3.10"}
# The supported Python versions whose interpreter is installed.
INTERPRETERS = [version for version in (f"3.{minor}" for minor in range(10, 15)) if shutil.which(f"python{version}")]
TEST_TOOLS = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "mpmath>=1.3",
    "jsonschema>=4.20",
    "safetensors>=0.4",
    "zlib-ng>=1.1",
    "hatchling>=1.26",
    "tensorstore>=0.1.78",
]
# Per framework: tools that read its exports and files, and Orbax, whose folders we read.
OWN_TOOLS = {
    "torch": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.22"],
    "jax": ["flatbuffers>=25", "orbax-checkpoint>=0.11"],
}
# Two processes of one thread each: most time goes into compilers, which use one thread.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Most of the time of JAX's tests is XLA compiling small programs that run once. Fewer optimizations
# and no fusion emitters halve it. The session `conformance` checks what users run to the same
# bounds. At optimization level 0, sums are not split and lose digits.
XLA = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
# Otherwise PyTorch tries its C++ compiler on every vector extension, in every process.
ENVIRONMENT = {"jax": {"XLA_FLAGS": XLA}, "torch": {"TORCHINDUCTOR_VEC_ISA_OK": "1"}}
PYTEST = ["pytest", "-n", "2", "--dist", "worksteal"]


def kernel_wheels(session: nox.Session) -> list[str]:
    """Return the wheel of kernels/, built once per state of its sources; none without a compiler.

    Without it, the tests and commands run on the operations of the frameworks.
    """
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        session.warn("no C++ compiler was found: acon-kernels is not built, and the formulas run instead of it")
        return []
    sources = sorted(path for path in (ROOT / "kernels").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    state = hashlib.sha256(b"".join(str(path.relative_to(ROOT)).encode() + path.read_bytes() for path in sources))
    folder = ROOT / ".nox" / "kernels" / state.hexdigest()[:16]
    if not any(folder.glob("*.whl")):
        building = folder.with_name(f"{folder.name}.building")
        session.run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(building), "./kernels", external=True)
        building.replace(folder)  # a build that was broken off leaves no folder of this name
    return [str(path) for path in folder.glob("*.whl")]


def install(session: nox.Session, backend: str, *tools: str, kernels: bool = False) -> None:
    """Install the project with one backend's extra, in the versions of constraints.txt.

    `kernels` says whether the kernel library is installed too.
    """
    extra = "" if backend == "core" else f"[{backend}]"
    session.install("-c", "constraints.txt", "-e", f".{extra}", *tools)
    for built in kernel_wheels(session) if kernels else []:
        session.install("--no-deps", "--force-reinstall", built)  # pip keeps an older build of the same version


@nox.session
@nox.parametrize(
    ("python", "backend"),
    [("3.11", "core"), ("3.10", "core"), *((python, backend) for backend, python in PYTHON.items())],
)
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests, in one environment per backend; `core` has NumPy and no framework.

    The kernel library is installed, but for the core on Python 3.10.
    """
    kernels = (session.python, backend) != ("3.10", "core")
    install(session, backend, *TEST_TOOLS, *OWN_TOOLS.get(backend, []), kernels=kernels)
    if backend == "core":
        chosen = ["tests", "--ignore", "tests/backends", "--ignore", "tests/gpu", "--backend", "numpy"]
        if session.python == "3.10":
            session.install("numpy==1.26.4")  # the other NumPy that the core supports, without the slow tests
            chosen += ["-m", "not slow"]
        else:
            session.run("acon", "conformance", "golden", "compare")
        session.run(*PYTEST, *chosen, *session.posargs, env=THREADS)
    else:
        env = THREADS | ENVIRONMENT.get(backend, {})
        session.run(*PYTEST, "tests/backends", "tests/checkpoint/codecs", "--backend", backend, *session.posargs, env=env)


wheels: list[str] = []


@nox.session(python=INTERPRETERS)
def wheel(session: nox.Session) -> None:
    """Run quick tests against the installed wheel, in each installed Python from 3.10 to 3.14."""
    session.install("-c", "constraints.txt", *TEST_TOOLS)
    folder = Path(session.create_tmp())
    if not wheels:  # built once, by the first interpreter
        session.run("python", "-m", "hatchling", "build", "--clean", "--target", "wheel", "--directory", str(folder))
        wheels.extend(str(path) for path in folder.glob("*.whl"))
    session.install("-c", "constraints.txt", *wheels)
    session.install("--no-deps", "--force-reinstall", *wheels)  # pip keeps an older build of the same version
    # Outside the checkout, because Python imports from the current folder first.
    session.chdir(folder)
    session.run("python", "-c", "import acon_core; assert 'site-packages' in acon_core.__file__, acon_core.__file__")
    chosen = [str(ROOT / "tests" / name) for name in ("spec", "reference", "conformance", "surgery", "checkpoint/codecs")]
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--backend", "numpy", "-m", "not slow"]
    session.run(*PYTEST, *config, *chosen, *session.posargs, env=THREADS)


@nox.session(python="3.11")
def quick(session: nox.Session) -> None:
    """Run the fast core tests, for use during development."""
    install(session, "core", *TEST_TOOLS, kernels=True)
    left_out = ("tests/backends", "tests/gpu", "tests/checkpoint/codecs")
    chosen = ["tests", *(f"--ignore={folder}" for folder in left_out), "--backend", "numpy"]
    session.run(*PYTEST, *chosen, "-m", "not slow", "-x", *session.posargs, env=THREADS)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Check style and types."""
    install(session, "core", "ruff>=0.14", "mypy>=1.18", "pyright[nodejs]>=1.1.390", "types-jsonschema")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    # Check the public packages as a user's type checker sees them: tests/typing and the docs'
    # snippets.
    session.run("python", "tools/snippets.py", "tests/typing/snippets")
    session.run("mypy", "--config-file", "tests/typing/mypy.ini")
    session.run("pyright", "--project", "tests/typing")


@nox.session(python="3.11")
def stubs(session: nox.Session) -> None:
    """Write the stubs of the public packages from the spec and acon_core/frontend."""
    install(session, "core")
    session.run("python", "tools/stubs.py", *session.posargs)


def environment(session: nox.Session, backend: str) -> str:
    """Return the Python of a backend's environment; create it if it is missing."""
    folder = ROOT / ".nox" / f"run-{backend}"
    python = folder / "bin" / "python"
    if not python.exists():
        # This Python by its path: its environment need not have a `python3.x` that can be found.
        running = backend == "torch" or PYTHON[backend] == RUNNING
        session.run(sys.executable if running else f"python{PYTHON[backend]}", "-m", "venv", str(folder), external=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        session.run(*pip, "-c", "constraints.txt", "-e", f".[{backend}]", external=True)
        for built in kernel_wheels(session):
            session.run(*pip, "--no-deps", built, external=True)
    return str(python)


@nox.session
def demo(session: nox.Session) -> None:
    """Convert the published checkpoint to every format, and run it in NumPy and in frameworks.

    `-- torch jax` chooses the frameworks; the default is torch.
    """
    asked = session.posargs or ["torch"]
    for backend in asked:
        if backend not in PYTHON:
            session.error(f"demo: {backend!r} is not a backend; expected some of {', '.join(PYTHON)}")
    install(session, "core")
    out = ROOT / "demo_output"
    out.mkdir(exist_ok=True)
    suffix = {"torch": ".pth", "megengine": ".pkl", "paddle": ".pdparams", "jax": ".msgpack", "safetensors": ".safetensors"}
    source = CHECKPOINT
    for format, ending in suffix.items():
        target = out / f"{format}{ending}"
        session.run("acon", "convert", str(source), str(target), "--to", format)
        source = target  # each hop reads what the last one wrote
    runs = [("numpy", "python", out / "safetensors.safetensors")]
    runs += [(backend, environment(session, backend), out / f"{backend}{suffix[backend]}") for backend in asked]
    pairs = []
    for backend, python, file in runs:
        logits = out / f"logits_{backend}.npz"
        arguments = [str(file), "--input", str(DATA / "photos_bgr_224.npz"), "--output", str(logits), "--backend", backend]
        session.run(python, "-m", "acon_core.cli", "run", *arguments, external=True)
        pairs.append(f"{backend}={logits}")
    session.run("python", "tools/demo_agreement.py", str(DATA / "shufflenetv2_acon_0.5x.out.npz"), *pairs)


@nox.session(python="3.11")
def conformance(session: nox.Session) -> None:
    """Print the conformance reports of all backends, or of those named, as tables.

    Eager and compiled; as a terminal table and as the README's Markdown.
    """
    install(session, "core")
    out = ROOT / "demo_output"
    out.mkdir(exist_ok=True)
    session.run("acon", "conformance", "--backend", "numpy", "--report", str(out / "numpy.json"))
    reports = [str(out / "numpy.json")]
    for backend in session.posargs or PYTHON:
        for mode in ([], ["--compiled"]):
            report = str(out / f"{backend}{'-compiled' if mode else ''}.json")
            python = environment(session, backend)
            arguments = ["--backend", backend, "--report", report, *mode]
            session.run(
                python, "-m", "acon_core.cli", "conformance", *arguments, external=True, env=THREADS, success_codes=[0, 1]
            )
            reports.append(report)
    session.run("acon", "report", *reports, success_codes=[0, 1])
    session.run("acon", "report", "--markdown", *reports)


@nox.session(python="3.11")
def figures(session: nox.Session) -> None:
    """Print the tables of docs/figures.md: errors of the functions, and PyTorch's memory."""
    install(session, "core")
    out = ROOT / "demo_output"
    out.mkdir(exist_ok=True)
    for tool in ("activation_accuracy", "gated_accuracy"):
        measured = []
        for backend in session.posargs or PYTHON:
            measured.append(str(out / f"{tool}-{backend}.json"))
            session.run(environment(session, backend), f"tools/{tool}.py", "measure", backend, measured[-1], external=True)
        session.run("python", f"tools/{tool}.py", "table", *measured)
    for script in ("tools/published_formula.py", "benchmarks/memory.py", "benchmarks/peak_memory.py"):
        session.run(environment(session, "torch"), script, external=True)


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Write docs/speed.md: times beside the framework's SiLU, on one core and on two.

    It takes 20 minutes, and needs a machine that does nothing else.
    """
    install(session, "core")
    out = ROOT / "demo_output"
    out.mkdir(exist_ok=True)
    measured = []
    for backend in session.posargs or PYTHON:
        for threads in (1, 2):
            measured.append(str(out / f"speed-{backend}-{threads}.json"))
            command = ["benchmarks/speed.py", "measure", backend, str(threads), measured[-1]]
            # Set before the interpreter starts, for libraries that read it when they load.
            env = {"OMP_NUM_THREADS": str(threads)}
            session.run(environment(session, backend), *command, external=True, env=env)
    session.run("python", "benchmarks/speed.py", "page", *measured, "--into", "docs/speed.md")


@nox.session(python="3.11")
def curves(session: nox.Session) -> None:
    """Make the table and picture of docs/training.md: 30 training steps against float64."""
    session.install("-c", "constraints.txt", "-e", ".[plot]")
    out = ROOT / "demo_output"
    out.mkdir(exist_ok=True)
    measured = []
    for backend in session.posargs or PYTHON:
        measured.append(str(out / f"curves-{backend}.json"))
        command = ["tools/training_curves.py", "train", backend, measured[-1]]
        session.run(environment(session, backend), *command, external=True, env=THREADS)
    session.run("python", "tools/training_curves.py", "table", *measured, "--plot", str(ROOT / "docs" / "training.png"))


@nox.session(python="3.11")
def transformations(session: nox.Session) -> None:
    """Run every cell of docs/transformations.md, and write its tables."""
    for backend in session.posargs or PYTHON:
        command = ["tools/transformations.py", backend, "docs/transformations.md"]
        session.run(environment(session, backend), *command, external=True, env=THREADS)


@nox.session(python="3.11")
def networks(session: nox.Session) -> None:
    """Print the table of exact counts of docs/networks.md."""
    install(session, "core")
    session.run("python", "tools/network_counts.py")


@nox.session
def picture(session: nox.Session) -> None:
    """Draw docs/acon.png: ACON-C and its derivative."""
    session.install("-c", "constraints.txt", "-e", ".[plot]")
    session.run("python", "tools/plot_acon.py", "docs/acon.png")


@nox.session(python="3.11")
def schemas(session: nox.Session) -> None:
    """Write the pinned schemas again, after an intended change of names or shapes."""
    install(session, "core")
    session.run("python", "tests/helpers/pinned_schemas.py")


@nox.session(python="3.11")
def golden(session: nox.Session) -> None:
    """Compute the golden numbers and compare them with the stored ones.

    `-- regenerate` writes them.
    """
    install(session, "core", *TEST_TOOLS)
    session.run("acon", "conformance", "golden", *(session.posargs or ["compare"]))


@nox.session(python="3.11")
def fuzz(session: nox.Session) -> None:
    """Read 50,000 mutated checkpoint files, and convert 2,000 random networks to every format.

    `-- --seed 7` changes the files.
    """
    install(session, "core", *TEST_TOOLS)
    session.run("python", "tests/helpers/fuzz.py", "--count", "50000", *session.posargs, env=THREADS)
    networks = THREADS | {"ACON_RANDOM_NETWORKS": "2000"}
    session.run("pytest", "-q", "tests/checkpoint/codecs/test_random_networks.py", "--backend", "numpy", env=networks)


@nox.session(python="3.11")
def mutants(session: nox.Session) -> None:
    """Break the code on purpose, one breakage at a time; the tests must fail each time."""
    install(session, "core", *TEST_TOOLS, kernels=True)
    pythons = [f"{backend}={environment(session, backend)}" for backend in PYTHON]
    session.run("python", "tests/mutants.py", *pythons, *session.posargs)


# Those of kernels/CMakeLists.txt, which builds shared libraries for this machine alone.
KERNEL_FLAGS = ["-std=c++17", "-fno-tree-vectorize", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-Ikernels/src"]


@nox.session(python="3.11")
def kernels_sanitizers(session: nox.Session) -> None:
    """Run the kernel library's tests under the address and undefined-behavior sanitizers."""
    if not shutil.which("g++"):
        session.error("kernels_sanitizers: needs g++")
    install(session, "core", *TEST_TOOLS)
    package = Path(session.create_tmp()) / "acon_kernels"
    shutil.copytree(ROOT / "kernels" / "src" / "acon_kernels", package, dirs_exist_ok=True)
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DACON_KERNELS_ONE_WIDTH"]
    built = ["-fPIC", "-shared", "-fvisibility=hidden", "kernels/src/kernels.cpp", "-o", str(package / "libacon_kernels.so")]
    session.run("g++", *KERNEL_FLAGS, *sanitize, *built, external=True)
    paths = [
        session.run("g++", f"-print-file-name={name}", silent=True, external=True) for name in ("libasan.so", "libubsan.so")
    ]
    # Python is not built for the sanitizers: they are loaded before it, and its leaks ignored.
    env = {"LD_PRELOAD": " ".join(str(path).strip() for path in paths), "ASAN_OPTIONS": "detect_leaks=0"}
    chosen = ["-n", "0", "tests/kernels", "--backend", "numpy", "-k", "not width and not speed and not exported"]
    env |= THREADS | {"PYTHONPATH": str(package.parent)}
    session.run("python", "-m", "pytest", "-q", *chosen, *session.posargs, env=env)


@nox.session
def kernels_aarch64(session: nox.Session) -> None:
    """Compile the kernel library for 64-bit ARM; compare it with exact values in an emulator."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not (compiler and emulator):
        session.error("kernels_aarch64: needs the packages g++-aarch64-linux-gnu and qemu-user")
    program = str(Path(session.create_tmp()) / "check")
    sources = ["kernels/src/kernels.cpp", "tests/kernels/check.cpp"]
    session.run(compiler, *KERNEL_FLAGS, "-O3", "-static", *sources, "-o", program, external=True)
    session.run(emulator, program, external=True)


@nox.session(python="3.11")
def gpu_interpreters(session: nox.Session) -> None:
    """Run the tests of the GPU kernels in the interpreters of Triton and Pallas, on the CPU.

    Triton takes a gigabyte of disk. With a GPU, `pytest tests/gpu` runs the same tests on it.
    """
    session.install("-c", "constraints.txt", "-e", ".[torch,jax]", "triton>=3.6", *TEST_TOOLS)
    with_torch = ["tests/gpu/test_triton.py", "tests/gpu/test_torch_on_a_gpu.py"]
    session.run(*PYTEST, *with_torch, "--backend", "torch", *session.posargs, env=THREADS)
    session.run(*PYTEST, "tests/gpu/test_pallas.py", "--backend", "jax", *session.posargs, env=THREADS | ENVIRONMENT["jax"])
