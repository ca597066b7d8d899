"""The speed ladder: its plan, its numbers from files written by hand, its picture, and a small one for real."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import speed_ladder
import torch
from hydra.core.global_hydra import GlobalHydra
from ladder_figure import draw
from ladder_measure import Call, Measuring, exported, measured_folder
from ladder_report import write_report
from ladder_rows import Rung, Settings, chosen, rungs, trainings
from matplotlib.text import Annotation, Text
from speed_ladder import begin, estimate, plan

from fcnseg.commands.configuration import config_folder, register_models
from fcnseg.errors import InputError
from fcnseg.evaluation import bootstrap, paired_bootstrap, scores
from fcnseg.evaluation.comparison import load_matrices, save_matrices
from fcnseg.models import from_pretrained
from tests.models.stored import trained

SCRIPTS = Path(__file__).parents[2] / "scripts"
EVERY = rungs(Settings())


def test_each_advice_has_its_line() -> None:
    assert len({rung.name for rung in EVERY}) == len(EVERY)
    for rung in EVERY:
        assert rung.override
        assert rung.training or rung.absent, "a number, or why there is none"
        assert not rung.training or rung.training in trainings(Settings())
    advice = " ".join(rung.advice for rung in EVERY)
    for word in ("newer GPU", "several GPUs", "TensorRT", "AlexNet with two skips", "larger strides", "smaller images"):
        assert word in advice


@pytest.mark.parametrize("settings", [Settings(), Settings("vgg16", 1.0, (360, 480))])
def test_trainings_are_settings_of_fcnseg_train(settings: Settings) -> None:
    register_models()
    GlobalHydra.instance().clear()
    configs = {}
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        for name, overrides in trainings(settings).items():
            configs[name] = hydra.compose("train", ["experiment=speed_ladder", *overrides, "data.root=nowhere"])
    height, width = settings.size
    for name, config in configs.items():
        assert list(config.data.size) == ([height // 2, width // 2] if name == "half" else [height, width])
        assert config.model.width == settings.width
        assert config.model.padding == ("caffe" if name == "caffe" else "same")
        assert config.trainer.max_steps == 500
    assert configs["narrow"].model.fc_channels == {0.25: 128, 1.0: 512}[settings.width]
    assert configs["stem4"].model.name == f"fcn8s_{settings.trunk}_stem4"


def test_only_what_the_rungs_take_is_trained() -> None:
    rows = chosen(Settings(), ["same", "responses", "alexnet8", "gpus"])
    assert [rung.name for rung in rows] == ["same", "alexnet8", "responses", "gpus"]
    assert plan(rows, [3, 5]) == [("same", 3), ("alexnet8", 3), ("same", 5), ("alexnet8", 5)]
    with pytest.raises(InputError, match="--rows tensor: expected some of reference, reuse, "):
        chosen(Settings(), ["tensor"])


def test_an_estimate_is_arithmetic(tmp_path: Path) -> None:
    options = Namespace(steps=100, output=tmp_path)
    rows = chosen(Settings(), ["reference", "half"])
    shown = estimate(Settings(), rows, plan(rows, [0]), options).splitlines()
    # 3.62 billion multiply-adds: times 6 * 10 * 100 at 40 GFLOP/s, and a second for each step.
    assert any("caffe" in line and " 3.62 billion" in line and "about 11 min" in line for line in shown)
    assert any("half" in line and " 0.31 billion" in line and "about 2 min" in line for line in shown)


def matrices(name: str, seed: int) -> np.ndarray:
    random = np.random.default_rng([seed, *name.encode()])
    return (random.integers(0, 9, (7, 11, 11)) + 20 * random.random() * np.eye(11)).astype(np.int64)


SECONDS = {"reference": [0.3, 0.1, 0.2], "same": [0.05, 0.04, 0.08], "bf16": [0.01, 0.02, 0.03]}


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    options = Namespace(output=tmp_path, steps=30, seeds=[0, 1], overrides=[])
    names = ["reference", "same", "factors", "bf16", "gpu", "gpus"]
    begin(options, Settings(), rows := chosen(Settings(), names))
    for rung in rows:
        for seed in (0, 1):
            folder = measured_folder(tmp_path, rung, seed)
            if rung.name in SECONDS and not (rung.name == "bf16" and seed):
                save_matrices([f"frame {i}" for i in range(7)], matrices(rung.name, seed), folder / "confusions.npz")
                facts = {"file_bytes": 8_400_000, "multiply_adds": 1_212_146_184, "parameters": 5, "weights": None}
                (folder / "facts.json").write_text(json.dumps(facts))
            elif rung.name == "factors":
                folder.mkdir(parents=True)
                (folder / "problem.txt").write_text("no memory")
    times = {"seconds": SECONDS, "calls": 3, "machine": {"torch": "2.15"}}
    (tmp_path / "measure" / "times.json").write_text(json.dumps(times))
    return tmp_path


def test_the_table_holds_medians_and_intervals(ladder: Path) -> None:
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in write_report(ladder).splitlines()[2:]}
    assert list(lines) == ["reference", "same", "factors", "bf16", "gpu", "gpus"]
    reference, same = (np.stack([matrices(name, seed) for seed in (0, 1)]) for name in ("reference", "same"))
    own, change = bootstrap(same), paired_bootstrap(reference, same).mean_iou
    mean = np.mean([scores(matrices("same", seed).sum(0)).mean_iou for seed in (0, 1)])
    assert lines["same"][3] == f"{100 * mean:.1f} ({100 * own.low:.1f} to {100 * own.high:.1f})"
    assert lines["same"][4] == f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    assert lines["same"][5:] == ["50 (45 to 65)", "4", "8.4", "1.21 |"]
    assert lines["reference"][4:7] == ["", "200 (150 to 250)", "1"]
    assert lines["bf16"][5:7] == ["20 (15 to 25)", "10"]
    assert lines["factors"][3] == "no memory"
    assert lines["gpu"][3] in ("needs a GPU", "not measured yet")
    assert "the time of one image stays" in lines["gpus"][3]

    written = json.loads((ladder / "ladder.json").read_text())
    rows = {row["name"]: row for row in written["rows"]}
    assert rows["same"]["mean_iou"] == vars(own)
    assert rows["bf16"]["seeds"] == [0], "of the seeds that are there"
    assert rows["gpus"]["seconds"] is None
    assert "30 steps from scratch, 2 seed(s)" in (ladder / "ladder.md").read_text()
    assert (ladder / "ladder.png").stat().st_size > 10_000


def test_what_is_no_ladder_is_refused(ladder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a ladder"):
        write_report(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="holds a ladder with steps=30"):
        begin(Namespace(output=ladder, steps=31, seeds=[0], overrides=[]), Settings(), EVERY)
    path = measured_folder(ladder, EVERY[0], 0) / "confusions.npz"
    save_matrices([f"other {i}" for i in range(7)], load_matrices(path)[1], path)
    with pytest.raises(InputError, match="validated on different images"):
        write_report(ladder)


def crowded() -> list[dict[str, Any]]:
    """Twenty rungs, as near to each other as runtimes of one network are."""
    rows = []
    for i, rung in enumerate(EVERY[:20]):
        seconds, iou = 0.1 * 0.9 ** (i % 10), 0.5 - 0.02 * (i // 10)
        spread = {"median": seconds, "low": 0.97 * seconds, "high": 1.05 * seconds}
        values = {"value": iou, "low": iou - 0.02, "high": iou + 0.02}
        rows.append({"name": rung.name, "kind": rung.kind, "seconds": spread, "mean_iou": values})
    return rows


def test_names_in_the_picture_cover_neither_each_other_nor_points() -> None:
    figure = draw([*crowded(), {"name": "gpus", "seconds": None}])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = [child for child in axes.get_children() if isinstance(child, Annotation)]
    assert [text.get_text() for text in names].count("gpus") == 0
    assert len(names) == 20
    boxes = [Text.get_window_extent(text) for text in names]
    points = axes.transData.transform([(1 / r["seconds"]["median"], 100 * r["mean_iou"]["value"]) for r in crowded()])
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i]), names[i].get_text()
        assert not any(box.contains(*point) for point in points), names[i].get_text()
        assert axes.bbox.contains(*box.min), names[i].get_text()
        assert axes.bbox.contains(*box.max), names[i].get_text()


def arguments(camvid: Path, *more: str) -> list[object]:
    rows = ("reference", "reuse", "responses", "bf16", "gpus")
    return [
        *("--root", camvid, "--output", camvid.parent / "out"),
        *("--trunk", "alexnet", "--width", "0.05", "--size", "48", "64", "--steps", "2", "--rounds", "2"),
        *("--rows", *rows, *more, "--", "data.batch_size=4", "trainer.accelerator=cpu"),
    ]


def start(camvid: Path) -> subprocess.Popen:
    command = [sys.executable, SCRIPTS / "speed_ladder.py", *arguments(camvid)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=camvid.parent
    )


@pytest.mark.slow
def test_a_ladder_is_stopped_goes_on_and_is_then_left_as_it_is(
    carry_out: Callable, camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = camvid.parent / "out"
    process = start(camvid)
    deadline = time.monotonic() + 200
    while not (out / "train" / "same" / "seed_0" / "config.yaml").exists():  # the second training has begun
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("interrupted; the same command goes on\n")
    trained = (out / "train" / "caffe" / "seed_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns

    code, shown, errors = carry_out(speed_ladder, *arguments(camvid))
    assert code == 0, errors
    assert "2 trainings, 1 of them there already" in shown
    assert (out / "train" / "caffe" / "seed_0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    rows = {row["name"]: row for row in json.loads((out / "ladder.json").read_text())["rows"]}
    assert rows["reuse"]["mean_iou"] == pytest.approx(rows["reference"]["mean_iou"], abs=0.01), "the same scores"
    assert rows["reuse"]["file_bytes"] == rows["reference"]["file_bytes"], "the same weights"
    assert rows["responses"]["parameters"] < rows["bf16"]["parameters"]
    assert "fc6 of rank 24" in rows["responses"]["weights"]
    assert rows["responses"]["multiply_adds"] < rows["bf16"]["multiply_adds"] < rows["reuse"]["multiply_adds"]
    assert all(row["seconds"]["low"] > 0 for row in rows.values() if not row["problem"])
    assert rows["gpus"]["problem"]
    metrics = json.loads((out / "train" / "same" / "seed_0" / "metrics.json").read_text())
    assert rows["bf16"]["mean_iou"]["value"] == pytest.approx(metrics["mean_iou"], abs=0.02), "as training found"
    assert from_pretrained(out / "weights" / "same_responses" / "seed_0").spec.fc6_rank == 24

    scored = measured_folder(out, Rung("reuse", "", ""), 0) / "confusions.npz"
    written = scored.stat().st_mtime_ns
    Measuring(out, camvid, "cpu", rounds=1).run(chosen(Settings("alexnet", 0.05, (48, 64)), ["reuse", "bf16"]), [0])
    assert scored.stat().st_mtime_ns == written


@pytest.mark.slow
def test_an_exported_rung_gives_the_networks_masks(camvid: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = trained("fcn32s_vgg16", input_size=(48, 64))
    model.save_pretrained(tmp_path / "weights")
    onnx = next(rung for rung in EVERY if rung.name == "onnx")
    network = exported(onnx, tmp_path / "weights", file := tmp_path / "onnx" / "model.onnx", camvid)
    assert file.is_file()
    images = torch.randint(256, (1, 3, 48, 64), dtype=torch.uint8)
    with torch.inference_mode():
        agreement = (network.segment_each(images, [(48, 64)])[0] == model.segment(images, (48, 64))[0]).double().mean()
    assert float(agreement) > 0.99
    assert Call(network)(images[0].permute(1, 2, 0).numpy()) > 0
    with pytest.raises(InputError, match="nowhere"):
        exported(onnx, tmp_path / "nowhere", tmp_path / "other" / "model.onnx", camvid)


@pytest.mark.slow
def test_a_failed_training_is_named_and_the_others_are_reported(carry_out: Callable, camvid: Path) -> None:
    code, _, errors = carry_out(speed_ladder, *arguments(camvid, "--processes", "2", "--", "model.dropout=2"))
    assert code == 1
    assert errors.count("failed: ") == 2
    assert "caffe/seed_0.log: fcnseg: dropout=2: expected a probability" in errors
