"""All that only a GPU can tell, in one command of under nine minutes: correctness, training, speed and memory.

Writes OUTPUT/gpu_report.json and OUTPUT/gpu_report.md, anew after each part, so that what is interrupted keeps what it
has. A part that fails is written down with its error, and the others go on; the exit code is then 1. Without a GPU,
--device cpu --tiny carries every part out on small numbers, which says that the script works and nothing else.
"""

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import gpu_parts
import torch
from gpu_parts import Row, Setup

from fcnseg.atomic import replacing

EXAMPLE = "example: python scripts/gpu_report.py --output gpu_report"

PARTS: dict[str, tuple[str, Callable[[Setup], list[Row]]]] = {
    "correctness": (
        "Scores against OpenCV's of the reference's networks, and the shipped model's masks against the CPU's.",
        gpu_parts.correctness,
    ),
    "ceiling": ("Products of square matrices, the most that this device multiplies.", gpu_parts.ceiling),
    "speed": (
        "FCN-8s VGG-16, 21 classes. GFLOP are two for each multiply-add, and a step's those of three forward passes.",
        gpu_parts.speed,
    ),
    "peers": ("scripts/benchmark_peers.py: how many times faster than the plain network.", gpu_parts.peers),
    "training": ("fcnseg train on the embedded scenes, in every precision.", gpu_parts.training),
    "resuming": ("Weights of a training that was interrupted against one that was not.", gpu_parts.resuming),
    "processes": ("Weights of two processes against those of one.", gpu_parts.processes),
}


def about(setup: Setup) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if setup.cuda else platform.processor() or platform.machine()
    found: dict[str, Any] = {"date": str(date.today()), "device": device, "tiny": setup.tiny}
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if setup.cuda:
        found |= {"gpus": torch.cuda.device_count(), "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1)}
    return found


def carry_out(name: str, setup: Setup) -> dict[str, Any]:
    """The rows of a part, or why there are none."""
    began = time.monotonic()
    if setup.spent():
        return {"skipped": f"the budget of {setup.budget:g} s was spent"}
    try:
        rows: dict[str, Any] = {"rows": PARTS[name][1](setup)}
    except Exception as error:  # whatever it is, the other parts have their turn
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        rows = {"error": f"{type(error).__name__}: {lines[-1]}"}
    if setup.cuda:
        torch.cuda.empty_cache()
    return rows | {"seconds": round(time.monotonic() - began, 1)}


def write(report: dict[str, Any], folder: Path) -> None:
    for name, text in (("gpu_report.json", json.dumps(report, indent=1)), ("gpu_report.md", markdown(report))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)


def markdown(report: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in report["about"].items() if value is not None)
    sections = [f"# fcnseg on {report['about']['device']}\n\n{facts}\n"]
    for name, part in report["parts"].items():
        told = [f"## {name}\n\n{PARTS[name][0]}\n"]
        told += [f"**{key}: {part[key]}**\n" for key in ("error", "skipped") if key in part]
        told += [table(part["rows"])] if part.get("rows") else []
        sections.append("\n".join(told))
    return "\n".join(sections)


def table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(shown(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gpu_report"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--budget", type=float, default=500, help="seconds after which no part or row begins")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small networks and images, to try the script")
    parser.add_argument("--oracle", type=Path, default=gpu_parts.ORACLE, help="folder of OpenCV's scores")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --tiny tries the script")
    arguments.output.mkdir(parents=True, exist_ok=True)
    setup = Setup(arguments.device, arguments.tiny, arguments.budget, arguments.oracle)
    report: dict[str, Any] = {"about": about(setup), "parts": {}}
    for name in arguments.parts:
        report["parts"][name] = carry_out(name, setup)
        write(report, arguments.output)
        print(f"{name}: {', '.join(f'{k} {v}' for k, v in report['parts'][name].items() if k != 'rows')}", flush=True)
    print((arguments.output / "gpu_report.md").read_text())
    return int(any("error" in part for part in report["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
