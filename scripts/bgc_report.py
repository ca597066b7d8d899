"""The report of a study by scripts/bgc_study.py, whole or in the making: report.md, its tables as files, figures.

python scripts/bgc_report.py runs/bgc_study
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bgc_figures
import numpy as np
from bgc_runs import BASE, PAIR, Run, Study
from omegaconf import OmegaConf

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.evaluation import Interval
from fcnseg.evaluation.report import write_json

TEXT = {
    "real": "the share of the real images alone",
    "synthetic": "the synthetic images alone; no real image at any share",
    "mixed": "both in one pool, shuffled",
    "finetune": "the synthetic images, then the real ones",
    "bgc": "6 real and 4 synthetic images in every batch",
    "bgc_then_real": "BGC, then the real images alone",
}


def write_report(folder: Path) -> Path:
    """Write results.csv, differences.csv, results.json, the figures and, last, report.md; returns its path."""
    study = Study(folder)
    rows = [row(run) for run in study.runs]
    write_csv(rows, folder / "results.csv")
    write_csv(list(intervals(study)), folder / "differences.csv")
    write_json(folder / "results.json", {"study": study.facts, "runs": rows, "differences": list(as_json(study))})
    figures = bgc_figures.draw(study, folder / "figures")
    path = folder / "report.md"
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(sections(study, figures)) + "\n", encoding="utf-8")
    return path


def row(run: Run) -> dict[str, Any]:
    """A run's line of results.csv; scores lie in 0 to 1, empty for a class that occurs nowhere."""
    metrics = run.metrics
    return {
        "share": run.share,
        "seed": run.seed,
        "regime": run.regime,
        "mean_iou": metrics["mean_iou"],
        "pixel_accuracy": metrics["pixel_accuracy"],
        **{f"iou_{name}": scores["iou"] for name, scores in metrics["classes"].items()},
        "step": metrics["step"],
        **{f"images_{name}": count for name, count in metrics["images_seen"].items()},
        "train_seconds": metrics["train_seconds"],
    }


def intervals(study: Study) -> Iterator[dict[str, Any]]:
    """The lines of differences.csv: by how much a regime's mean IoU exceeds another's, with its interval."""
    for (share, regime, against), (seeds, found) in study.differences.items():
        yield {"share": share, "regime": regime, "against": against, "seeds": seeds, **vars(found.mean_iou)}


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    images = [column for column in columns if column.startswith("images_")]
    if images:
        columns = [c for c in columns if c not in images and c != "train_seconds"] + images + ["train_seconds"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval=0, lineterminator="\n")  # a domain that a run never saw
        writer.writeheader()
        writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def as_json(study: Study) -> Iterator[dict[str, Any]]:
    for (share, regime, against), (seeds, found) in study.differences.items():
        yield {
            "share": share,
            "regime": regime,
            "against": against,
            "seeds": seeds,
            "mean_iou": numbers(found.mean_iou),
            "classes": dict(zip(study.classes, map(numbers, found.iou), strict=True)),
        }


def numbers(interval: Interval) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else round(value, 6) for key, value in vars(interval).items()}


def sections(study: Study, figures: list[bgc_figures.Drawn]) -> Iterator[str]:
    """The paragraphs of report.md."""
    yield "# BGC or fine-tuning: which, when, by how much?"
    yield from setting(study)
    yield "## Results"
    yield from findings(study)
    yield (
        "Mean IoU on all validation images in percent, mean and standard deviation over seeds. Differences are in "
        "points of mean IoU, with 95 % confidence intervals of a paired bootstrap over seeds and runs of neighbouring "
        "frames. With few seeds the intervals are rather too narrow, and none is corrected for the number of "
        "comparisons."
    )
    for share in study.shares:
        if any(run.share == share for run in study.runs):
            yield f"### {percent(share)} of the real images"
            yield table(
                ["regime", "mean IoU %", f"difference to `{BASE}`", "seeds"],
                [[f"`{regime}`", *cells] for regime in study.regimes if (cells := score_cells(study, share, regime))],
            )
    if any(key[1:] == PAIR[::-1] for key in study.differences):
        yield f"### `{PAIR[1]}` against `{PAIR[0]}`"
        found = ((share, study.differences.get((share, PAIR[1], PAIR[0]))) for share in study.shares)
        lines = [[percent(share), points(d[1].mean_iou), str(d[0])] for share, d in found if d]
        yield table(["real images", f"difference of `{PAIR[1]}` to `{PAIR[0]}`", "seeds"], lines)
    yield f"### Classes, at {percent(study.focus)} of the real images"
    means = [[f"`{regime}`", *class_cells(study.of(study.focus, regime))] for regime in study.regimes]
    yield "IoU in percent, mean over seeds."
    yield table(["regime", *study.classes], [line for line in means if len(line) > 1])
    for figure in figures:
        yield f"### {figure.heading}"
        yield f"![{figure.heading}](figures/{figure.name})"
        yield figure.caption


