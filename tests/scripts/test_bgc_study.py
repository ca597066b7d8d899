"""The study of regimes: its plan, its report's numbers from files written by hand, and a small one trained for real."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import bgc_study
import numpy as np
import pytest
from bgc_arms import PIECES, TRIALS, settings
from bgc_report import write_report
from bgc_runs import CALIBRATION, FAR, Run, Study
from bgc_study import REGIMES, best_trials, command, plan
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fcnseg.commands.configuration import config_folder, register_models
from fcnseg.errors import InputError
from fcnseg.evaluation import Interval, paired_bootstrap, scores
from fcnseg.evaluation.comparison import save_matrices
from fcnseg.evaluation.metrics import to_dict
from fcnseg.labels import STREET11

SCRIPTS = Path(__file__).parents[2] / "scripts"
CONFIG = """
model: {name: fcn8s_vgg16, width: 0.1}
data:
  _target_: fcnseg.data.SegmentationData
  root: /nowhere
  size: [48, 64]
  batch_size: 5
  train: {synthetic: {length: 20, look: photo}}
  val: {_target_: fcnseg.data.CamVid, root: "${data.root}", split: val}
"""


def matrices(share: float, seed: int, regime: str) -> np.ndarray:
    random = np.random.default_rng([int(1000 * share), seed, *regime.encode()])
    counts = random.integers(0, 9, (7, 11, 11)) + 20 * random.random() * np.eye(11)
    return counts.astype(np.int64)


def write_run(folder: Path, share: float, seed: int, regime: str) -> None:
    """The files of a finished run that a report is made from; fine-tuning has two phases."""
    run = Run.planned(folder, share, seed, regime).folder
    phases = {"synthetic": 4, "real": 6} if regime == "finetune" else {}
    last = run / list(phases)[-1] if phases else run
    found = matrices(share, seed, regime)
    save_matrices([f"frame {i}" for i in range(7)], found, last / "confusions.npz")
    if 0 < share < 1:
        save_matrices([f"far {i} of {seed}" for i in range(5)], found[:5], run / FAR)
    (run / CALIBRATION).write_text(json.dumps({"ece_before": 0.25 if regime == "real" else 0.125}))
    (last / "config.yaml").write_text(CONFIG)
    (last / "metrics.csv").write_text("epoch,step,val/mean_iou,train/loss\n0,1,,2.5\n1,1,0.25,\n2,3,0.5,\n")
    facts = {"images": 7, "step": 10, "images_seen": {"camvid": 30, "synthetic": 20}, "train_seconds": 90.0}
    if phases:
        facts["stages"] = {name: {"step": steps, "mean_iou": 0.125} for name, steps in phases.items()}
        facts["stages"]["real"]["mean_iou"] = 0.75
    (run / "metrics.json").write_text(json.dumps(to_dict(scores(found.sum(0)), STREET11) | facts))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    facts = {
        "command": ["python", "scripts/bgc_study.py"], "commit": "abc", "machine": "2 cores", "processes": 2,
        "started": "2026-11-23 12:00", "versions": {"torch": "2"}, "shares": [1, 0.25], "seeds": [0, 1],
        "regimes": ["real", "synthetic", "finetune", "bgc"],
    }  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(facts))
    for seed in (0, 1):
        write_run(tmp_path, 0, seed, "synthetic")
        for share in (1, 0.25):
            for regime in ("real", "finetune", "bgc"):
                write_run(tmp_path, share, seed, regime)
    return tmp_path


def test_the_shares_that_tell_most_come_first():
    cells = plan([1, 0.5, 0.25, 0.125], [5, 6, 7], [*REGIMES, "dacs+ema"])
    assert [cell.share for cell in cells[::3]] == [0.25, 0, 1, 0.125, 0.5]
    for cell in cells:
        without = {"synthetic", "dacs+ema"} & set(cell.regimes)
        assert len(without) == 2 * (cell.share == 0), "they see no real label: once per seed is enough"
    assert sum(len(cell.regimes) for cell in cells) == 4 * 3 * 5 + 3 * 2
    assert [cell.share for cell in plan([0.5, 1], [0], ["real"])] == [1, 0.5]


def test_blocks_of_seeds_stay_where_they_are_when_seeds_are_added():
    few, many = ({cell.seed: cell.start for cell in plan([0.25], seeds, ["real"])} for seeds in ([0, 1], range(5)))
    assert few == {0: 0, 1: 0.618}
    assert many.items() >= few.items()
    apart = [abs(a - b) for a in many.values() for b in many.values() if a != b]
    assert min(min(distance, 1 - distance) for distance in apart) > 0.14


def test_a_command_takes_a_part_of_the_real_images(tmp_path):
    options = Namespace(root=tmp_path, output=tmp_path / "out", steps=30, overrides=["model.width=0.5"])
    whole, none, part = plan([1, 0.5], [3], ["real", "synthetic", "bgc+ema"])
    run = part.runs(options.output)[1]
    words = command(run, part.start, options)
    assert "data.parts={camvid: {share: 0.5, start: 0.8541}}" in words
    for cell in (whole, none):
        assert not any("data.parts" in word for word in command(cell.runs(tmp_path)[0], cell.start, options))
    assert {"seed=3", "regime=bgc", "callbacks.ema.decay=0.99", "trainer.max_steps=30", "model.width=0.5"} <= set(words)
    assert f"hydra.run.dir={tmp_path}/out/share_0.5/seed_3/bgc+ema" in words


def test_every_piece_and_trial_is_a_setting_of_training(tmp_path):
    """Composed, not trained: a name or value that Hydra does not know would end here."""
    options = Namespace(root=tmp_path, output=tmp_path / "out", steps=None, overrides=[])
    arms = ["real", *(f"real+{piece}" for piece in PIECES), *(name for names in TRIALS.values() for name in names)]
    runs = [Run.planned(tmp_path, 1, 0, arm) for arm in arms]
    assert len({composed(command(run, 0, options)) for run in runs}) == len(runs), "no two are the same"
    assert len({len(names) for names in TRIALS.values()}) == 1, "as many trials for each"


def composed(words: list[str]) -> str:
    overrides = [word for word in words[4:] if not word.startswith("hydra.")]
    register_models()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides)
    return OmegaConf.to_yaml(OmegaConf.masked_copy(config, [k for k in config if k not in ("name", "folder")]))


def test_the_best_of_the_trials_is_what_tuned_stands_for(tmp_path):
    with pytest.raises(ValueError, match="has not been tuned; --tune does so"):
        settings("bgc+tuned", best_trials(tmp_path))
    (tmp_path / "tuned.json").write_text(json.dumps({"best": {"bgc": "bgc+8to2"}}))
    found = settings("bgc+tuned+ema", best_trials(tmp_path))
    assert found == ["regime=bgc", "data.ratio.camvid=8", "data.ratio.synthetic=2", "callbacks.ema.decay=0.99"]
    for arm, message in (("bgd", "no regime bgd"), ("bgc+emma", "no piece emma"), ("real+tuned", "no piece tuned")):
        with pytest.raises(ValueError, match=message):
            settings(arm, {})


def test_the_tables_hold_means_and_paired_intervals(study):
    text = write_report(study).read_text()
    score = {
        (share, seed, regime): 100 * scores(matrices(share, seed, regime).sum(0)).mean_iou
        for share in (0, 0.25, 1)
        for seed in (0, 1)
        for regime in REGIMES
    }
    for share in (1, 0.25):
        section = text.split(f"### {100 * share:g} % of the real images")[1].split("###")[0]
        for regime, taken in (("real", share), ("synthetic", 0), ("finetune", share), ("bgc", share)):
            both = [score[taken, seed, regime] for seed in (0, 1)]
            deviation = abs(both[0] - both[1]) / 2**0.5
            ece = "25.0 ± 0.0" if regime == "real" else "12.5 ± 0.0"
            cells = [f"`{regime}`", f"{sum(both) / 2:.1f} ± {deviation:.1f}", "", "", "", ece, "2"]
            a, b = (np.stack([matrices(s, seed, r) for seed in (0, 1)]) for s, r in ((share, "real"), (taken, regime)))
            if regime != "real":
                cells[2] = shown(paired_bootstrap(a, b).mean_iou)
            if 0 < taken < 1:
                far = [100 * scores(b[seed, :5].sum(0)).mean_iou for seed in (0, 1)]
                cells[3] = f"{sum(far) / 2:.1f} ± {abs(far[0] - far[1]) / 2**0.5:.1f}"
                cells[4] = "" if regime == "real" else shown(paired_bootstrap(a[:, :5], b[:, :5]).mean_iou)
            assert f"| {' | '.join(cells)} |" in section
    assert "missing" not in text.lower()
    assert "examples.png" not in text, "the data are not there"
    assert "14 of 14 runs, 21.0 minutes of training" in text
    for name in ("mean_iou", "curves", "classes"):
        assert f"(figures/{name}.png)" in text
        assert (study / "figures" / f"{name}.png").stat().st_size > 10_000


def shown(interval: Interval) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in (interval.value, interval.low, interval.high)))


def test_the_break_even_lies_between_two_shares(study):
    """Half way, by the logarithm of the share, between a half below the goal and one as far above."""
    for share, regime, value in ((1, "real", 0.6), (1, "bgc", 0.7), (0.25, "bgc", 0.5), (1, "finetune", 0.5)):
        for seed in (0, 1):
            path = Run.planned(study, share, seed, regime).folder / "metrics.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"mean_iou": value}))
    found = Study(study)
    assert found.break_even("bgc") == pytest.approx(0.5)
    assert found.break_even("finetune") is None, "nowhere as good"
    assert "| `bgc` | 50 % |" in write_report(study).read_text()


def test_the_files_hold_every_run(study):
    write_report(study)
    with (study / "results.csv").open() as file:
        rows = {(float(row["share"]), int(row["seed"]), row["regime"]): row for row in csv.DictReader(file)}
    assert len(rows) == 14
    for key, row in rows.items():
        expected = scores(matrices(*key).sum(0))
        assert float(row["mean_iou"]) == pytest.approx(expected.mean_iou, abs=1e-6)
        assert float(row["iou_car"]) == pytest.approx(expected.iou[8], abs=1e-6)
        assert (row["step"], row["images_camvid"], row["train_seconds"]) == ("10", "30", "90.0")
    written = json.loads((study / "results.json").read_text())
    assert len(written["runs"]) == 14
    pairs = [(d["share"], d["regime"], d["against"]) for d in written["differences"]]
    assert (0.25, "bgc", "finetune") in pairs
    assert len(pairs) == 2 * 4
    with (study / "differences.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(float(line["share"]), line["regime"], line["against"]) for line in lines] == pairs
    for line, found in zip(lines, written["differences"], strict=True):
        assert {key: float(line[key]) for key in ("value", "low", "high")} == found["mean_iou"]


def test_an_unfinished_study_is_reported_with_what_is_missing(study):
    for share, seed, regime in ((1, 1, "bgc"), (0.25, 0, "real"), (0.25, 1, "real")):
        (Run.planned(study, share, seed, regime).folder / "metrics.json").unlink()
    text = write_report(study).read_text()
    assert "11 of 14 runs" in text
    assert "**Missing, 3 runs:** share_1/seed_1/bgc, share_0.25/seed_0/real, share_0.25/seed_1/real." in text
    assert "At 25 % of the real images runs are missing." in text
    assert "has the highest mean IoU" not in text
    assert sum("± " in line and " |  | " in line for line in text.splitlines()) >= 4, "nothing to compare with at 25 %"


def test_the_sentences_follow_the_numbers(study):
    """One regime that is right everywhere, one that is wrong: above, below, and best."""
    for seed in (0, 1):
        for regime, share in (("bgc", 1000), ("finetune", 0)):
            folder = Run.planned(study, 1, seed, regime).folder
            found = matrices(1, seed, regime) + share * np.eye(11, dtype=int)
            if not share:
                found[:, range(11), range(11)] = 0
            end = folder / "real" if regime == "finetune" else folder
            save_matrices([f"frame {i}" for i in range(7)], found, end / "confusions.npz")
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics["mean_iou"] = scores(found.sum(0)).mean_iou
            (folder / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(study).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("At 100 %")]
    assert line.startswith("At 100 % of the real images `bgc` has the highest mean IoU")
    assert "against `real`, an interval that excludes zero" in line
    assert "below `real`: `finetune`" in line
    assert "`bgc` against `finetune`: +" in line


def test_curves_go_through_all_phases_and_interruptions(study):
    run = Run.planned(study, 1, 0, "finetune")
    (run.folder / "synthetic").mkdir()
    (run.folder / "synthetic" / "metrics.csv").write_text("step,val/mean_iou\n2,0.3\n")
    (run.folder / "synthetic" / "metrics.1.csv").write_text("step,val/mean_iou\n0,0.1\n2,0.9\n")
    assert run.curve() == {1: 0.1, 3: 0.3, 4: 0.125, 6: 0.25, 8: 0.5, 10: 0.75}
    single = Run.planned(study, 1, 0, "bgc")
    assert single.curve() == {2: 0.25, 4: 0.5, 10: single.metrics["mean_iou"]}


def test_what_is_no_study_is_refused(study, tmp_path):
    with pytest.raises(InputError, match="expected a study"):
        Study(tmp_path / "elsewhere")
    run = Run.planned(study, 1, 1, "bgc")
    save_matrices([f"other {i}" for i in range(7)], matrices(1, 1, "bgc"), run.folder / "confusions.npz")
    with pytest.raises(InputError, match="validated on other images"):
        write_report(study)
    for path in study.rglob("metrics.json"):
        path.unlink()
    with pytest.raises(InputError, match="none of its 14 runs is finished"):
        Study(study)


def arguments(camvid: Path, *more: str) -> list[object]:
    return [
        *("--root", camvid, "--output", camvid.parent / "out"),
        *("--regimes", "real", "finetune", "--shares", "0.5", "--seeds", "0", "--steps", "8", "--processes", "1"),
        *more,
        *("--", "data.size=[48,64]", "data.batch_size=4", "data.steps_per_epoch=2", "data.train.synthetic.length=8"),
        *("model.width=0.05", "trainer.accelerator=cpu"),
    ]


def start(camvid: Path) -> subprocess.Popen:
    command = [sys.executable, SCRIPTS / "bgc_study.py", *arguments(camvid)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=camvid.parent
    )


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
def test_a_study_is_stopped_goes_on_and_is_then_left_as_it_is(carry_out: Callable, camvid):
    out = camvid.parent / "out"
    real, finetune = (out / "share_0.5" / "seed_0" / regime for regime in ("real", "finetune"))
    process = start(camvid)
    deadline = time.monotonic() + 200
    while not (finetune / "config.yaml").exists():  # the second run has begun
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("interrupted; the same command goes on\n")
    assert not (finetune / "metrics.json").exists()

    assert "**Missing, 1 runs:** share_0.5/seed_0/finetune." in write_report(out).read_text()

    trained = (real / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    code, shown, errors = carry_out(bgc_study, *arguments(camvid))
    assert code == 0, errors
    assert (real / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    assert "2 runs, 1 of them there already" in shown
    (line,) = [line for line in shown.splitlines() if "finetune" in line]
    assert line.startswith("  2 of 2  share 0.5    seed 0  finetune")
    results = (out / "results.csv").read_bytes()
    rows = list(csv.DictReader(results.decode().splitlines()))
    assert [(row["regime"], row["step"]) for row in rows] == [("real", "8"), ("finetune", "8")]
    assert [(row["images_camvid"], row["images_synthetic"]) for row in rows] == [("32", "0"), ("16", "16")]
    assert "(figures/examples.png)" in (out / "report.md").read_text()

    code, shown, errors = carry_out(bgc_study, *arguments(camvid))
    assert code == 0, errors
    assert shown.startswith("2 runs, 2 of them there already")
    assert (real / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    assert (out / "results.csv").read_bytes() == results


@pytest.mark.slow
def test_a_failure_is_named_at_the_end(carry_out: Callable, camvid):
    (camvid / "valannot").rename(camvid / "elsewhere")
    code, _, errors = carry_out(bgc_study, *arguments(camvid, "--seeds", "0", "1", "--regimes", "real"))
    assert code == 1
    failed = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2, "one cell that fails does not stop the others"
    assert "seed_1/real.log: fcnseg: " in failed[1]
    assert "valannot" in failed[1]
