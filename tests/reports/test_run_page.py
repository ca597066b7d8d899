"""The report of a run: its numbers are those of the run's files, it is one file, and it takes all text for text."""

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate, load_matrices, scores, write_report
from fcnseg.labels import STREET11, LabelSpace
from fcnseg.reports import finish, write_page
from fcnseg.reports.gallery import save_gallery
from tests.reports.pages import Page, logged, outside, pixels


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    """The run `one`, to be changed."""
    return Path(shutil.copytree(runs / "one", tmp_path / "copied", ignore=shutil.ignore_patterns("checkpoints")))


def test_the_scores_are_those_of_metrics_json(runs):
    page, metrics = Page(runs / "one" / "report.html"), read(runs / "one" / "metrics.json")
    (_, tiles), *_ = page.all("dl", class_="tiles")
    for key in ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "pixel_accuracy"):
        assert f"{100 * metrics[key]:.1f} %" in tiles
    rows, total = page.rows("class"), sum(found["pixels"] for found in metrics["classes"].values())
    _, matrices = load_matrices(runs / "one" / "confusions.npz")
    counts = matrices.sum(axis=0)
    for index, (name, found) in enumerate(metrics["classes"].items()):
        iou, _, accuracy, precision, pixels, share, images = rows[name]
        assert iou == ("-" if found["iou"] is None else f"{100 * found['iou']:.1f}")
        assert accuracy == ("-" if found["accuracy"] is None else f"{100 * found['accuracy']:.1f}")
        predicted = counts[:, index].sum()
        assert precision == (f"{100 * counts[index, index] / predicted:.1f}" if predicted else "-")
        assert int(pixels.replace(",", "")) == found["pixels"]
        assert share == f"{100 * found['pixels'] / total:.2f}"
        assert int(images) == sum(matrix[index].any() for matrix in matrices)
    assert rows["mean IoU"][0] == f"{100 * metrics['mean_iou']:.1f}"


def test_what_was_run_is_told_and_how_to_repeat_it(runs):
    page, note = Page(runs / "one" / "report.html"), read(runs / "one" / "run.json")["sessions"][0]
    commands = [text for _, text in page.all("pre", class_="command")]
    assert commands == [" ".join(note["command"].split()), f"fcnseg rerun {runs / 'one'}"]
    domains, metrics = page.rows("trained on"), read(runs / "one" / "metrics.json")
    losses = {name: logged(runs / "one" / "metrics.csv", f"train/loss_{name}")[-1] for name in ("real", "synthetic")}
    for name, loss in losses.items():
        assert domains[name] == ["4", f"{metrics['images_seen'][name]}", f"{loss:.4g}"]
    facts = dict(zip(*([text for _, text in page.all(tag)] for tag in ("dt", "dd")), strict=True))
    assert {"network", "rate", "steps", "images seen", "time"} <= set(facts)
    assert facts["steps"] == str(metrics["step"])
    seen = sum(metrics["images_seen"].values())
    assert facts["images/s, with validation"] == f"{seen / metrics['train_seconds']:.3g}"
    assert facts["most memory, host, of one process"] == f"{metrics['peak_memory']['host'] / 1e9:.2f} GB"
    config = yaml.safe_load((runs / "one" / "config.yaml").read_text())
    assert any(text == " ".join(yaml.safe_dump(config, sort_keys=False).split()) for _, text in page.all("pre"))


def test_curves_end_where_the_log_does(runs):
    page = Page(runs / "one" / "report.html")
    told = {text for _, text in page.all("li")}
    for column, factor in (("train/loss", 1), ("val/loss", 1), ("train/loss_synthetic", 1), ("val/mean_iou", 100)):
        assert f"{column} {factor * logged(runs / 'one' / 'metrics.csv', column)[-1]:.4g}" in told
    titles = [text for _, text in page.all("figcaption")]
    assert {"Loss", "Loss of each domain", "Scores on the validation images, %", "Learning rates"} <= set(titles)


def test_confusion_is_normalised_either_way(runs):
    page = Page(runs / "one" / "report.html")
    _, matrices = load_matrices(runs / "one" / "confusions.npz")
    counts = matrices.sum(axis=0)
    cells = [text for attributes, text in page.all("td") if "--s:" in attributes.get("style", "") or
             attributes.get("class") == "none"]  # fmt: skip
    expected = []
    for total in (counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)):
        shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
        expected += ["" if np.isnan(v) or v < 0.005 else f"{round(100 * v)}" for v in shares.ravel()]
    assert cells == expected
    assert [a["id"] for a, _ in page.all("input", name="normalised")] == ["by-label", "by-prediction"]


