"""How much memory a call takes on a processor, each in a process of its own, whose mark nobody else has set.

A process's greatest resident memory never falls by itself, and freed blocks that its allocator keeps for later make
the next call look smaller or larger. So a process that has imported torch and done nothing yet is forked for every
call, and tells the peak. A call for which the machine has too little memory ends that fork, and nothing else.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from fcnseg.inference.timing import FORMS, Case, call, is_out_of_memory, random_batch
from fcnseg.models.build import build
from fcnseg.models.spec import ModelSpec

STATUS = Path("/proc/self/status")
MARK = Path("/proc/self/clear_refs")
_FULL, _FAILED = 3, 4


@dataclass(frozen=True)
class Footprint:
    """What became of a call in a process of its own.

    Attributes:
        bytes: of memory at most, for weights, images and all that the call takes; without torch and its code.
            None where it failed, or where the system does not tell.
        out_of_memory: whether there was too little.
    """

    bytes: int | None = None
    out_of_memory: bool = False


class Footprints:
    """Measures calls in fresh processes; a context manager, which ends the process that they are forked from."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Footprints":
        if resident() is not None and hasattr(os, "fork"):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fcnseg.inference.footprint"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def __call__(self, spec: ModelSpec, case: Case) -> Footprint:
        """Carry out a call of a network as the spec describes it, whatever its weights are."""
        if self._process is None:
            return Footprint()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {"spec": spec.to_dict(), "case": asdict(case), "threads": torch.get_num_threads()}
        try:
            print(json.dumps(request), file=stdin, flush=True)
            return Footprint(**json.loads(stdout.readline()))
        except (OSError, ValueError):  # it ended, for want of memory or of what it imports
            return Footprint()


def in_child(job: Callable[[], int | None]) -> Footprint:
    """What the job returns when it is done in a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_child(job, write))
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return Footprint(json.loads(text))
    return Footprint(out_of_memory=code in (_FULL, -9))  # killed: so the kernel ends who takes the last of the memory


def _child(job: Callable[[], int | None], write: int) -> int:
    """The exit code of a fork that has written what the job returns."""
    try:
        # Where the kernel has to end a process, let it be this one.
        Path("/proc/self/oom_score_adj").write_text("1000")
        os.write(write, json.dumps(job()).encode())
    except BaseException as error:
        return _FULL if is_out_of_memory(error) else _FAILED
    return 0


def measure(spec: dict[str, Any], case: dict[str, Any], threads: int) -> int | None:
    """The bytes that building a network, its images and one call take in this process, which has done nothing yet."""
    torch.set_num_threads(threads)
    wanted = Case(**{**case, "size": tuple(case["size"])})
    with torch.device("meta"):
        model = build(ModelSpec(**spec)).train(wanted.what == "step")
    before = resident()
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().fill_(1e-3)  # what was never written to takes no memory
    channels, classes = model.spec.in_channels, model.spec.num_classes
    network = FORMS[wanted.form](model, wanted.precision)
    del model  # of which the form may be a copy
    batch = random_batch(wanted, channels, classes, torch.device("cpu"))
    MARK.write_text("5")  # so Linux forgets the peak of making the form, which may have copied all weights
    call(wanted, network, *batch)
    after = resident()
    if before is None or after is None:
        return None
    return after["VmHWM"] - after["RssFile"] - before["RssAnon"]  # RssFile is code, which is loaded for good


def resident() -> dict[str, int] | None:
    """Bytes of this process that are in memory, now and at most, of each kind; None where the system is not Linux."""
    try:
        pairs = (line.split(":", 1) for line in STATUS.read_text().splitlines())
        kilobytes = {name: text.split()[0] for name, text in pairs if name in ("VmHWM", "RssAnon", "RssFile")}
    except OSError:
        return None
    return {name: int(n) * 1024 for name, n in kilobytes.items()} if len(kilobytes) == 3 else None


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer each line, a call as JSON, by a line, its footprint."""
    for line in requests:
        request = json.loads(line)
        footprint = in_child(lambda request=request: measure(**request))  # type: ignore[misc]
        print(json.dumps(asdict(footprint)), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
