"""Processes that torchrun, srun or a person starts beside one another: where they meet, and what they agree on there.

The first one decides; it tells the others each training, gives them the files that it starts from, and goes on when
all are ready. They meet in torch's key-value store at `MASTER_ADDR:MASTER_PORT`: torchrun's own, or the first one's.
"""

import hashlib
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch.distributed import DistError, PrefixStore, Store, TCPStore

from fcnseg.atomic import replacing
from fcnseg.errors import InputError, mistake
from fcnseg.runs.signs import INTERVAL, Signs

PATIENCE = 30 * 60.0
"""Seconds that one waits for another to begin, as torch's process groups do."""

AGAIN = "start all processes again, with the same settings"

CHUNK = 2**25
"""Bytes of a file that are handed over at a time."""

GONE = f"the first process is gone; {AGAIN}"

WITHIN = 120.0
"""Seconds without a sign of life, in a process that does not know `callbacks.heartbeat.within` yet."""


@dataclass(frozen=True)
class Started:
    """How someone has started this process beside others.

    Attributes:
        by: "torchrun", "srun" or "hand", which is one process for each machine, told its number by `NODE_RANK`.
        rank: 0 in the first process.
        count: of all processes; None: not known from the environment.
    """

    by: str
    rank: int
    count: int | None


