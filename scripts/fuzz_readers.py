"""Change sound files at random and read them: each must end in a result or in `InputError`, in bounded time and memory.

`python scripts/fuzz_readers.py --files 100000` goes through all kinds of files in turn. Bytes are flipped, cut out,
repeated and set to extreme numbers, checksums of PNG chunks are made right again in half of the cases, and the values
of YAML, JSON and checkpoints are replaced by others of all types; pickles and archives are made that ask for more than
they hold. Every file is made of a seed and its number, so that
`--only KIND --number N` makes it again. Printed are, by kind, how many were read, how many refused, and every file
that ended otherwise; such a one makes the exit code 1.
"""

import argparse
import copy
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_seeds import Seed, quiet, seeds

from fcnseg.errors import InputError

MEMORY, SECONDS, WAIT = 10**9, 10, 60
"""That a file may take, beyond what the process has before: bytes, seconds of a processor, and seconds in all, since
other programs may keep the processor."""

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 255, 256, 10**9, 10**30, 1e308, float("nan"), float("inf"), "", "x", "../../etc"),
    *("x" * 10_000, [], {}, [[]], [None], {"a": {}}, [1] * 10_000, ["a", "a"], [-1.5], {"name": 1}, "/dev/zero"),
)
"""Values that stand where others were."""


def changed(seed: Seed, random: np.random.Generator) -> bytes:
    """A seed's content, changed, or another file of its kind."""
    if seed.make is not None:
        return seed.make(random)
    if seed.write is not None and random.random() < 0.7:
        try:
            return seed.write(replaced(copy.deepcopy(seed.plain), random))
        except (ValueError, TypeError, OverflowError, RuntimeError):  # what its format cannot hold
            pass
    content = bytearray(seed.content)
    for _ in range(random.integers(1, 4)):
        mutate(content, random)
    return png_checksums(bytes(content)) if seed.kind.startswith("png") and random.random() < 0.5 else bytes(content)


def mutate(content: bytearray, random: np.random.Generator) -> None:
    """One change of bytes, in place."""
    place = int(random.integers(len(content) + 1))
    length = int(random.integers(1, 1 + min(64, max(1, len(content)))))
    way = int(random.integers(6))
    if way == 0:
        for _ in range(length % 8 + 1):
            if content:
                content[int(random.integers(len(content)))] = int(random.integers(256))
    elif way == 1:
        del content[place:]
    elif way == 2:
        del content[place : place + length]
    elif way == 3:
        content[place:place] = content[place : place + length]
    elif way == 4:
        content[place : place + length] = bytes([int(random.choice([0, 255]))]) * length
    else:
        size, order = int(random.choice([1, 2, 4])), str(random.choice(["big", "little"]))
        number = int(random.choice(NUMBERS)) % 256**size
        content[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def png_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them, as far as it consists of chunks."""
    made, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + length]
        made += content[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return bytes(made) + content[place:]


def replaced(value: Any, random: np.random.Generator) -> Any:
    """Plain values of which some are others, gone, or called otherwise."""
    for _ in range(random.integers(1, 3)):
        parents = [part for part in parts(value) if part]
        parent = parents[int(random.integers(len(parents)))]
        key = (
            list(parent)[int(random.integers(len(parent)))]
            if isinstance(parent, dict)
            else int(random.integers(len(parent)))
        )
        way = random.random()
        if way < 0.15:
            del parent[key]
        elif way < 0.25 and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        elif isinstance(parent[key], torch.Tensor) and way < 0.6:
            parent[key] = odd_tensor(parent[key], random)
        else:
            parent[key] = copy.deepcopy(ODD[int(random.integers(len(ODD)))])
        if not any(part for part in parts(value)):
            break
    return value


def parts(value: Any) -> list[Any]:
    """The value and everything within it that holds others."""
    if not isinstance(value, dict | list):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [value, *(part for each in inside for part in parts(each))]


def odd_tensor(tensor: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    ways = (
        lambda: tensor[..., :0], lambda: tensor.flatten(), lambda: tensor.double(), lambda: tensor.to(torch.int64),
        lambda: tensor * torch.nan, lambda: torch.zeros(1).expand(100_000, 100_000), lambda: tensor[None],
        lambda: tensor.to_sparse(),
    )  # fmt: skip
    return ways[int(random.integers(len(ways)))]()


def attempt(seed: Seed, folder: Path, number: int) -> str:
    """Read a changed file: "read", "refused", or what else became of it."""
    path = folder / seed.name
    path.write_bytes(changed(seed, np.random.default_rng([zlib.crc32(seed.kind.encode()), number])))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAIT)
    try:
        seed.read(path)
        return "read"
    except InputError as error:
        return (
            "refused"
            if "\n" not in str(error) and len(str(error)) < 2000
            else f"a message of {len(str(error))} letters"
        )
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno} ({str(error)[:80]})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        path.write_bytes(seed.content)


def child(seed: Seed, folder: Path, numbers: range, answers: int) -> None:
    """In a process of its own: tell of each file by a line."""
    quiet()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    with os.fdopen(answers, "w", buffering=1) as out:
        for number in numbers:
            out.write(json.dumps([number, attempt(seed, folder, number)]) + "\n")


def fuzz(seed: Seed, folder: Path, numbers: range) -> dict[int, str]:
    """What became of each file, also of those that ended the process."""
    found: dict[int, str] = {}
    while len(found) < len(numbers):
        left = range(numbers.start + len(found), numbers.stop)
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                os.close(read)
                child(seed, folder, left, write)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            found |= {number: outcome for number, outcome in map(json.loads, lines)}
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if len(found) < len(numbers):
            found[numbers.start + len(found)] = (
                f"took over {SECONDS} s"
                if code in (-signal.SIGALRM, -signal.SIGPROF)
                else f"ended the process ({code})"
            )
            (folder / seed.name).write_bytes(seed.content)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="of all kinds together (default: %(default)s)")
    parser.add_argument("--only", nargs="+", help="kinds of files, such as png checkpoint")
    parser.add_argument("--number", type=int, help="one file alone, by its number")
    parser.add_argument("--start", type=int, default=0, help="the first number")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    strange, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = [s for s in seeds(folder) if options.only is None or any(s.kind.startswith(k) for k in options.only)]
        if not chosen:
            parser.error(f"no such kind: {' '.join(options.only)}")
        each = max(1, options.files // len(chosen))
        for seed in chosen:
            (folder / seed.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / seed.name).write_bytes(seed.content)
            seed.read(folder / seed.name)  # sound
            first = options.start if options.number is None else options.number
            outcomes = fuzz(seed, folder, range(first, first + (each if options.number is None else 1)))
            counts = Counter(outcomes.values())
            strange += sum(count for outcome, count in counts.items() if outcome not in ("read", "refused"))
            print(f"{seed.kind:20} {counts.pop('read', 0):7} read {counts.pop('refused', 0):7} refused", flush=True)
            for outcome, count in counts.most_common(10):
                number = next(number for number, other in outcomes.items() if other == outcome)
                print(f"    {count} times {outcome}, first --number {number}", flush=True)
            shutil.rmtree(folder / "out", ignore_errors=True)
    print(f"{each * len(chosen)} files in {time.monotonic() - began:.0f} s, {strange} ended otherwise")
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main())
