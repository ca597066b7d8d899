"""Several runs: what differs, by how much, and on which images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fcnseg.errors import InputError
from fcnseg.evaluation import load_matrices, paired_bootstrap, scores
from fcnseg.evaluation.comparison import save_matrices
from fcnseg.reports import write_comparison
from fcnseg.reports.comparison import differing, short_names
from fcnseg.reports.files import RunFiles, read_run
from tests.reports.pages import Page, logged, outside, pixels


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Page:
    return Page(write_comparison([runs / "one", runs / "other"], tmp_path_factory.mktemp("page") / "a.html"))


@pytest.fixture(scope="module")
def matrices(runs) -> list[np.ndarray]:
    return [load_matrices(runs / name / "confusions.npz")[1] for name in ("one", "other")]


@pytest.fixture
def copies(runs, tmp_path) -> list[Path]:
    left_out = shutil.ignore_patterns("checkpoints")
    return [Path(shutil.copytree(runs / n, tmp_path / n, ignore=left_out)) for n in ("one", "other")]


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def test_scores_stand_side_by_side_with_their_intervals(runs, page, matrices):
    found = paired_bootstrap(matrices[0][None], matrices[1][None])
    told = [json.loads((runs / name / "metrics.json").read_text()) for name in ("one", "other")]
    rows = page.rows("")
    assert rows["mean IoU %"] == [f"{100 * each['mean_iou']:.1f}" for each in told]
    assert rows["steps"] == [str(each["step"]) for each in told]
    mean = found.mean_iou
    assert mean.value == pytest.approx(told[1]["mean_iou"] - told[0]["mean_iou"])
    expected = f"{points(mean.value)} [{points(mean.low)}, {points(mean.high)}]"
    assert rows["difference of mean IoU, points"] == ["-", expected]
    for index, (name, row) in enumerate(list(page.rows("IoU %").items())[1:]):
        ious = [each["classes"][name]["iou"] for each in told]
        assert row[:2] == ["-" if iou is None else f"{100 * iou:.1f}" for iou in ious]
        each = found.iou[index]
        assert row[2] == (
            "-" if np.isnan(each.value) else f"{points(each.value)} [{points(each.low)}, {points(each.high)}]"
        )


def test_settings_that_differ_are_told_and_no_others(runs, page):
    assert list(page.rows("setting").items())[1:] == [("optimizer.lr", ["0.002", "0.02"])]
    one = read_run(runs / "one")
    assert differing([one, one]) == []


def test_settings_are_compared_as_deep_as_all_runs_have_them():
    def run(**config: object) -> RunFiles:
        return RunFiles(Path("a"), config=config)

    first = run(seed=0, best={"_target_": "a.b.Best", "mode": "max"}, size=[1, 2], name="a", note="")
    other = run(seed=0, best=None, size=[1, 3], name="b", note="", more={"a": 1})
    assert differing([first, run(), other]) == [
        ("best", ["Best", "-", "null"]),
        ("size", ["[1, 2]", "-", "[1, 3]"]),
        ("more", ["-", "-", "{a: 1}"]),
    ]
    deep = run(seed=0, best={"_target_": "a.b.Best", "mode": "min"}, size=[1, 2], note="x")
    assert differing([first, deep]) == [("best.mode", ["max", "min"]), ("note", ["''", "x"])]


def test_curves_lie_over_one_another(runs, page):
    told = {text for _, text in page.all("li")}
    for name in ("one", "other"):
        assert f"{name} {logged(runs / name / 'metrics.csv', 'train/loss')[-1]:.4g}" in told
    titles = [text for _, text in page.all("figcaption")]
    assert titles[:3] == ["val/mean_iou, %", "val/loss", "train/loss"]
    assert "train/loss_synthetic" in titles


def test_wins_and_losses_are_counted_image_by_image(page, matrices):
    iou = np.array([[scores(matrix).mean_iou for matrix in each] for each in matrices])
    gain = iou[1] - iou[0]
    wins, losses = (gain > 0).sum(), (gain < 0).sum()
    text = f"Of 5 images {wins} are better, {losses} worse and {5 - wins - losses} the same, by mean IoU."
    assert text in [each for _, each in page.all("p")]
    assert len(page.all("circle", r="3")) == 5
    for head, count, sign in (("Largest wins", wins, 1), ("Largest losses", losses, -1)):
        if count:
            rows = list(page.rows(head).values())[1:]
            assert [row[2] for row in rows] == [points(value) for value in sign * np.sort(-sign * gain)[:count] * -1]


def test_pictures_of_both_stand_beside_each_other(runs, page):
    pictures = {a["alt"]: pixels(a["src"]) for a, _ in page.all("img")}
    assert len(pictures) == 4 * 3, "of the three that the other run has kept"
    own = {a["alt"]: pixels(a["src"]) for a, _ in Page(runs / "other" / "report.html").all("img")}
    for alt, picture in own.items():
        if alt.startswith("prediction"):
            np.testing.assert_array_equal(pictures[alt.replace("prediction", "this run")], picture)


def test_it_is_one_file_and_the_same_each_time(runs, page, tmp_path):
    assert outside(page) == []
    again = write_comparison([runs / "one", runs / "other"], tmp_path / "again.html")
    assert again.read_text() == page.source
    three = Page(write_comparison([runs / "one", runs / "other", runs / "scores"], tmp_path / "three.html"))
    assert outside(three) == []
    rows = three.rows("")
    assert len(rows["mean IoU %"]) == 3
    assert rows["difference of mean IoU, points"][2].startswith("+0.0 [+0.0"), "the evaluation is of the first one"


def test_images_in_another_order_are_brought_together(copies, page):
    names, matrices = load_matrices(copies[1] / "confusions.npz")
    save_matrices(names[::-1], matrices[::-1], copies[1] / "confusions.npz")
    rows = Page(write_comparison(copies, copies[0] / "a.html")).rows("")
    assert rows["difference of mean IoU, points"] == page.rows("")["difference of mean IoU, points"]
    save_matrices(names[1:], matrices[1:], copies[1] / "confusions.npz")
    found = Page(write_comparison(copies, copies[0] / "a.html"))
    assert any(text.startswith("Of 4 images ") for _, text in found.all("p"))


def test_what_cannot_be_paired_is_said(copies):
    names, matrices = load_matrices(copies[1] / "confusions.npz")
    path = copies[1] / "confusions.npz"

    def said() -> str:
        ((_, text),) = Page(write_comparison(copies, copies[0] / "a.html")).all("p", class_="note")
        return text

    save_matrices([f"other {name}" for name in names], matrices, path)
    assert said() == "other is not compared image by image: they have no image in common."
    save_matrices(["same"] * len(names), matrices, path)
    assert said() == "other is not compared image by image: they are of other images, of which some have one name."
    save_matrices(names, matrices + 1, path)
    assert said() == "other is not compared image by image: the labels of their images differ."
    path.unlink()
    assert said() == "other is not compared image by image: one of the two has no confusions.npz."


def test_runs_are_called_by_what_is_not_common(tmp_path):
    assert short_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert short_names([tmp_path, tmp_path / "fine"]) == [tmp_path.name, "fine"]


def test_a_run_named_twice_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match="one: named twice"):
        write_comparison([runs / "one", runs / "other", runs / "other" / ".." / "one"], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
