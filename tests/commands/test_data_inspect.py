"""`fcnseg data inspect`: what it reports of folders, of a dataset.yaml and of a data config, and its exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., int]


def report(folder: str | Path = "out") -> dict[str, int]:
    """The kinds of findings and how many there are of each."""
    findings = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))["findings"]
    return {finding["kind"]: finding["count"] for finding in findings}


def folders(camvid: Path) -> list[str]:
    train, val = (f"images={camvid}/train labels={camvid}/trainannot", f"val_images={camvid}/val")
    return [*train.split(), val, f"val_labels={camvid}/valannot", "classes=street11", "output=out"]


def test_a_clean_dataset_ends_well_with_pictures(fcnseg: Run, camvid: Path, capsys) -> None:
    assert fcnseg("data", "inspect", *folders(camvid)) == 0
    shown = capsys.readouterr()
    assert "8 train, 4 val pairs, 11 classes of street11" in shown.out
    assert "error" not in shown.out + shown.err
    assert not {kind for kind in report() if not kind.startswith("class")}
    for name in ("contact_sheet.png", "classes.png"):
        with Image.open(Path("out") / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_all_ways_to_name_a_dataset_find_the_same(fcnseg: Run, camvid: Path) -> None:
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(next((camvid / "trainannot").iterdir()))
    settings = folders(camvid)[:-1]
    assert fcnseg("data", "inspect", *settings, "output=a") == 2
    assert fcnseg("data", "inspect", "data=camvid", f"data.root={camvid}", "output=b") == 2
    assert report("a") == report("b")
    assert report("a")["value outside the label space"] == 1
    assert fcnseg("data", "create", *settings, "skip_bad=true", "output=dataset.yaml") == 0
    assert fcnseg("data", "inspect", "dataset=dataset.yaml", "output=c") == 0
    assert fcnseg("data", "inspect", "data=described", "data.root=dataset.yaml", "output=d") == 0
    assert report("c") == report("d")
    assert "value outside the label space" not in report("c")


def test_errors_end_with_exit_code_2_and_one_line(fcnseg: Run, camvid: Path, capsys) -> None:
    label = sorted((camvid / "trainannot").iterdir())[2]
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(label)
    (camvid / "train" / "[bold]alone.png").write_bytes(b"")
    assert fcnseg("data", "inspect", *folders(camvid)) == 2
    shown = capsys.readouterr()
    assert shown.err.strip() == "fcnseg: training would fail: 2 errors; out/report.json has all"
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert [line.split()[0] for line in lines if line.startswith(("error", "warning", "note"))][:2] == ["error"] * 2
    assert "[bold]alone.png" in shown.out
    assert "99 on 3072 pixels" in " ".join(shown.out.split())
    assert max(map(len, lines)) <= 150
    assert "\x1b" not in shown.out, "no colours in a pipe"


def test_a_dataset_yaml_whose_files_went_away_is_reported(fcnseg: Run, camvid: Path) -> None:
    assert fcnseg("data", "create", *folders(camvid)[:-1], "output=dataset.yaml") == 0
    for path in sorted((camvid / "val").iterdir())[:3]:
        path.unlink()
    assert fcnseg("data", "inspect", "dataset=dataset.yaml", "output=out") == 2
    assert report()["unreadable image"] == 3


def test_parts_of_a_domain_are_inspected_by_their_own_files(fcnseg: Run, camvid: Path) -> None:
    """Of eight pairs the third one is bad: it is in the first half, and not in the second."""
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(sorted((camvid / "trainannot").iterdir())[2])
    for start, errors in ((0.0, 1), (0.5, 0)):
        part = f"data.parts={{camvid: {{share: 0.5, start: {start}}}}}"
        settings = ["data=camvid", f"data.root={camvid}", part, f"output=from_{start}"]
        assert fcnseg("data", "inspect", *settings) == 2 * errors
        assert report(f"from_{start}").get("value outside the label space", 0) == errors


def test_drawn_scenes_and_several_domains_are_inspected(fcnseg: Run) -> None:
    small = ["data=citygen", "data.size=[48,64]", "data.train.real.length=3", "data.train.synthetic.length=3"]
    assert fcnseg("data", "inspect", *small, "data.val.length=2", "output=out") == 0
    splits = json.loads(Path("out/report.json").read_text())["splits"]
    assert {name: split["pairs"] for name, split in splits.items()} == {
        "train/real": 3,
        "train/synthetic": 3,
        "val": 2,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "nothing to inspect; expected dataset=dataset.yaml, or data=camvid data.root=PATH, or images=FOLDER"),
        (["data=camvid"], "data.root: a value is missing"),
        (["dataset=x.yaml"], "x.yaml: no such file; fcnseg data create writes one"),
        (["dataset=x.yaml", "images=y"], "several datasets to inspect"),
        (["data=camvit", "data.root=x"], "data=camvit: no such option; did you mean camvid"),
        (["near=x", "images=y", "labels=z", "classes=voc21"], "y: no such folder"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(fcnseg: Run, capsys, settings, message) -> None:
    assert fcnseg("data", "inspect", *settings) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("command", ["create", "inspect"])
def test_the_commands_explain_themselves(fcnseg: Run, capsys, command: str) -> None:
    assert fcnseg("data", command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"fcnseg data {command}: " in shown
    assert f"  fcnseg data {command} images=FOLDER labels=FOLDER" in shown
