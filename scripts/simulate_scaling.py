"""Predict how fast a network trains on 1 to 1,024 GPUs, and where its ceilings are. A prediction, not a measurement.

A step is the forward and the backward pass; gradients are averaged in buckets as the backward pass reaches them, one
after the other, and what is left when it ends is waited for. A ring of n moves 2 (n-1) / n times a buffer's bytes
through its slowest link in 2 (n-1) hops (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009), a tree twice the
bytes in 2 log2 hops; the faster one is taken, as NCCL does, whose cost model this is (NVIDIA/nccl, graph/tuning.cc).
Synchronised batch normalisation waits for three small sums a layer. Images come no faster than cores prepare them.

Defaults, each an argument: H100 GPUs, eight in a node, 989 TFLOP/s in bfloat16 without sparsity, of which a training
reaches 0.4; NVLink 900 GB/s both ways, so 450 one way; eight network ports of 400 Gb/s a node, so 400 GB/s (NVIDIA's
data sheets of H100 and DGX H100); 0.8 of either (NVIDIA/nccl issue 1264 measured 0.83); 3.4 and 9.6 us a hop
(tuning.cc, ring, simple protocol); 44 images a second from each core and 8 cores for each GPU (README, "Speed of
reading", 512x1024, packed, per core); data of 12,375 images, Cityscapes with SYNTHIA-RAND-CITYSCAPES.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

import fcnseg
from fcnseg.models.summary import summarise

EXAMPLE = "example: python scripts/simulate_scaling.py --gpus 1 8 64 1024 --fc-channels 512"
FIRST_BUCKET = 2**20
"""Bytes of DDP's first bucket, which is small for averaging to begin early."""


@dataclass(frozen=True)
class Network:
    """What of a network matters here.

    Attributes:
        layers: (bytes of gradients, multiply-adds of one image) of each, from the image to the scores.
        normalisations: layers of batch normalisation.
    """

    layers: tuple[tuple[int, int], ...]
    normalisations: int = 0

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(count for _, count in self.layers)


@dataclass(frozen=True)
class Cluster:
    """What carries gradients.

    Attributes:
        per_node: devices of a node.
        within, between: bytes per second one way, of a device within its node and of a whole node to others.
        hop_within, hop_between: seconds of a message without content.
        overlap: whether averaging and computing go on at once; processors that compute do the averaging themselves.
    """

    per_node: int
    within: float
    between: float
    hop_within: float
    hop_between: float
    overlap: bool = True

    def slowest(self, devices: int) -> float:
        return self.within if devices <= self.per_node else min(self.within, self.between)


@dataclass(frozen=True)
class Step:
    """A step, in seconds: computing, all averaging, what of it is waited for, reading, and the whole."""

    computing: float
    averaging: float
    waiting: float
    reading: float

    @property
    def seconds(self) -> float:
        return max(self.computing + self.waiting, self.reading)


def ring_bytes(size: float, devices: int) -> float:
    """Bytes that each of so many devices sends for the sum over all of them of a buffer of `size` bytes."""
    return 2 * (devices - 1) / devices * size


