"""Time the activations beside the framework's own: ratios in one run, on one thread and on all.

`python benchmarks/speed.py measure BACKEND THREADS RESULT.json` times the groups of
`benchmarks/speed_BACKEND.py` on that many cores. `python benchmarks/speed.py page RESULT.json ...
--into docs/speed.md` writes the tables between the marks of the page. `nox -s bench` does both for
all backends.

The subjects of a group are timed in turn, in rounds. A figure is the median of the ratios to the
baseline in the same round. Wall time is that of the call; CPU time that of all threads of the
process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROUNDS = 21
LEAST_SECONDS = 0.005
SHAPES = {"[32,128,28,28]": (32, 128, 28, 28), "[8,64,112,112]": (8, 64, 112, 112), "tokens [64,197,768]": (64, 197, 768)}
"""The inputs of the comparison with SiLU: (N, C, H, W), and tokens (N, L, C)."""

Subject = Callable[[], Any]


@dataclass
class Group:
    """Subjects that are timed in turn; `subjects` makes them.

    `baseline` names the subject that the others are divided by. `units` divides the times of a
    subject, such as a number of elements.
    """

    name: str
    baseline: str
    subjects: Callable[[], dict[str, Subject]]
    units: dict[str, int] = field(default_factory=dict)


def sample(subject: Subject, repeats: int) -> tuple[float, float]:
    """Return the wall time and the CPU time of one call, averaged over `repeats`."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        subject()
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def measure(group: Group, count: int) -> dict[str, dict[str, float]]:
    """Time a group: by subject, the ratios to the baseline and the milliseconds of a call."""
    subjects, repeats = group.subjects(), {}
    for name, subject in subjects.items():
        subject()
        seconds = min(sample(subject, 1)[0] for _ in range(3))
        repeats[name] = max(1, round(LEAST_SECONDS / max(seconds, 1e-7)))
    names = list(subjects)
    rounds: list[dict[str, tuple[float, float]]] = []
    gc.collect()
    gc.disable()
    for number in range(count):
        turn = number % len(names)
        rounds.append({name: sample(subjects[name], repeats[name]) for name in names[turn:] + names[:turn]})
    gc.enable()
    table = {}
    for name in names:
        unit = group.units.get(name, 1) / group.units.get(group.baseline, 1)
        wall, cpu = (
            statistics.median(each[name][kind] / each[group.baseline][kind] for each in rounds) / unit for kind in (0, 1)
        )
        milliseconds = statistics.median(each[name][0] for each in rounds) * 1e3
        table[name] = {"wall": wall, "cpu": cpu, "ms": milliseconds}
    return table


def processor() -> str:
    """Return the name of the processor and its vector extensions."""
    if not Path("/proc/cpuinfo").exists():
        return platform.processor() or platform.machine()
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    extensions = [name for name in ("avx2", "avx512f") if f" {name} " in text]
    return f"{model or platform.machine()}, {' '.join(extensions) or 'no AVX'}"


def run(backend: str, threads: int, target: Path, chosen: str, rounds: int) -> None:
    """Time the groups of a backend whose name contains `chosen`, on `threads` cores."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    module = import_module(f"speed_{backend}")
    kernels = import_module("acon_core.kernels")
    before, results = os.getloadavg()[0], {}
    groups: Iterator[Group] = module.groups(threads)
    for group in groups:
        if chosen in group.name:
            results[group.name] = measure(group, rounds)
            for name, row in results[group.name].items():
                print(
                    f"{backend} {group.name}: {name} {row['wall']:.2f} wall, {row['cpu']:.2f} CPU, {row['ms']:.3f} ms",
                    flush=True,
                )
    facts = {
        "backend": backend, "threads": threads, "version": module.VERSION,
        "kernels": kernels.status(), "processor": processor(), "groups": results,
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
    }  # fmt: skip
    target.write_text(json.dumps(facts, indent=1))


def tables(results: list[dict[str, Any]]) -> str:
    """Return the Markdown of all results: one table per backend, one row per subject."""
    lines = []
    for backend in dict.fromkeys(each["backend"] for each in results):
        own = {each["threads"]: each for each in results if each["backend"] == backend}
        counts = sorted(own)
        some = own[counts[0]]
        loads = "; ".join(f"{count}: {own[count]['load'][0]} to {own[count]['load'][1]}" for count in counts)
        lines += [
            f"### {backend} {some['version']}", "",
            f"{some['kernels']}; {some['processor']}.", f"Load average by number of threads: {loads}.", "",
            "| group | subject | " + " | ".join(f"wall, {count} thr." for count in counts) + " | CPU, 1 thr. | ms, 1 thr. |",
            "|---|---|" + "--:|" * (len(counts) + 2),
        ]  # fmt: skip
        names = list(dict.fromkeys(name for count in counts for name in own[count]["groups"]))
        for name in names:
            rows = {count: own[count]["groups"].get(name, {}) for count in counts}
            for subject in dict.fromkeys(subject for count in counts for subject in rows[count]):
                cells = [f"{rows[count][subject]['wall']:.2f}" if subject in rows[count] else "" for count in counts]
                single = rows[counts[0]].get(subject)
                last = [f"{single['cpu']:.2f}", f"{single['ms']:.3g}"] if single else ["", ""]
                lines.append(f"| {name} | {subject} | " + " | ".join([*cells, *last]) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def scaling(results: list[dict[str, Any]]) -> str:
    """Return the Markdown of the time of one thread over that of all, by backend and shape."""
    lines = ["| one thread over two, wall | " + " | ".join(SHAPES) + " |", "|---|" + "--:|" * len(SHAPES)]
    by_key = {(each["backend"], each["threads"]): each["groups"] for each in results}
    for backend in dict.fromkeys(each["backend"] for each in results):
        one, two = by_key.get((backend, 1)), by_key.get((backend, 2))
        if not one or not two:
            continue
        for subject in ("SiLU", "AconC"):
            cells = []
            for shape in SHAPES:
                group = f"forward and backward, {shape}"
                found = one.get(group, {}).get(subject), two.get(group, {}).get(subject)
                cells.append(f"{found[0]['ms'] / found[1]['ms']:.2f}" if all(found) else "")
            lines.append(f"| {backend}, {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(files: list[Path], page: Path) -> None:
    """Write the tables between the marks of a page."""
    results = [json.loads(path.read_text()) for path in files]
    text = page.read_text()
    for mark, table in (("scaling", scaling(results)), ("speed", tables(results))):
        begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    page.write_text(text)


def main() -> None:
    """Run a command of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    measuring = commands.add_parser("measure", help="time one backend on some cores")
    measuring.add_argument("backend")
    measuring.add_argument("threads", type=int)
    measuring.add_argument("target", type=Path)
    measuring.add_argument("--only", default="", help="time only groups whose name contains this")
    measuring.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each subject is timed (default: {ROUNDS})")
    writing = commands.add_parser("page", help="write the tables of results into a page")
    writing.add_argument("files", type=Path, nargs="+")
    writing.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "measure":
        run(options.backend, options.threads, options.target, options.only, options.rounds)
    else:
        write_page(options.files, options.into)


if __name__ == "__main__":
    sys.exit(main())
