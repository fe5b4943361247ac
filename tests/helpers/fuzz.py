"""Read valid files with random changes: each must be read or refused, and nothing else may happen.

`python tests/helpers/fuzz.py --count 50000 --seed 0`. The same seed gives the same files. Files
that cause anything else are kept in `--keep`, and make the exit status 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import random
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from audit import HANG, READ_ONLY, Watch, forget_peak, limit_memory, peak, warm
from hostile_pickles import PADDLE, PROGRAMS, array, dense, named, state

from acon_core.checkpoint.formats import Format, formats
from acon_core.errors import CheckpointError

LARGEST = 1 << 26  # bytes that the tensors of a small file may come to: limits.LIMITS.expansion_floor
GROWTH = 64  # MB that the process may come to hold
EXTREMES = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
LAYOUTS = ("<B", "<H", "<I", "<Q", ">H", ">I", ">Q")
WORDS = (b"-1", b"0", b"1e3", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 40, b'"../x"', b"1.0", b"\\ud800", b"\xff")
FRAGMENTS = [content[2:-1] for content in (*named(PROGRAMS).values(), *named(PADDLE).values()) if len(content) < 500]


@dataclass(frozen=True)
class Sample:
    """The files of a checkpoint by their paths; `entry` is the path that is given to the reader."""

    format: str
    entry: str
    files: dict[str, bytes]


def samples(known: dict[str, Format]) -> list[Sample]:
    """Write valid files of every format."""
    tensors = {
        "conv.0.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1),
        "conv.0.bias": np.arange(4, dtype=np.float16),
        "n": np.array(7, np.int32),
        "mask": np.array([True, False, True]),
        "none": np.zeros((0, 3), np.uint8),
    }
    wide = {"w": np.arange(6, dtype=np.float64).reshape(2, 3), "b": np.ones(5, ml_dtypes.bfloat16), "c": np.ones(2, np.int64)}
    found = [Sample("paddle", "a", {"a": dense("data", "data")}), Sample("megengine", "a", {"a": state(array())})]
    for name, format in known.items():
        writes = [
            partial(format.codec.write, tensors=each, metadata={"network": "x", "input": "{}"}) for each in (tensors, wide)
        ]
        for write in READ_ONLY.get(name, writes):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "a"
                if format.codec.IS_DIRECTORY:
                    path.mkdir()
                try:
                    write(path)
                except CheckpointError:  # a dtype that the format does not have
                    continue
                files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
            found.append(Sample(name, "a", files))
    return found


# Changes of bytes.


def flip(data: bytearray, random: random.Random) -> None:
    """Change single bits."""
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def number(data: bytearray, random: random.Random) -> None:
    """Write a number that is extreme as a length, size or count."""
    layout = random.choice(LAYOUTS)
    size = struct.calcsize(layout)
    at = random.randrange(max(len(data) - size, 1))
    data[at : at + size] = struct.pack(layout, random.choice(EXTREMES) & ((1 << 8 * size) - 1))


def nudge(data: bytearray, random: random.Random) -> None:
    """Change a byte by one or two, for lengths that are off by one."""
    at = random.randrange(len(data))
    data[at] = (data[at] + random.choice((-2, -1, 1, 2))) % 256


def splice(data: bytearray, random: random.Random) -> None:
    """Copy a part elsewhere; overwrite or insert."""
    begin = random.randrange(len(data))
    part = data[begin : begin + random.randint(1, 64)]
    at = random.randrange(len(data))
    data[at : at + random.choice((0, len(part)))] = part


def drop(data: bytearray, random: random.Random) -> None:
    """Delete a part."""
    at = random.randrange(len(data))
    del data[at : at + random.randint(1, 32)]


def cut(data: bytearray, random: random.Random) -> None:
    """Truncate the file."""
    del data[random.randrange(len(data)) :]


def word(data: bytearray, random: random.Random) -> None:
    """Replace digits, or any bytes, by a word of JSON."""
    digits = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    at = random.choice(digits) if digits else random.randrange(len(data))
    data[at : at + random.randint(0, 2)] = random.choice(WORDS)


def opcodes(data: bytearray, random: random.Random) -> None:
    """Insert a fragment of a hostile pickle, or an opcode."""
    at = random.randrange(len(data))
    piece = (
        random.choice(FRAGMENTS)
        if random.random() < 0.5
        else bytes([random.choice(b"(.0123NIJKMXCBTUSVFGLpqrgjht)]lae}dsucRbPQ")])
    )
    data[at : at + random.choice((0, 1, len(piece)))] = piece


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, number, nudge, splice, drop, cut, word, opcodes)


def changed(content: bytes, random: random.Random) -> bytes:
    """Make one to three changes; in half of the cases, keep the enclosing container valid."""
    if random.random() < 0.5:
        if content[:4] == b"PK\3\4":
            return _in_zip(content, random)
        if content[8:9] == b"{" and content[0] and not content[7]:
            return _in_header(content, random)
    data = bytearray(content)
    for _ in range(random.randint(1, 3)):
        if data:
            random.choice(CHANGES)(data, random)
    return bytes(data)


def _in_zip(content: bytes, random: random.Random) -> bytes:
    """Change one member and write the zip anew, so that the checksums match."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as opened:
        names = source.namelist()
        chosen = names[0] if random.random() < 0.5 else random.choice(names)
        for name in names:
            data = source.read(name)
            opened.writestr(name, changed(data, random) if name == chosen else data)
    return target.getvalue()


