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
from bgc_arms import PIECES
from bgc_looks import MARGIN, look_at_all
from bgc_runs import BASE, PAIR, TUNED_PAIR, Run, Study
from omegaconf import OmegaConf

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.evaluation import Interval, scores
from fcnseg.evaluation.report import write_json

PLAYING_FOR_DATA = 1 / 3
"""The share of CamVid's real labels at which 25,000 frames of a game make up for the others (Richter et al. 2016)."""

TEXT = {
    "real": "the share of the real images alone",
    "synthetic": "the synthetic images alone; no real image at any share",
    "mixed": "both in one pool, shuffled",
    "finetune": "the synthetic images, then the real ones",
    "bgc": "6 real and 4 synthetic images in every batch",
    "bgc_then_real": "BGC, then the real images alone",
    "fda": "the synthetic images in the look of real ones without labels",
    "dacs": "the synthetic images, and parts of them on real ones with a teacher's labels",
    "entropy": "the synthetic images, and confidence on real ones without labels",
    "bgc_fda": "BGC, with the synthetic images in the look of real ones without labels",
    "bgc_dacs": "BGC, and parts of synthetic images on real ones with a teacher's labels",
    "classmix": "the real images, and mixed ones of real images without labels",
}


def write_report(folder: Path) -> Path:
    """Write results.csv, differences.csv, results.json, the figures and, last, report.md; returns its path."""
    study = Study(folder)
    look_at_all(study.runs)
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
    """A run's line of results.csv; scores lie in 0 to 1, empty where there are none."""
    metrics = run.metrics
    return {
        "share": run.share,
        "seed": run.seed,
        "regime": run.regime,
        "mean_iou": metrics["mean_iou"],
        "pixel_accuracy": metrics["pixel_accuracy"],
        **{f"iou_{name}": scores["iou"] for name, scores in metrics["classes"].items()},
        "far_mean_iou": None if run.far is None else scores(run.far[1].sum(0)).mean_iou,
        "calibration_error": run.calibration_error,
        "collapsed": int(run.collapsed),
        "step": metrics["step"],
        **{f"images_{name}": count for name, count in metrics["images_seen"].items()},
        "train_seconds": metrics["train_seconds"],
    }


def intervals(study: Study) -> Iterator[dict[str, Any]]:
    """The lines of differences.csv: by how much a regime's mean IoU exceeds another's, with its interval."""
    for key, (seeds, found) in study.differences.items():
        share, regime, against = key
        far = study.far_differences.get(key)
        yield {
            **{"share": share, "regime": regime, "against": against, "seeds": seeds},
            **vars(found.mean_iou),
            **{f"far_{name}": value for name, value in (vars(far[1].mean_iou) if far else {}).items()},
        }


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
                ["regime", "mean IoU %", f"difference to `{BASE}`", "far frames %", "difference", "ECE %", "seeds"],
                [[f"`{regime}`", *cells] for regime in study.regimes if (cells := score_cells(study, share, regime))],
            )
    others = dict.fromkeys(key[1:] for key in study.differences if key[2] != BASE)
    for regime, against in others:
        yield f"### `{regime}` against `{against}`"
        yield table(["real images", "difference", "on far frames", "seeds"], list(pair_lines(study, regime, against)))
    yield from break_even(study)
    yield f"### Classes, at {percent(study.focus)} of the real images"
    means = [[f"`{regime}`", *class_cells(study.of(study.focus, regime))] for regime in study.regimes]
    yield "IoU in percent, mean over seeds."
    yield table(["regime", *study.classes], [line for line in means if len(line) > 1])
    for figure in figures:
        yield f"### {figure.heading}"
        yield f"![{figure.heading}](figures/{figure.name})"
        yield figure.caption


def pair_lines(study: Study, regime: str, against: str) -> Iterator[list[str]]:
    for share in study.shares:
        near, far = (found.get((share, regime, against)) for found in (study.differences, study.far_differences))
        if near:
            yield [percent(share), points(near[1].mean_iou), points(far[1].mean_iou) if far else "", str(near[0])]