def ring(size: float, devices: int, cluster: Cluster) -> float:
    """Seconds of that sum by a ring through all nodes."""
    between = 2 * (-(-devices // cluster.per_node) - 1)
    within = 2 * (devices - 1) - between
    hops = within * cluster.hop_within + between * cluster.hop_between
    return ring_bytes(size, devices) / cluster.slowest(devices) + hops


def tree(size: float, devices: int, cluster: Cluster) -> float:
    """Seconds of that sum by chains within nodes and a binary tree over them, at 0.9 of the bandwidth."""
    nodes = -(-devices // cluster.per_node)
    within = min(devices, cluster.per_node) - 1
    hops = 2 * (within * cluster.hop_within + math.log2(nodes) * cluster.hop_between)
    return 2 * size / (0.9 * cluster.slowest(devices)) + hops


def all_reduce(size: float, devices: int, cluster: Cluster) -> float:
    """Seconds of that sum by the faster of the two; 0 for one device."""
    return 0.0 if devices == 1 else min(ring(size, devices, cluster), tree(size, devices, cluster))


def buckets(network: Network, cap: float) -> list[tuple[float, int]]:
    """(share of the backward pass after which it is full, bytes) of each bucket, in their order.

    A layer is in one bucket as a whole, however large.
    """
    found, filled, passed, limit = [], 0, 0, float(FIRST_BUCKET)
    for size, count in reversed(network.layers):
        filled, passed = filled + size, passed + count
        if filled >= limit:
            found.append((passed / network.multiply_adds, filled))
            filled, limit = 0, cap
    return [*found, (1.0, filled)] if filled else found


def step(
    network: Network,
    cluster: Cluster,
    devices: int,
    computing: float,
    reading: float,
    cap: float,
    compress: float = 1.0,
) -> Step:
    """A step of so many devices.

    Args:
        computing: seconds of forward and backward pass, of which the latter takes two thirds.
        reading: seconds in which the step's images are prepared.
        cap: bytes of a bucket.
        compress: by how much gradients are smaller when they travel.
    """
    now, averaging = 0.0, 0.0
    for share, size in buckets(network, cap):
        took = all_reduce(size * compress, devices, cluster)
        now = max(now, computing * (1 + 2 * share) / 3) + took
        averaging += took
    small = (3 * network.normalisations + 2) * all_reduce(4096, devices, cluster)  # each waited for
    left = max(0.0, now - computing) if cluster.overlap and devices > 1 else averaging
    return Step(computing, averaging + small, left + small, reading)


def sharded(network: Network, cluster: Cluster, devices: int, computing: float, reading: float) -> Step:
    """A step of FSDP: parameters are gathered twice and gradients scattered, half an all-reduce each.

    What takes longer than computing is waited for, which is the best that prefetching can do.
    """
    averaging = 1.5 * sum(all_reduce(size, devices, cluster) for size, _ in network.layers if size)
    small = (3 * network.normalisations + 2) * all_reduce(4096, devices, cluster)
    return Step(computing, averaging + small, max(0.0, averaging - computing) + small, reading)


def network_of(name: str, size: Sequence[int], width: float = 1.0, fc_channels: int | None = None) -> Network:
    """One of the package's, without values."""
    with torch.device("meta"):
        model = fcnseg.create_model(name, num_classes=19, width=width, fc_channels=fc_channels)
    rows = summarise(model, (size[0], size[1])).rows
    layers = tuple((4 * row.parameters, row.multiply_adds) for row in rows)
    return Network(layers, sum(isinstance(module, _BatchNorm) for module in model.modules()))


def check(path: Path) -> list[str]:
    """Predict what `scripts/scaling.py` has measured, from processes that know nothing of one another, and from sums.

    What processes take from each other by memory, caches and clock, the time of those apart has in it.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    name, width = found["model"].split(", width ")
    devices, sums = found["processes"], {int(size): seconds for size, seconds in found["averaging"].items()}
    (_, least), *_, (most, longest) = sorted(sums.items())
    link = Cluster(
        devices, ring_bytes(most, devices) / (longest - least), math.inf, least / (2 * (devices - 1)), 0, overlap=False
    )
    network = network_of(name, found["size"], float(width))
    lines = [f"{link.within / 1e9:.2f} GB/s and {link.hop_within * 1e6:.0f} us a hop, from sums without a training"]
    for overlap in (False, True):
        each = step(network, replace(link, overlap=overlap), devices, found["apart"], 0, 25e6)
        lines.append(
            f"averaging {'beside' if overlap else 'after'} computing: {each.seconds * 1e3:.0f} ms a step predicted, "
            f"{found['together'] * 1e3:.0f} measured ({each.seconds / found['together'] - 1:+.1%}); each process "
            f"{found['apart'] / each.seconds:.3f} of one apart, {found['apart'] / found['together']:.3f} measured"
        )
    return lines


def predicted(
    arguments: argparse.Namespace,
    network: Network,
    cluster: Cluster,
    gpus: int,
    fsdp: bool = False,
    compress: float = 1.0,
    cap: float | None = None,
) -> Step:
    """A step of so many GPUs, as the arguments describe them."""
    rate = arguments.tflops * 1e12 * arguments.share / (6 * network.multiply_adds)  # three passes of two operations
    computing, reading = arguments.batch / rate, arguments.batch / (arguments.read_per_core * arguments.cores)
    if fsdp:
        return sharded(network, cluster, gpus, computing, reading)
    return step(network, cluster, gpus, computing, reading, (cap or arguments.bucket) * 1e6, compress)


def needed(arguments: argparse.Namespace, network: Network, cluster: Cluster, gpus: int, **options: Any) -> float:
    """GB/s between nodes with which 0.9 of a step is computing, whatever the reading; infinite where none will do."""

    def enough(speed: float) -> bool:
        each = predicted(arguments, network, replace(cluster, between=speed), gpus, **options)
        return each.computing >= 0.9 * (each.computing + each.waiting)

    low, high = 1e6, 1e13
    if not enough(high):
        return math.inf
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high / 1e9


def show(arguments: argparse.Namespace) -> None:
    network = network_of(arguments.model, arguments.size, fc_channels=arguments.fc_channels)
    cluster = Cluster(
        arguments.per_node, arguments.within * 1e9 * arguments.reached, arguments.between * 1e9 * arguments.reached,
        arguments.hop_within * 1e-6, arguments.hop_between * 1e-6,
    )  # fmt: skip
    (height, width), each_reads = arguments.size, arguments.read_per_core * arguments.cores
    print("Predicted, not measured; `--help` has the sources of what is assumed.\n")
    print(
        f"{arguments.model}, {network.bytes / 4e6:.1f} M parameters, {network.multiply_adds / 1e9:.0f} G multiply-adds "
        f"of an image of {height}x{width}; {arguments.batch} images for each GPU, which reads {each_reads:g} a second\n"
    )
    print("| GPUs | batch | each sends | step, of it waiting | images/s | computing | steps an epoch | linear rate |")
    print("|---|---|---|---|---|---|---|---|")
    for gpus in arguments.gpus:
        each, batch = predicted(arguments, network, cluster, gpus), gpus * arguments.batch
        limit = " as read" if each.reading > each.computing + each.waiting else ""
        print(
            f"| {gpus:,} | {batch:,} | {ring_bytes(network.bytes, gpus) / 1e6:,.0f} MB "
            f"| {each.seconds * 1e3:.1f} ms, {each.waiting * 1e3:.1f} | {batch / each.seconds:,.0f}{limit} "
            f"| {each.computing / each.seconds:.2f} | {arguments.images / batch:,.1f} "
            f"| x{batch / arguments.reference:g} |"
        )
    compare(arguments, network, cluster, arguments.gpus[-1])


def compare(arguments: argparse.Namespace, network: Network, cluster: Cluster, gpus: int) -> None:
    """What other choices change, at the last number of GPUs."""
    narrow = network_of(arguments.model, arguments.size, fc_channels=512)
    choices: list[tuple[str, Network, dict[str, Any]]] = [
        ("as above", network, {}),
        ("gradients in bfloat16 (trainer.strategy.compress)", network, {"compress": 0.5}),
        ("buckets of 200 MB (trainer.strategy.bucket_cap_mb)", network, {"cap": 200}),
        ("heads of 512 channels (model.fc_channels)", narrow, {}),
        ("FSDP", network, {"fsdp": True}),
    ]
    print(
        f"\n{gpus:,} GPUs. Network: what a node must reach for 0.9 of a step to be computing. Memory: of parameters, "
        "gradients\nand AdamW's moments in float32; with FSDP a share of them, and the largest layer whole.\n"
    )
    print("| choice | each sends | averaging, of it waiting | computing | network | memory of a GPU |")
    print("|---|---|---|---|---|---|")
    for name, of, options in choices:
        each, fsdp = predicted(arguments, of, cluster, gpus, **options), "fsdp" in options
        sent = ring_bytes(of.bytes, gpus) * options.get("compress", 1) * (1.5 if fsdp else 1)
        memory = 4 * of.bytes / gpus + 2 * max(size for size, _ in of.layers) if fsdp else 4 * of.bytes
        print(
            f"| {name} | {sent / 1e6:,.0f} MB | {each.averaging * 1e3:.1f} ms, {each.waiting * 1e3:.1f} "
            f"| {each.computing / each.seconds:.2f} | {needed(arguments, of, cluster, gpus, **options):.3g} GB/s "
            f"| {memory / 1e6:,.0f} MB |"
        )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--gpus", type=int, nargs="+", default=[2**n for n in range(11)], help="default: 1 2 4 ... 1024")
    made.add_argument("--model", default="fcn8s_vgg16", help="default: fcn8s_vgg16")
    made.add_argument("--fc-channels", type=int, help="of fc6 and fc7, as model.fc_channels (default: 4096)")
    made.add_argument("--size", type=int, nargs=2, default=[512, 1024], help="height and width (default: 512 1024)")
    made.add_argument("--batch", type=int, default=8, help="images of each GPU (default: 8)")
    made.add_argument("--tflops", type=float, default=989, help="of a GPU at best (default: 989)")
    made.add_argument("--share", type=float, default=0.4, help="of these that training reaches (default: 0.4)")
    made.add_argument("--per-node", type=int, default=8, help="GPUs of a node (default: 8)")
    made.add_argument("--within", type=float, default=450, help="GB/s of a GPU in its node, one way (default: 450)")
    made.add_argument("--between", type=float, default=400, help="GB/s of a node to others, one way (default: 400)")
    made.add_argument("--reached", type=float, default=0.8, help="share of both bandwidths (default: 0.8)")
    made.add_argument("--hop-within", type=float, default=3.4, help="us (default: 3.4)")
    made.add_argument("--hop-between", type=float, default=9.6, help="us (default: 9.6)")
    made.add_argument("--bucket", type=float, default=25, help="MB, as trainer.strategy.bucket_cap_mb (default: 25)")
    made.add_argument("--read-per-core", type=float, default=44, help="images a second (default: 44)")
    made.add_argument("--cores", type=int, default=8, help="that read, for each GPU (default: 8)")
    made.add_argument("--images", type=int, default=12375, help="of the training data (default: 12375)")
    made.add_argument("--reference", type=int, default=10, help="batch that a rate is known for (default: 10)")
    made.add_argument("--check", type=Path, help="what scripts/scaling.py --output wrote, to predict and compare")
    return made


def main() -> None:
    arguments = parser().parse_args()
    if arguments.check:
        print("\n".join(check(arguments.check)))
    else:
        show(arguments)


if __name__ == "__main__":
    main()
