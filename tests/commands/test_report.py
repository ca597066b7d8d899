"""`fcnseg report`: where pages go and what is refused; and how training and evaluation come to theirs."""

import os
import shutil
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fcnseg.commands.cli import with_runs
from tests.commands.processes import SETTINGS
from tests.reports.pages import Page

QUICK = (
    *("train", *SETTINGS, "data.train.real.length=2", "data.train.synthetic.length=2", "data.val.length=2"),
    *("data.size=[24,32]", "trainer.max_steps=1", "trainer.num_sanity_val_steps=0"),
)


def test_pages_are_written_where_it_says(fcnseg, capsys, tmp_path):
    names = ["lr=1, it's", "b"]
    for name in names:
        assert fcnseg(*QUICK, "hydra.run.dir=first") == 0
        Path("runs").mkdir(exist_ok=True)
        Path("first").rename(f"runs/{name}")
    for name in names:
        Path(f"runs/{name}/report.html").unlink()
        capsys.readouterr()
        assert fcnseg("report", f"runs/{name}") == 0, capsys.readouterr().err
        assert capsys.readouterr().out == f"report  runs/{name}/report.html\n"
        assert Page(Path(f"runs/{name}/report.html")).all("h1")
    assert fcnseg("report", *(f"runs/{name}" for name in names)) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == "report  runs/comparison.html\n"
    (heads,) = [row for head, row in Page(Path("runs/comparison.html")).rows("").items() if not head]
    assert heads == names
    assert fcnseg("report", "runs/b", "output=out") == 0
    assert fcnseg("report", f"output={tmp_path}/new/page.html", "runs/b", "images=0") == 0
    assert Page(tmp_path / "new" / "page.html").all("img") == []
    assert capsys.readouterr().out == "report  out/report.html\nreport  new/page.html\n"

    shutil.copytree("runs/b", "runs/b/fine")  # as a stage of it would lie
    before = Path("runs/b/report.html").read_bytes()
    assert fcnseg("report", "runs/b", "runs/b/fine") == 0
    assert Path("runs/b/report.html").read_bytes() == before, "the run's own"
    assert Path("runs/b/comparison.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "runs: a value is missing; expected folders, as in: fcnseg report runs/NAME/TIME"),
        (("nowhere",), "nowhere: no such folder; expected the folder of a run"),
        (("file",), "file: a file; expected the folder of a run"),
        (("empty",), "empty: neither config.yaml, metrics.csv nor metrics.json; expected the folder of a run"),
        (("run", "run"), "run: named twice; expected the folders of different runs"),
        (("run", "images=-1"), "images=-1: expected a whole number from 0 on"),
        (("run", "images=few"), "images=few: expected a whole number from 0 on"),
        (("run", "output=file"), "output=file/report.html: cannot be written"),
        (("run", "picture=1"), "picture: no such key"),
    ],
)
def test_a_mistake_ends_in_one_line(fcnseg, capsys, arguments, said):
    for folder in ("empty", "run"):
        Path(folder).mkdir()
    Path("run/metrics.csv").write_text("epoch,step,train/loss\n0,1,2.5\n")
    Path("file").touch()
    assert fcnseg("report", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fcnseg: {said}")


@pytest.mark.parametrize(
    "name", ["a", "a b", "a,b", "it's", "[a]", "\\", "a\\'", "x=1", "$HOME", '"', "{a: b}", "null"]
)
def test_any_folder_may_be_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    arguments = with_runs(["images=2", name, "b", "--info"])
    assert arguments[1:] == ["images=2", "--info"]
    (override,) = OverridesParser.create().parse_overrides(arguments[:1])
    assert override.key_or_group == "runs"
    assert [getattr(each, "text", each) for each in override.value()] == [name, "b"]


def test_no_report_where_none_is_wanted(fcnseg, capsys):
    assert fcnseg(*QUICK, "hydra.run.dir=run", "report.images=-3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "fcnseg: report.images=-3: expected a whole number from 0 on, or report=null for no report"
    assert not Path("run/config.yaml").exists()
    assert fcnseg(*QUICK, "hydra.run.dir=run", "report=null") == 0
    assert Path("run/metrics.json").is_file()
    assert not Path("run/report.html").exists()
    assert not Path("run/gallery.zip").exists()
    assert fcnseg(*QUICK, "hydra.run.dir=none", "report.images=0") == 0
    assert Path("none/report.html").is_file()
    assert not Path("none/gallery.zip").exists()


def test_a_report_that_cannot_be_written_costs_no_run(fcnseg, capsys):
    Path("run").mkdir()
    Path("run/calibration.json").write_text("[]")  # which the report reads
    assert fcnseg(*QUICK, "hydra.run.dir=run") == 0
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.endswith("calibration.json: damaged; expected a mapping")
    assert last.startswith("not written ")
    assert "scores and pictures  run" in said.out
    assert Path("run/metrics.json").is_file()
    assert not Path("run/report.html").exists()


def test_the_page_of_an_evaluation(fcnseg):
    settings = ("device=cpu", "data.val.length=2", "data.size=[24,32]", "hydra.run.dir=scores", "calibrate=true")
    assert fcnseg("evaluate", "checkpoint=demo", *settings, "report.images=1") == 0
    page = Page(Path("scores/report.html"))
    assert "fcnseg evaluation" in [text for _, text in page.all("p", class_="kind")]
    titles = [text for _, text in page.all("figcaption")]
    assert "Accuracy over confidence" in titles
    assert len(page.all("article")) == 1
    assert any(text == "demo" for _, text in page.all("dd"))