def break_even(study: Study) -> Iterator[str]:
    """With how many of the real images each regime is as good as the real images alone with all of them."""
    found = {regime: study.break_even(regime) for regime in study.regimes if regime != BASE}
    lines = [[f"`{regime}`", percent(round(share, 3))] for regime, share in found.items() if share is not None]
    if lines:
        yield "### Break-even"
        yield (
            f"The share of the real images with which a regime reaches the mean IoU of `{BASE}` with all of them, "
            'between the shares of the study by the logarithm; regimes that are not here never cross it. In "Playing '
            f'for Data" (Richter et al., ECCV 2016) it is {percent(round(PLAYING_FOR_DATA, 2))}, with 25,000 frames of '
            "a game."
        )
        yield table(["regime", "real images"], lines)


def setting(study: Study) -> Iterator[str]:
    """What was run, on what, and for how long."""
    facts, seconds = study.facts, sum(run.metrics["train_seconds"] for run in study.runs)
    config = OmegaConf.load(study.runs[0].phases[-1] / "config.yaml")
    scenes = config.data.train.synthetic
    size = "x".join(map(str, config.data.size[::-1]))
    steps = " or ".join(sorted({str(run.metrics["step"]) for run in study.runs}))
    origin = Path(weights).name if (weights := config.model.get("weights")) else "scratch"
    done = f"{len(study.runs)} of {len(study.runs) + len(study.missing)} runs"
    yield (
        f"{config.model.name} of width {config.model.width:g}, trained from {origin} at {size} for {steps} optimiser "
        f"steps of {config.data.batch_size} images, with {scenes.length} synthetic scenes in the look {scenes.look} "
        f"beside shares of CamVid's training images and seeds {', '.join(map(str, facts['seeds']))}. Scores are those "
        f"of the last weights on CamVid's {study.runs[0].metrics['images']} validation images. Each seed takes another "
        "run of neighbouring frames, the same for all regimes; the synthetic scenes are the same in all runs. "
        f"Far frames are CamVid's training images more than {MARGIN} from that block, whose labels no regime has "
        f"seen; ECE is the expected calibration error on `val`. {sum(run.collapsed for run in study.runs)} of the runs "
        "ended in one class for nearly all pixels."
    )
    domains = list(dict.fromkeys(name for run in study.runs for name in run.metrics["images_seen"]))
    lines = [[f"`{regime}`", described(regime), *images_seen(study, regime, domains)] for regime in study.regimes]
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


def described(arm: str) -> str:
    """What it trains on, and the settings of its pieces."""
    regime, *pieces = arm.split("+")
    return ", ".join([TEXT.get(regime, ""), *(f"`{PIECES[piece]}`" for piece in pieces if piece in PIECES)])


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
        means = {regime: study.mean(share, regime) or 0.0 for regime in study.regimes}
        best = max(means, key=lambda regime: means[regime])
        text = f"At {percent(share)} of the real images `{best}` has the highest mean IoU, {100 * means[best]:.1f} %"
        differences = {r: study.differences[share, r, BASE][1].mean_iou for r in means if r != BASE and BASE in means}
        if best in differences:
            text += f": {points(differences[best])} against `{BASE}`, an interval that {verdict(differences[best])}"
        told = against_base({r: d for r, d in differences.items() if r != best})
        if told:
            text += f". Of the others, by their intervals, {told}"
        for against, regime in (PAIR, TUNED_PAIR):
            if (pair := study.differences.get((share, regime, against))) is not None:
                between = pair[1].mean_iou
                text += f". `{regime}` against `{against}`: {points(between)}, an interval that {verdict(between)}"
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
    key = (share, regime, BASE)
    near, far = study.differences.get(key), study.far_differences.get(key)
    return [
        spread(run.metrics["mean_iou"] for run in runs),
        points(near[1].mean_iou) if near else "",
        spread(scores(run.far[1].sum(0)).mean_iou for run in runs if run.far),
        points(far[1].mean_iou) if far else "",
        spread(run.calibration_error for run in runs if run.calibration_error is not None),
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