def test_the_gallery_goes_from_the_worst_to_the_best_with_the_pictures_of_each(runs):
    page = Page(runs / "one" / "report.html")
    names, matrices = load_matrices(runs / "one" / "confusions.npz")
    iou = {name: scores(matrix).mean_iou for name, matrix in zip(names, matrices, strict=True)}
    assert len(page.all("article")) == len(page.all("input", max="3", step="0.25")) - 1 == 5
    heads = [text for _, text in page.all("h3") if " of 5 " in text]
    ordered = sorted(iou, key=iou.__getitem__)
    assert heads == [f"{i + 1} of 5 {name} {100 * iou[name]:.1f} %" for i, name in enumerate(ordered)]
    pictures = {a["alt"]: pixels(a["src"]) for a, _ in page.all("img") if " of " in a["alt"]}
    assert len(pictures) == 20
    for name in names:
        label, prediction = pictures[f"label of {name}"], pictures[f"prediction of {name}"]
        matrix = np.zeros((11, 11), int)
        np.add.at(matrix, (label[label < 11], prediction[label < 11]), 1)
        assert scores(matrix).mean_iou == pytest.approx(iou[name])
        error = pictures[f"error of {name}"].astype(int)
        wrong = (label != prediction) & (label < 11)
        red = error[..., 0] - error[..., 1] > 60  # JPEG is not exact at edges
        assert (red == wrong).mean() > 0.9


def test_one_file_and_nothing_else_is_needed(runs, copied):
    for path in (*runs.glob("*/report.html"), write_page(copied)):
        page = Page(path)
        assert outside(page) == []
        assert not page.open, "every element is closed"
        assert path.stat().st_size < 15_000_000
        assert page.all("meta", name="viewport")
        for attributes, _ in page.all("a"):
            assert page.all("section", id=attributes["href"].removeprefix("#"))


@pytest.mark.parametrize(
    "text",
    ['<img src="http://a/b.png">', '<link href="a.css">', "<style>a{background:url(b.png)}</style>",
     "<script>alert(1)</script>", '<p onclick="a()"></p>', '<img src="other.png">'],
)  # fmt: skip
def test_what_is_outside_is_found(runs, tmp_path, text):
    """The check itself."""
    source = (runs / "one" / "report.html").read_text()
    (tmp_path / "page.html").write_text(source.replace("</main>", f"{text}</main>"))
    assert outside(Page(tmp_path / "page.html"))


def test_names_and_texts_of_others_are_text(tmp_path, copied):
    """Of classes, images, columns, commands and settings."""
    evil = "</script><script>alert('1')</script>\"'><img src=http://x/ onerror=alert(2)>"
    classes = (evil, *STREET11.classes[1:])
    scenes = Renamed(evil)
    data = SegmentationData({"a": scenes}, scenes, size=(30, 42), num_workers=0)
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=11, width=0.05, input_size=data.size)
    folder = tmp_path / "evil"
    write_report(evaluate(model, data.validation_loader()), model, data, folder, {"checkpoint": evil})
    finish(folder, 24, evaluate(model, data.validation_loader()), model, data)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": evil, "model": {"name": evil}, evil: evil}))
    (folder / "metrics.csv").write_text(f'step,"train/loss_{evil.replace(chr(34), chr(34) * 2)}"\n1,2\n2,3\n')
    session = {"command": evil, "working_directory": evil, "data": {evil: {"samples": 3}, "b": {"samples": 2}}}
    (folder / "run.json").write_text(json.dumps({"sessions": [session]}))
    page = Page(write_page(folder))
    assert outside(page) == []
    assert len(page.all("script")) == 1
    assert page.all("h1") == [({}, evil)]
    assert page.rows("class")[classes[0]][0] != ""
    assert page.rows("trained on")[evil][0] == "3"
    assert next(text for _, text in page.all("pre", class_="command")) == evil
    assert any(text.startswith(f"1 of 1 {evil} ") for _, text in page.all("h3"))