def setting(study: Study) -> Iterator[str]:
    """What was run, on what, and for how long."""
    facts, seconds = study.facts, sum(run.metrics["train_seconds"] for run in study.runs)
    config = OmegaConf.load(study.runs[0].phases[-1] / "config.yaml")
    scenes = config.data.train.synthetic
    size = "x".join(map(str, config.data.size[::-1]))
    steps = " or ".join(sorted({str(run.metrics["step"]) for run in study.runs}))
    done = f"{len(study.runs)} of {len(study.runs) + len(study.missing)} runs"
    yield (
        f"{config.model.name} of width {config.model.width:g}, trained from scratch at {size} for {steps} optimiser "
        f"steps of {config.data.batch_size} images, with {scenes.length} synthetic scenes in the look {scenes.look} "
        f"beside shares of CamVid's training images and seeds {', '.join(map(str, facts['seeds']))}. Scores are those "
        f"of the last weights on CamVid's {study.runs[0].metrics['images']} validation images. Each seed takes another "
        "run of neighbouring frames, the same for all regimes; the synthetic scenes are the same in all runs."
    )
    domains = list(dict.fromkeys(name for run in study.runs for name in run.metrics["images_seen"]))
    lines = [[f"`{regime}`", TEXT.get(regime, ""), *images_seen(study, regime, domains)] for regime in study.regimes]
    yield table(["regime", "trains on", *(f"{name} images seen" for name in domains)], lines)
    yield (
        f"{done}, {hours(seconds)} of training in all, {facts['processes']} at a time on "
        f"{facts['machine']}; started {facts['started']}, commit {facts['commit'] or 'unknown'}, "
        + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        + f". Command: `{' '.join(facts['command'])}`"
    )
    if study.missing:
        names = [f"{run.folder.relative_to(study.folder)}" for run in study.missing]
        shown = ", ".join(names[:6] + ["..."] * (len(names) > 6))
        yield f"**Missing, {len(names)} runs:** {shown}{'' if len(names) > 6 else '.'}"


def images_seen(study: Study, regime: str, domains: list[str]) -> list[str]:
    """How many images of each domain a run was shown; in one pool that depends on the share."""
    seen = [run.metrics["images_seen"] for run in study.runs if run.regime == regime]
    counts = [sorted({images.get(name, 0) for images in seen}) for name in domains]
    return ["" if not each else f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}" for each in counts]


def findings(study: Study) -> Iterator[str]:
    """What the numbers of each share say, in sentences; of a share that is not finished nothing."""
    for share in study.shares:
        if any(run.share in (share, 0) for run in study.missing):
            yield f"At {percent(share)} of the real images runs are missing."
            continue
        means = {regime: mean(study.of(share, regime)) for regime in study.regimes}
        best = max(means, key=lambda regime: means[regime])
        text = f"At {percent(share)} of the real images `{best}` has the highest mean IoU, {100 * means[best]:.1f} %"
        differences = {r: study.differences[share, r, BASE][1].mean_iou for r in means if r != BASE and BASE in means}
        if best in differences:
            text += f": {points(differences[best])} against `{BASE}`, an interval that {verdict(differences[best])}"
        told = against_base({r: d for r, d in differences.items() if r != best})
        if told:
            text += f". Of the others, by their intervals, {told}"
        if (pair := study.differences.get((share, PAIR[1], PAIR[0]))) is not None:
            between = pair[1].mean_iou
            text += f". `{PAIR[1]}` against `{PAIR[0]}`: {points(between)}, an interval that {verdict(between)}"
        yield text + "."


def against_base(differences: dict[str, Interval]) -> str:
    """Which regimes lie above, below or on either side of `BASE`."""
    sides = {
        "above": [r for r, d in differences.items() if d.low > 0],
        "below": [r for r, d in differences.items() if d.high < 0],
        "not told apart from": [r for r, d in differences.items() if d.low <= 0 <= d.high],
    }
    named = {side: ", ".join(f"`{regime}`" for regime in regimes) for side, regimes in sides.items() if regimes}
    return "; ".join(f"{side} `{BASE}`: {names}" for side, names in named.items())


def verdict(interval: Interval) -> str:
    return "holds zero" if interval.low <= 0 <= interval.high else "excludes zero"


def score_cells(study: Study, share: float, regime: str) -> list[str]:
    runs = study.of(share, regime)
    if not runs:
        return []
    difference = study.differences.get((share, regime, BASE))
    return [
        spread(run.metrics["mean_iou"] for run in runs),
        points(difference[1].mean_iou) if difference else "",
        str(len(runs)),
    ]


def class_cells(runs: list[Run]) -> list[str]:
    per_class = zip(*([c["iou"] for c in run.metrics["classes"].values()] for run in runs), strict=True)
    return [spread((v for v in values if v is not None), deviation=False) for values in per_class]


def spread(values: Iterable[float], deviation: bool = True) -> str:
    """Mean and standard deviation in percent."""
    values = [100 * value for value in values]
    if not values:
        return ""
    text = f"{statistics.mean(values):.1f}"
    return f"{text} ± {statistics.stdev(values):.1f}" if deviation and len(values) > 1 else text


def mean(runs: list[Run]) -> float:
    return statistics.mean(run.metrics["mean_iou"] for run in runs)


def points(interval: Interval) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in (interval.value, interval.low, interval.high)))


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def table(heading: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, ["---"] * len(heading), *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the study")
    try:
        print(f"report  {write_report(parser.parse_args().folder)}")
    except InputError as error:
        print(f"bgc_report: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