def _in_header(content: bytes, random: random.Random) -> bytes:
    """Change the header of a safetensors file and update its length."""
    length = struct.unpack("<Q", content[:8])[0]
    header = changed(content[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutants(found: list[Sample], count: int, seed: int) -> Iterator[Sample]:
    """Yield samples with one file changed; in one of twenty, the file is random bytes."""
    chosen = random.Random(seed)
    for index in range(count):
        sample = found[index % len(found)]
        name = chosen.choice(sorted(sample.files))
        noise = chosen.randbytes(chosen.randint(1, 200)) if chosen.random() < 0.05 else changed(sample.files[name], chosen)
        yield replace(sample, files={**sample.files, name: noise})


def outcome(format: Format, path: Path, allowed: Path, watch: Watch) -> tuple[str, str]:
    """Read a file; return the outcome, and what is wrong with it, if anything."""
    watch.begin(allowed)
    try:
        format.codec.sniff(path)
        found = format.codec.read(path)
        size = sum(found.tensors[key].nbytes for key in found.tensors)
    except CheckpointError as error:
        events = watch.end()
        wrong = "" if str(allowed) in str(error) and str(error).isprintable() else f"message {error}"
        return error.kind, wrong or ", ".join(events)
    except BaseException as error:
        watch.end()
        if isinstance(error, KeyboardInterrupt):
            raise
        return "foreign", repr(error)[:300]
    events = watch.end()
    return "read", f"{size} bytes of tensors" if size > LARGEST else ", ".join(events)


def fuzz(count: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[str], float]:
    """Read `count` changed files; return outcomes by format, problems, and the most CPU seconds."""
    known = formats()
    found = samples(known)
    warm(known)
    watch = Watch()
    limit_memory()
    ends: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    slowest = base = 0.0
    with tempfile.TemporaryDirectory() as name:
        for index, mutant in enumerate(mutants(found, count, seed)):
            if index % 100 == 0:
                faulthandler.dump_traceback_later(HANG, exit=True)
            if index == min(1000, count // 2):
                forget_peak()
                base = peak()
            folder = Path(name) / str(index)
            for file, content in mutant.files.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(content)
            path = folder / mutant.entry
            began = time.process_time()
            allowed = path if set(mutant.files) == {mutant.entry} else folder
            end, problem = outcome(known[mutant.format], path, allowed, watch)
            slowest = max(slowest, time.process_time() - began)
            ends[mutant.format, end] += 1
            if problem:
                wrong.append(f"{mutant.format}, mutant {index} of seed {seed}: {problem}")
                shutil.copytree(folder, keep / f"{seed}-{index}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    faulthandler.cancel_dump_traceback_later()
    if peak() - base > GROWTH + LARGEST / (1 << 20):
        wrong.append(f"the process grew from {base:.0f} to {peak():.0f} MB")
    return ends, wrong, slowest


def main() -> None:
    """Print the outcomes as one line of JSON per format, and problems to stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("demo_output/fuzz"))
    chosen = parser.parse_args()
    ends, wrong, slowest = fuzz(chosen.count, chosen.seed, chosen.keep)
    for format in sorted({format for format, _ in ends}):
        print(json.dumps({"format": format, **{end: count for (each, end), count in sorted(ends.items()) if each == format}}))
    print(f"{chosen.count} files, none over {slowest:.2f} s of CPU", file=sys.stderr)
    for problem in wrong:
        print(problem, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
