"""Time FCN-8s over VGG-16 beside a plain transcription of the reference and other libraries, alternating in one run.

Each network in the layout of memory that it is fastest in, ours for inference as fcnseg.Predictor has it, medians over
the rounds; a ratio is the plain network's median over the other's. The plain network pads by 100, computes all of what
surrounds an image, and upsamples by transposed convolutions. GFLOP are those of the plain computation, two for each
multiply-add, whatever a network reuses; a step has those of three forward passes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F
from peers import CLASSES, NETWORKS, PLAIN
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fcnseg.inference.footprint import MARK, resident
from fcnseg.models import FCN, optimise

EXAMPLE = "example: python scripts/benchmark_peers.py --sizes 360x480 180x240 --batches 1 4 --rounds 5 --memory"
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
COLUMNS = ("what", "size", "batch", "classes", "precision", "network", "layout")

# Okabe and Ito's colours, which colour-blind readers tell apart; ours in warm ones.
COLOURS = dict(zip(NETWORKS, ("#000000", "#e69f00", "#d55e00", "#0072b2", "#009e73", "#56b4e9"), strict=False))

Row = dict[str, Any]


def predict(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    options = {"reuse": True} if isinstance(network, FCN) else {}  # as Predictor and evaluation call it
    with torch.inference_mode():
        network.eval()(images, **options)


def step(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """Forward and backward, without the optimiser."""
    network.zero_grad(set_to_none=True)
    logits = network.train()(images)
    F.cross_entropy(logits["out"] if isinstance(logits, dict) else logits, masks).backward()


WHAT: dict[str, Callable[[nn.Module, Tensor, Tensor], None]] = {"forward": predict, "step": step}


def seconds(what: str, network: nn.Module, images: Tensor, masks: Tensor, precision: str) -> float:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        if images.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        WHAT[what](network, images, masks)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began


def batch(arguments: argparse.Namespace, size: tuple[int, int], number: int, classes: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(number, 3, *size, device=arguments.device)
    return images, torch.randint(0, classes, (number, *size), device=arguments.device)


def measure(arguments: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for classes in arguments.classes:
        torch.manual_seed(0)
        networks = {name: NETWORKS[name](arguments.width, classes).to(arguments.device) for name in chosen(arguments)}
        for size in arguments.sizes:
            for number in arguments.batches:
                images, masks = batch(arguments, size, number, classes)
                for precision in arguments.precisions:
                    for what in arguments.what:
                        case = {"what": what, "size": f"{size[0]}x{size[1]}", "batch": number, "classes": classes}
                        case |= {"precision": precision}
                        found = compare(what, networks, images, masks, precision, arguments.rounds, arguments.compile)
                        rows += [complete(case | row, arguments) for row in found]
    return rows


def chosen(arguments: argparse.Namespace) -> list[str]:
    return [name for name in NETWORKS if name == PLAIN or not arguments.networks or name in arguments.networks]


def complete(row: Row, arguments: argparse.Namespace) -> Row:
    """With what does not come from the clock."""
    gflop = gflop_of(row, arguments.width)
    memory = {"memory": memory_of(row, arguments)} if arguments.memory else {}
    return row | {"gflop": gflop, "gflop_per_second": gflop / row["seconds"]} | memory


def compare(
    what: str,
    networks: dict[str, nn.Module],
    images: Tensor,
    masks: Tensor,
    precision: str,
    rounds: int,
    compiled: bool = False,
) -> list[Row]:
    """One row for each network: its median in the better layout of memory."""
    times: dict[str, dict[str, list[float]]] = {name: {layout: [] for layout in LAYOUTS} for name in networks}
    for layout, memory_format in LAYOUTS.items():
        placed = images.to(memory_format=memory_format)
        forms = {
            name: form(what, network.to(memory_format=memory_format), precision, compiled)
            for name, network in networks.items()
        }
        for turn in range(rounds + 1):  # the first warms up
            for name, network in forms.items():
                taken = seconds(what, network, placed, masks, precision)
                if turn:
                    times[name][layout].append(taken)
    rows: list[Row] = []
    for name, by_layout in times.items():
        layout, best = min(((k, statistics.median(v)) for k, v in by_layout.items()), key=lambda pair: pair[1])
        rows.append({"network": name, "layout": layout, "seconds": best, "rounds": by_layout[layout]})
    return [row | {"ratio": rows[0]["seconds"] / row["seconds"]} for row in rows]


def form(what: str, network: nn.Module, precision: str, compiled: bool = False) -> nn.Module:
    """What is timed: for inference ours optimised; compiled, if it is to be, all of them with frozen weights."""
    if what == "step":
        return network
    if isinstance(network, FCN):
        return optimise(network, PRECISIONS[precision], compile=compiled)
    return torch.compile(network.eval()) if compiled else network


def gflop_of(row: Row, width: float) -> float:
    """Billions of operations of a call, counted by torch on tensors without memory."""
    height, _, length = row["size"].partition("x")
    with torch.device("meta"), torch.no_grad():
        network = NETWORKS[row["network"]](width, row["classes"]).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(row["batch"], 3, int(height), int(length)))
    return counter.get_total_flops() * (3 if row["what"] == "step" else 1) / 1e9


def memory_of(row: Row, arguments: argparse.Namespace) -> int | None:
    """MB at most of weights, images and what the call takes, in a process of its own; None where it failed."""
    settings = {key: getattr(arguments, key) for key in ("width", "device", "compile")}
    case = {key: row[key] for key in COLUMNS} | settings | {"threads": torch.get_num_threads()}
    done = subprocess.run([sys.executable, __file__, "--probe", json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        print(f"{row['network']}: memory not measured: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return int(done.stdout)


def probe(case: Row) -> int:
    """MB of one call in this process, which has done nothing else."""
    torch.set_num_threads(case["threads"])
    before = resident()
    height, _, length = case["size"].partition("x")
    arguments = argparse.Namespace(device=case["device"])
    network = NETWORKS[case["network"]](case["width"], case["classes"]).to(case["device"])
    network = form(case["what"], network.to(memory_format=LAYOUTS[case["layout"]]), case["precision"], case["compile"])
    images, masks = batch(arguments, (int(height), int(length)), case["batch"], case["classes"])
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        MARK.write_text("5")  # so Linux forgets the peak of building it
    seconds(case["what"], network, images.to(memory_format=LAYOUTS[case["layout"]]), masks, case["precision"])
    if images.is_cuda:
        return torch.cuda.max_memory_allocated() // 2**20
    after = resident()
    if before is None or after is None:
        raise RuntimeError("this system does not tell how much memory a process has")
    return (after["VmHWM"] - before["RssAnon"] - before["RssFile"]) // 2**20


def table(rows: list[Row]) -> str:
    numbers = ("seconds", "times plain", "GFLOP", "GFLOP/s", *(["MB"] if "memory" in rows[0] else []))
    lines = [f"| {' | '.join((*COLUMNS, *numbers))} |", "|---" * (len(COLUMNS) + len(numbers)) + "|"]
    for row in rows:
        values = [
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['gflop']:.0f}",
            f"{row['gflop_per_second']:.0f}",
        ]
        values += [str(row["memory"])] if "memory" in row else []
        lines.append("| " + " | ".join([*(str(row[key]) for key in COLUMNS), *values]) + " |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Seconds over each of pixels, batch and classes that have several values, of the first values of the others."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    for row in rows:
        height, _, width = row["size"].partition("x")
        row["pixels"] = int(height) * int(width)
    axes_of = [key for key in ("pixels", "batch", "classes") if len({row[key] for row in rows}) > 1]
    kinds = list(dict.fromkeys((row["what"], row["precision"]) for row in rows))
    figure = Figure(figsize=(4.6 * max(len(axes_of), 1), 3.4 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), max(len(axes_of), 1), squeeze=False)
    for (what, precision), line in zip(kinds, panels, strict=True):
        for key, axes in zip(axes_of, line, strict=False):
            for name in dict.fromkeys(row["network"] for row in rows):
                of_network = [r for r in rows if (r["network"], r["what"], r["precision"]) == (name, what, precision)]
                fixed = {other: of_network[0][other] for other in axes_of if other != key}
                drawn = sorted((r[key], r["seconds"]) for r in of_network if all(r[k] == v for k, v in fixed.items()))
                axes.plot(*zip(*drawn, strict=True), marker="o", markersize=4, label=name, color=COLOURS[name])
            axes.set(xscale="log", yscale="log", xlabel=key, ylabel="seconds", title=f"{what}, {precision}")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.set_xticks(sorted({row[key] for row in rows}), labels=map(str, sorted({row[key] for row in rows})))
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=size, default=[(360, 480)], metavar="HEIGHTxWIDTH")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--classes", nargs="+", type=int, default=[CLASSES])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="beside the plain one; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="for inference, every network by torch.compile")
    parser.add_argument("--memory", action="store_true", help="the peak of each, in a process of its own (Linux)")
    parser.add_argument("--width", type=float, default=1.0, help="of our network and the plain one, to try the script")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write every round's time to this file")
    parser.add_argument("--plot", type=Path, help="also draw how seconds grow, as a PNG")
    parser.add_argument("--probe", type=json.loads, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = options()
    arguments = parser.parse_args()
    torch._inductor.config.freezing = (arguments.probe or vars(arguments))["compile"]
    if arguments.probe:
        print(probe(arguments.probe))
        return
    if arguments.plot and max(map(len, (arguments.sizes, arguments.batches, arguments.classes))) == 1:
        parser.error("--plot draws how seconds grow: expected several of --sizes, --batches or --classes")
    if not any(name.startswith("smp") for name in NETWORKS):
        print("segmentation_models_pytorch is not installed: left out", file=sys.stderr)
    rows = measure(arguments)
    print(f"{torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads\n\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
