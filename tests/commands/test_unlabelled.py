"""Images without labels as a domain, from the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts

SIZE = (24, 36)
QUICK = (
    "model=fcn8s_vgg16_bn", "model.width=0.05", f"data.size=[{SIZE[0]},{SIZE[1]}]", "data.batch_size=4",
    "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.progress=null",
    "callbacks.learning_rate=null", "hydra.run.dir=run",
)  # fmt: skip


@pytest.fixture
def roots(tmp_path: Path) -> list[str]:
    real = layouts.cityscapes(tmp_path / "cityscapes", {"train/bonn": 4, "val/lindau": 1}, SIZE)
    return [f"data.root.cityscapes={real}", f"data.root.gta5={layouts.gta5(tmp_path / 'gta5', 4, 0, SIZE)}"]


@pytest.mark.slow
def test_a_domain_without_labels_trains_beside_one_that_has_them(
    fcnseg: Callable[..., int], roots: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = "data.train.cityscapes.labels=none"
    options = ["loss.class_weights=median_frequency", "loss.domain_weights={cityscapes: 0.5, gta5: 0.5}"]
    steps = ["trainer.log_every_n_steps=1", "data.steps_per_epoch=2"]
    assert fcnseg("train", "data=gta5_cityscapes_bgc", *roots, target, *options, *steps, *QUICK) == 0
    shown = capsys.readouterr().out
    assert "train on 4 cityscapes without labels, 4 gta5 (a batch: 2 cityscapes, 2 gta5)" in shown
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    losses = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    losses = [row for row in losses if row["train/loss"]]
    assert [float(row["train/loss_cityscapes"]) for row in losses] == [0, 0]
    assert all(0 < float(row["train/loss"]) == pytest.approx(0.5 * float(row["train/loss_gta5"])) for row in losses)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images_seen"] == {"cityscapes": 4, "gta5": 4}
    assert metrics["mean_iou"] >= 0


def test_without_any_label_there_is_one_line(
    fcnseg: Callable[..., int], roots: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = f"data.root={tmp_path / 'cityscapes'}"

    def complaint(*arguments: str) -> str:
        assert fcnseg("train", *arguments, *QUICK) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fcnseg: ")]
        return line

    expected = (
        "fcnseg: train: no labels to learn from in 'cityscapes'; expected a labelled domain beside unlabelled images"
    )
    assert complaint("data=cityscapes", root, "data.train.cityscapes.labels=none") == expected
    only = ["data.train.cityscapes.labels=none", "data.domains=[cityscapes]"]
    assert complaint("data=gta5_cityscapes_bgc", *roots, *only) == expected
    assert re.fullmatch(
        r"fcnseg: validation: its images have no labels to compare with; expected labelled ones",
        complaint("data=cityscapes", root, "data.val.labels=none"),
    )


def test_inspection_tells_no_mistake_of_images_that_need_no_label(
    fcnseg: Callable[..., int], roots: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = "data.train.cityscapes.labels=none"
    assert fcnseg("data", "inspect", "data=gta5_cityscapes_bgc", *roots, target, "output=out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["splits"]["train/cityscapes"]["pairs"] == 4
    assert "empty label" not in json.dumps(report)
