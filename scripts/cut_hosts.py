"""Two hosts that train together, of which one is lost, and print how long the other one takes to end, and what it says.

The hosts are two network namespaces of this machine, joined by a cable (veth), each with a torchrun of its own. One is
lost in a different way each time: a training process or its launcher is killed, the link is cut for good or for three
seconds, or the whole host goes, and the other one goes on without it. It wants the rights of root.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psutil

EXAMPLE = "example: python scripts/cut_hosts.py --within 10"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
NAMES = Path("/etc/netns")
"""Where `ip netns exec` finds the files of /etc that a namespace has for itself."""

PATIENCE = 180.0
"""Seconds after which a host is taken to hang."""

TRAINING = (
    "train", "data.size=[48,64]", "data.batch_size=4", "data.num_workers=0", "model=fcn32s_vgg16", "model.width=0.05",
    "scheduler=constant", "callbacks.progress=null", "callbacks.last.every_n_train_steps=1", "logger.tensorboard=null",
    "data.train.real.length=4", "data.train.synthetic.length=4", "data.val.length=2", "trainer.log_every_n_steps=1",
    "trainer=ddp_multinode", "trainer.accelerator=cpu", "+trainer.strategy.process_group_backend=gloo",
    "hydra.run.dir=run", "resume=auto",
)  # fmt: skip


@dataclass
class Host:
    """A namespace at its end of the cable, and the launcher in it."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen = field(init=False)
    ended: float | None = None

    def start(self, *arguments: str) -> None:
        here = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', self.name]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--local-addr", self.address, *arguments]
        variables = {"GLOO_SOCKET_IFNAME": self.name, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        with (self.folder / f"{self.name}.txt").open("w") as shown:
            self.process = subprocess.Popen(
                [*here, *launcher], cwd=self.folder, stdout=shown, stderr=shown, env={**os.environ, **variables}
            )

    def shown(self) -> str:
        return (self.folder / f"{self.name}.txt").read_text()

    def training(self) -> psutil.Process:
        """The training process, which the launcher has started."""
        return psutil.Process(self.process.pid).children()[0]

    def kill(self) -> None:
        """As if the power went."""
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()


@contextmanager
def hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two namespaces joined by a cable; nothing of them is left afterwards."""
    label = uuid4().hex[:6]
    first, second = (Host(f"{end}{label}", address, folder) for end, address in zip("ab", ADDRESSES, strict=True))
    try:
        for host in (first, second):
            ip("netns", "add", host.name)
            (NAMES / host.name).mkdir(parents=True)
            (NAMES / host.name / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
        ip("link", "add", first.name, "netns", first.name, "type", "veth", "peer", second.name, "netns", second.name)
        for host in (first, second):
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.name)
            ip("-n", host.name, "link", "set", host.name, "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        yield first, second
    finally:
        for host in (first, second):
            if hasattr(host, "process"):
                host.kill()
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)
            shutil.rmtree(NAMES / host.name, ignore_errors=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def cut(host: Host) -> None:
    ip("-n", host.name, "link", "set", host.name, "down")


def join(host: Host) -> None:
    ip("-n", host.name, "link", "set", host.name, "up")


def kill_rank(first: Host, second: Host) -> None:
    second.training().kill()


def kill_agent(first: Host, second: Host) -> None:
    second.process.kill()


def link_down(first: Host, second: Host) -> None:
    cut(second)


def link_back(first: Host, second: Host) -> None:
    cut(second)
    time.sleep(3)
    join(second)


def host_gone(first: Host, second: Host) -> None:
    cut(second)
    second.kill()


WAYS = {
    "a rank is killed": kill_rank,
    "a launcher is killed": kill_agent,
    "the link is down": link_down,
    "the link is down for 3 seconds": link_back,
    "a host is gone for good": host_gone,
}
"""How the second host is lost."""

GO_ON = ("the link is down for 3 seconds", "a host is gone for good")
"""What a training survives."""


@dataclass(frozen=True)
class Outcome:
    """What came of it: exit codes and seconds from the loss to the end of each host, None for a hang, and texts."""

    codes: tuple[int | None, int | None]
    seconds: tuple[float | None, float | None]
    shown: tuple[str, str]


def lose(way: str, folder: Path, within: float, rendezvous: str = "static", steps: int = 60) -> Outcome:
    """Train on two hosts, lose the second one after a few steps, and wait for the end of both.

    Args:
        way: one of `WAYS`.
        folder: for the run; both hosts see it.
        within: seconds without a sign of life after which a process is lost.
        rendezvous: torchrun's, static or c10d; with the latter one host is enough, and may begin again twice.
        steps: of the optimiser, where the training survives; else it has no end.
    """
    length = steps if way in GO_ON else 10**6
    training = [*TRAINING, f"callbacks.heartbeat.within={within}", f"trainer.max_steps={length}"]
    training += ["trainer.max_epochs=-1", "data.steps_per_epoch=20"]
    with hosts(folder) as pair:
        for number, host in enumerate(pair):
            meet = ["--nproc-per-node=1", f"--rdzv-backend={rendezvous}", f"--rdzv-endpoint={ADDRESSES[0]}:29400"]
            if rendezvous == "static":
                meet += ["--nnodes=2", f"--node-rank={number}", f"--master-addr={ADDRESSES[0]}", "--master-port=29400"]
            else:
                meet += ["--nnodes=1:2", "--max-restarts=2", "--rdzv-id=fcnseg", "--rdzv-conf=last_call_timeout=5"]
            host.start(*meet, "-m", "fcnseg", *training)
        wait_for(lambda: steps_of(folder) >= 3, pair)
        WAYS[way](*pair)
        began = time.monotonic()
        wait_for(lambda: all(ended(host) for host in pair), ())
        codes = [host.process.poll() for host in pair]
        seconds = [host.ended and host.ended - began for host in pair]
        shown = [host.shown() for host in pair]
    return Outcome(tuple(codes), tuple(seconds), tuple(shown))


def ended(host: Host) -> bool:
    if host.ended is None and host.process.poll() is not None:
        host.ended = time.monotonic()
    return host.ended is not None


def wait_for(there, pair) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there() and time.monotonic() < deadline:
        for host in pair:
            if host.process.poll() is not None:
                raise RuntimeError(f"{host.name} has ended before it trained:\n{host.shown()}")
        time.sleep(0.05)


def steps_of(folder: Path) -> int:
    file = folder / "run" / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXAMPLE)
    parser.add_argument("--within", type=float, default=10, help="callbacks.heartbeat.within, in seconds (10)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one; may be given again")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("cut_hosts.py: network namespaces want the rights of root; try sudo")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no namespace is left
    print(f"{'what is lost':<32}{'rendezvous':<12}{'exit codes':<14}{'seconds to the end':<22}what is said")
    for way in arguments.way or WAYS:
        rendezvous = "c10d" if way == "a host is gone for good" else "static"
        with TemporaryDirectory() as folder:
            outcome = lose(way, Path(folder), arguments.within, rendezvous)
        said = [line for text in outcome.shown for line in text.splitlines() if line.startswith("fcnseg: ")]
        seconds = " and ".join("hangs" if value is None else f"{value:.1f}" for value in outcome.seconds)
        codes = " and ".join(map(str, outcome.codes))
        print(f"{way:<32}{rendezvous:<12}{codes:<14}{seconds:<22}{said[0] if said else ''}", flush=True)


if __name__ == "__main__":
    main()
