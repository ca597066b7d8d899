"""The report of a speed ladder: ladder.json, and from it a table and a plot. A folder with ladder.json alone will do.

python scripts/ladder_report.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ladder_figure import draw
from ladder_measure import measured_folder
from ladder_rows import REFERENCE, Rung, Settings, rungs

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.evaluation import bootstrap, load_matrices, paired_bootstrap
from fcnseg.evaluation.report import write_json

HEADINGS = (
    *("rung", "what it is", "one line", "mean IoU, %", "against the reference"),
    *("ms an image", "times faster", "MB", "billion multiply-adds"),
)


def write_report(folder: Path) -> str:
    """Write ladder.json, ladder.md and, where two rungs have numbers, ladder.png; returns the table.

    Raises:
        InputError: when the folder holds no ladder, or the rungs were validated on different images.
    """
    ladder = collect(folder)
    write_json(folder / "ladder.json", ladder)
    text = table(ladder)
    with replacing(folder / "ladder.md") as path:
        path.write_text(f"{text}\n\n{said_below(ladder)}\n")
    if sum(row["seconds"] is not None for row in ladder["rows"]) > 1:
        with replacing(folder / "ladder.png") as path:
            draw(ladder["rows"]).savefig(path, dpi=150, format="png")
    return text


def collect(folder: Path) -> dict[str, Any]:
    """All numbers of a study, as plain values."""
    path = folder / "study.json"
    if not path.is_file():
        raise InputError(f"{folder}: expected a ladder; {path.name} of scripts/speed_ladder.py is not there")
    study = json.loads(path.read_text())
    settings = Settings(study["settings"]["trunk"], study["settings"]["width"], tuple(study["settings"]["size"]))
    times_path = folder / "measure" / "times.json"
    times = json.loads(times_path.read_text()) if times_path.is_file() else {"seconds": {}, "machine": None}
    asked = [rung for rung in rungs(settings) if rung.name in study["rows"]]
    matrices = {rung.name: stack(folder, rung, study["seeds"]) for rung in asked}
    rows = [row(folder, rung, study["seeds"], times["seconds"].get(rung.name), matrices) for rung in asked]
    return {"study": study, "machine": times["machine"], "rows": rows}


def stack(folder: Path, rung: Rung, seeds: list[int]) -> dict[int, tuple[tuple[str, ...], np.ndarray]]:
    """By seed, names and confusion matrices of the validation images."""
    places = {seed: measured_folder(folder, rung, seed) for seed in seeds}
    return {seed: load_matrices(p / "confusions.npz") for seed, p in places.items() if (p / "facts.json").is_file()}


def row(
    folder: Path,
    rung: Rung,
    seeds: list[int],
    seconds: list[float] | None,
    matrices: dict[str, dict[int, tuple[tuple[str, ...], np.ndarray]]],
) -> dict[str, Any]:
    about: dict[str, Any] = {key: getattr(rung, key) for key in ("name", "advice", "override", "kind", "training")}
    found = matrices[rung.name]
    empty = dict.fromkeys(("mean_iou", "against_reference", "seconds", "seeds", "file_bytes", "multiply_adds"))
    if not found:
        return about | empty | {"problem": rung.missing() or problem(folder, rung, seeds)}
    facts = json.loads((measured_folder(folder, rung, next(iter(found))) / "facts.json").read_text())
    own = bootstrap(np.stack([values for _, values in found.values()]))
    return about | {
        "mean_iou": vars(own),
        "against_reference": difference(found, matrices.get(REFERENCE, {})),
        "seconds": quartiles(seconds) if seconds else None,
        "seeds": list(found),
        "problem": None,
        **facts,
    }


def problem(folder: Path, rung: Rung, seeds: list[int]) -> str:
    kept = [measured_folder(folder, rung, seed) / "problem.txt" for seed in seeds]
    return next((path.read_text() for path in kept if path.is_file()), "not measured yet")


def difference(
    found: dict[int, tuple[tuple[str, ...], np.ndarray]], reference: dict[int, tuple[tuple[str, ...], np.ndarray]]
) -> dict[str, float] | None:
    """Of mean IoU to the reference's, on the seeds that both have."""
    seeds = sorted(set(found) & set(reference))
    if not seeds:
        return None
    if any(found[seed][0] != reference[seed][0] for seed in seeds):
        raise InputError("rungs were validated on different images")
    before, after = (np.stack([each[seed][1] for seed in seeds]) for each in (reference, found))
    return vars(paired_bootstrap(before, after).mean_iou)


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def table(ladder: dict[str, Any]) -> str:
    """A markdown table, with the reason in the place of numbers where there are none."""
    reference = next((row["seconds"] for row in ladder["rows"] if row["name"] == REFERENCE), None)
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    lines += [f"| {' | '.join(cells(row, reference))} |" for row in ladder["rows"]]
    return "\n".join(lines)


def cells(row: dict[str, Any], reference: dict[str, float] | None) -> list[str]:
    about = [row["name"], row["advice"], f"`{row['override']}`"]
    if row["problem"]:
        return [*about, row["problem"], "", "", "", "", ""]
    iou, change, seconds = row["mean_iou"], row["against_reference"], row["seconds"]
    texts = [f"{100 * iou['value']:.1f} ({100 * iou['low']:.1f} to {100 * iou['high']:.1f})", "", "", ""]
    if change and row["name"] != REFERENCE:
        texts[1] = f"{100 * change['value']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
    if seconds:
        middle, low, high = (number(1000 * seconds[key]) for key in ("median", "low", "high"))
        texts[2] = f"{middle} ({low} to {high})"
        texts[3] = number(reference["median"] / seconds["median"]) if reference else ""
    return [*about, *texts, number(row["file_bytes"] / 1e6), number(row["multiply_adds"] / 1e9)]


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def said_below(ladder: dict[str, Any]) -> str:
    study, machine = ladder["study"], ladder["machine"] or {}
    settings = study["settings"]
    height, width = settings["size"]
    return (
        f"CamVid's validation images, scored at their labels' size; networks of width {settings['width']:g} at "
        f"{height}x{width}, {settings['steps']} steps from scratch, {len(study['seeds'])} seed(s): mean IoU with 95 % "
        "intervals of a bootstrap over seeds and runs of neighbouring frames. Milliseconds from an image in memory to "
        f"its mask, medians and quartiles over rounds in which all take turns, on {study['machine']}, "
        f"torch {machine.get('torch', study['versions']['torch'])}, {study['started'][:10]}. MB of the file that is "
        "shipped. Multiply-adds without reuse."
    )


if __name__ == "__main__":
    try:
        print(write_report(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/speed_ladder")))
    except InputError as error:
        sys.exit(f"ladder_report: {error}")