class Renamed:
    """One scene under another name, of which a class has that name too."""

    def __init__(self, name: str) -> None:
        self.scenes = CityScenes(1, size=(40, 56))
        self.name = name
        classes = (name, *STREET11.classes[1:])
        self.label_space = LabelSpace(name, classes, STREET11.palette)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        image, mask, _ = self.scenes[index]
        return image, mask, self.name


def test_the_same_run_gives_the_same_bytes(runs, copied, tmp_path):
    first = write_page(copied).read_bytes()
    assert write_page(copied).read_bytes() == first
    whole = (runs / "one" / "report.html").read_bytes()
    assert write_page(runs / "one", tmp_path / "page.html").read_bytes() == whole, "as at the end of training"

    scenes = CityScenes(3, seed=1, look="real", size=(40, 56))
    data = SegmentationData({"real": scenes}, scenes, size=(30, 42), num_workers=0)
    torch.manual_seed(1)
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=11, width=0.05, input_size=data.size)
    evaluation = evaluate(model, data.validation_loader())
    files = []
    for name in ("a", "b"):
        save_gallery(evaluation, model, data, tmp_path / name, 2)
        files.append((tmp_path / name / "gallery.zip").read_bytes())
    assert files[0] == files[1]


def test_images_are_capped(runs, copied):
    assert len(Page(runs / "other" / "report.html").all("article")) == 3
    assert len(Page(write_page(copied, images=2)).all("article")) == 2
    page = Page(write_page(copied, images=0))
    assert page.all("img") == []
    assert not page.all("section", id="images")


def test_large_pictures_are_left_out(copied, tmp_path):
    """Five images of 3 MB each: three of them fit."""
    large = tmp_path / "large.zip"
    with ZipFile(copied / "gallery.zip") as old, ZipFile(large, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name.endswith(".json") else bytes(750_000))
    large.rename(copied / "gallery.zip")
    page = write_page(copied)
    assert len(Page(page).all("article")) == 3
    assert page.stat().st_size < 15_000_000


@pytest.mark.parametrize(
    "missing",
    [("gallery.zip",), ("run.json",), ("hparams.yaml", "gallery.zip"), ("confusions.npz",), ("metrics.csv",),
     ("config.yaml",), ("metrics.json",), ("gallery.zip", "examples.png"),
     ("run.json", "hparams.yaml", "gallery.zip", "config.yaml", "metrics.csv", "confusions.npz")],
)  # fmt: skip
def test_an_old_or_unfinished_run_has_a_report_too(copied, missing):
    for name in missing:
        (copied / name).unlink()
    page = Page(write_page(copied))
    assert outside(page) == []
    sections = {attributes["id"] for attributes, _ in page.all("section")}
    assert ("confusion" in sections) == (not {"confusions.npz", "metrics.json"} & set(missing))
    assert ("classes" in sections) == ("metrics.json" not in missing)
    assert ("images" in sections) == ({"gallery.zip", "examples.png"} - set(missing) != set())
    assert ("settings" in sections) == ("config.yaml" not in missing)
    assert bool(page.all("p", class_="note")) == ("metrics.json" in missing)


def test_interrupted_sessions_are_parts_of_one_curve_and_broken_lines_are_left_out(copied):
    (copied / "metrics.1.csv").write_text("epoch,step,train/loss\n0,0,4.0\n0,1,nan\n0,2,3.0\n0,3,")
    (copied / "metrics.csv").write_text("epoch,step,train/loss\n0,2,2.5\n0,4,1.25\n0,5,0.5\n0,6")
    (copied / "gallery.zip").write_bytes(b"no archive")
    page = Page(write_page(copied))
    assert "train/loss 0.5" in {text for _, text in page.all("li")}
    lines = [a["points"].split() for a, _ in page.all("polyline") if a["points"] != "0,4 18,4"]
    assert [len(points) for points in lines if len(points) in (2, 3)][:2] == [2, 3]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("metrics.json", "{", "cannot be read as JSON"), ("metrics.json", "[]", "damaged; expected a mapping"),
     ("metrics.json", '{"classes": {"sky": 0.5}}', "damaged; expected the scores of a run"),
     ("calibration.json", '{"temperature": 1}', "damaged; expected temperature, ece_before, "),
     ("confusions.npz", "no", "expected the confusions.npz")],
)  # fmt: skip
def test_a_damaged_file_is_named(copied, name, text, said):
    (copied / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: {said}"):
        write_page(copied)