def started() -> Started | None:
    """How this process has been started; None where nothing tells of others."""
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # `meet` says so where it matters
    if TorchElasticEnvironment.detect():
        return Started("torchrun", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if SLURMEnvironment.detect() and "SLURM_STEP_ID" in os.environ and int(os.environ["SLURM_NTASKS"]) > 1:
        return Started("srun", int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"]))
    if "NODE_RANK" in os.environ or "LOCAL_RANK" in os.environ:
        rank = int(os.environ.get("LOCAL_RANK", 0)) or int(os.environ.get("NODE_RANK", 0))
        return Started("hand", rank, None)
    return None


def spread() -> tuple[int, int | None]:
    """How many processes the launcher has started on each machine, and on how many machines.

    Started by hand there are as many as GPUs (-1), and the number of machines is not known (None).

    Raises:
        InputError: when nothing tells of others, or machines have different numbers of processes.
    """
    start = started()
    if start is None:
        raise InputError(
            "trainer=ddp_multinode: nothing tells of other processes; expected torchrun, srun or NODE_RANK"
        )
    if start.count is None:
        return -1, None
    machines = int(os.environ["GROUP_WORLD_SIZE" if start.by == "torchrun" else "SLURM_NNODES"])
    if start.count % machines:
        raise InputError(
            f"{start.by} has started {start.count} processes on {machines} machines; expected as many on each"
        )
    return start.count // machines, machines


def open_store(start: Started) -> Store:
    """The store at `MASTER_ADDR:MASTER_PORT`, which the first process serves where torchrun does not.

    Raises:
        InputError: when the environment does not say where that is, or nobody answers there.
    """
    address, port = _place(start)
    served = start.by == "torchrun" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if start.by == "hand" and start.rank > 0:
        print(f"waits for the first process at {address}:{port}", flush=True)
    if start.rank > 0:
        _until(lambda: _answers(address, port), f"{address}:{port}: no first process answers", PATIENCE)
    try:
        store = TCPStore(address, port, is_master=start.rank == 0 and not served, wait_for_workers=False)
    except DistError as error:
        raise InputError(f"MASTER_ADDR:MASTER_PORT={address}:{port}: {_first_line(error)}") from error
    return PrefixStore(f"fcnseg/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _place(start: Started) -> tuple[str, int]:
    if start.by == "srun":
        cluster = SLURMEnvironment()
        return cluster.main_address, cluster.main_port
    needed = ["MASTER_PORT"] if start.rank == 0 else ["MASTER_ADDR", "MASTER_PORT"]
    for name in needed:
        if name not in os.environ:
            raise InputError(f"{name}: a value is missing; all processes meet at MASTER_ADDR:MASTER_PORT of the first")
    try:
        return os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ["MASTER_PORT"])
    except ValueError as error:
        raise InputError(f"MASTER_PORT={os.environ['MASTER_PORT']}: expected a number") from error


class Meeting:
    """What the processes of one training after another agree on; `First` and `Other` are its two sides.

    From the beginning on they give signs of life: one that ends before it trains is not waited for.

    Args:
        store: one that all of them reach.
        rank: of this process.
        watched: ranks of those whose signs of life it looks for.
        within: seconds without one after which a process is lost.
    """

    mine: str
    theirs: str

    def __init__(self, store: Store, rank: int, watched: Iterable[int], within: float) -> None:
        self.store = store
        self.training = 0
        self.within = within
        self.signs = Signs(store.clone(), rank, watched)
        self._over = self.signs.keep_giving()
        self._looked = 0.0

    def key(self, name: str) -> str:
        return f"{self.training}/{name}"

    def count(self, name: str, more: int = 0) -> int:
        try:
            return int(self.store.add(self.key(name), more))
        except DistError as error:
            raise InputError(GONE) from error

    def complain(self, error: BaseException) -> None:
        """Tell the other side what has gone wrong here, with the name of this machine."""
        line = mistake(error) or f"{type(error).__name__}: {_first_line(error)}"
        with suppress(DistError):
            self.store.set(self.key(self.mine), f"{socket.gethostname()}: {line}")

    def complaint(self, patience: float = 0.0) -> str | None:
        """What has gone wrong on the other side; None where nothing is heard of it within so many seconds."""
        key = self.key(self.theirs)
        try:
            _until(lambda: self.store.check([key]), patience=patience)
            return bytes(self.store.get(key)).decode()
        except InputError:
            return None
        except DistError:
            return GONE

    def forsake(self) -> None:
        """Wait no more for the others, since one of them is lost."""

    def loss(self) -> str | None:
        """Which process has been there and is no more, as one line; None where none is missed, or was missed lately."""
        if time.monotonic() - self._looked < INTERVAL / 2:
            return None
        self._looked, within = time.monotonic(), max(self.within, 5 * INTERVAL)
        try:
            silent = self.signs.silent(within, begun=True)
            name = None if silent is None else self.signs.name(silent)
        except DistError:
            return GONE
        return name and f"{name} has given no sign of life for {within:g} seconds before the training; {AGAIN}"

    def leave(self) -> None:
        """Give no more signs of life."""
        self._over.set()


class First(Meeting):
    """The side of the process that decides.

    Args:
        store: one that all processes reach.
        others: how many there are beside this one.
        within: see `Meeting`.
    """

    mine, theirs = "first's complaint", "complaint"

    def __init__(self, store: Store, others: int, within: float = WITHIN) -> None:
        super().__init__(store, 0, range(1, others + 1), within)
        self.others = others

    def tell(self, text: str) -> None:
        """Tell all others what comes next."""
        self.training += 1
        self.store.set(self.key("told"), text)

    def share(self, name: str, path: Path) -> None:
        """Give a file to the others that do not have it, on disks of their own."""
        self.store.set(self.key(f"{name}/digest"), _digest(path))
        self._wait_for(f"{name}/looked", self.others)
        lacking = self.count(f"{name}/lacking")
        if lacking == 0:
            return
        for number, chunk in enumerate(_chunks(path)):
            self.store.set(self.key(f"{name}/{number}"), chunk)  # type: ignore[arg-type]
            self._wait_for(f"{name}/{number}/read", lacking)
            self.store.delete_key(self.key(f"{name}/{number}"))

    def agree(self, error: BaseException | None) -> None:
        """Wait until all are ready to train.

        Raises:
            InputError: what keeps one of the others from it.
        """
        complaint = None
        try:
            if error is None:
                self._wait_for("ready", self.others)
                complaint = self.complaint()
        except InputError as lost:
            complaint = str(lost)
        self.store.set(self.key("go"), "stop" if error or complaint else "go")
        if complaint:
            raise InputError(complaint)

    def end(self, error: BaseException | None) -> None:
        """Let the others leave, and stay until they have heard it."""
        self.training += 1
        if error is not None:
            self.complain(error)
        self.store.set(self.key("told"), "")
        with suppress(InputError):
            self._wait_for("left", self.others, 30)

    def forsake(self) -> None:
        self.others = 0

    def _wait_for(self, name: str, number: int, patience: float | None = None) -> None:
        message = f"not all of {number} other processes have answered"

        def answered() -> bool:
            if self.count(name) >= number:
                return True
            if line := self.loss():
                self.others -= 1
                raise InputError(line)
            return False

        _until(answered, message, PATIENCE if patience is None else patience)


class Other(Meeting):
    """The side of a process that is told."""

    mine, theirs = "complaint", "first's complaint"

    def __init__(self, store: Store, rank: int = 1, within: float = WITHIN) -> None:
        super().__init__(store, rank, [0], within)

    def hear(self) -> str | None:
        """What the first process tells next; None when nothing more comes.

        Raises:
            InputError: when the first process is gone.
            SystemExit: when it ends with an error, which it shows itself.
        """
        self.training += 1
        if text := self._get("told"):
            return text.decode()
        failed = self.store.check([self.key(self.theirs)])
        self.count("left", 1)
        if failed:
            raise SystemExit(2)
        return None

    def share(self, name: str, path: Path) -> None:
        """Take a file from the first process, unless it is here already."""
        digest = self._get(f"{name}/digest").decode()
        lacking = not path.is_file() or _digest(path) != digest
        self.count(f"{name}/lacking", int(lacking))
        self.count(f"{name}/looked", 1)
        if not lacking:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            number = 0
            while chunk := self._get(f"{name}/{number}"):
                file.write(chunk)
                self.count(f"{name}/{number}/read", 1)
                number += 1
            self.count(f"{name}/{number}/read", 1)

    def agree(self, error: BaseException | None) -> None:
        """Say whether this process is ready, and wait for all others.

        Raises:
            InputError: when another one is not.
        """
        if error is not None:
            self.complain(error)
        self.count("ready", 1)
        if error is None and self._get("go") != b"go":
            raise InputError("another process could not begin")

    def _get(self, name: str) -> bytes:
        key = self.key(name)
        try:
            _until(lambda: self.store.check([key]) or self._lost())
            return bytes(self.store.get(key))
        except DistError as error:
            raise InputError(GONE) from error

    def _lost(self) -> bool:
        if line := self.loss():
            raise InputError(line)
        return False


def _until(there: Callable[[], bool], message: str = "", patience: float = math.inf) -> None:
    """Wait for something by looking again and again: torch's own waiting fills the screen when it takes long.

    Raises:
        InputError: with the message, when it has taken too long.
    """
    began = time.monotonic()
    while not there():
        if time.monotonic() - began > patience:
            raise InputError(f"{message} within {patience / 60:g} minutes")
        time.sleep(0.02)


def _answers(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=10):
        return True
    return False


def _chunks(path: Path) -> Iterator[bytes]:
    """A file's content piece by piece, and an empty piece at its end."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
    yield b""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
