"""`fcnseg.train` beside whatever a process has going on, and what it says of mistakes."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import fcnseg
from fcnseg.errors import InputError
from tests.commands.processes import SETTINGS, state

SMALL = (
    *(each for each in SETTINGS if not each.startswith("callbacks.progress")),
    *("data.train.real.length=4", "data.train.synthetic.length=4", "data.val.length=2", "trainer.max_epochs=1"),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def surroundings() -> tuple:
    levels = [logging.getLogger(name).level for name in ("pytorch_lightning", "lightning_fabric")]
    variables = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    return list(sys.argv), list(warnings.filters), levels, variables, HydraConfig.instance().cfg


def test_trains_twice_beside_another_hydra_and_leaves_it_as_it_was(home, capsys):
    (home / "conf").mkdir()
    (home / "conf" / "own.yaml").write_text("answer: 42\n")
    ConfigStore.instance().store(group="model", name="mine", node={"name": "mine"})
    train, models = fcnseg.train, list(ConfigStore.instance().repo["model"])
    with hydra.initialize_config_dir(str(home / "conf"), version_base="1.3"):
        own, before = GlobalHydra.instance().hydra, surroundings()
        first = train(*SMALL, folder="one", seed=1)
        told = capsys.readouterr().out
        second = train(*SMALL, folder="two", seed=1, quiet=True)
        assert capsys.readouterr().out == ""
        assert surroundings() == before
        assert GlobalHydra.instance().hydra is own
        assert hydra.compose("own").answer == 42
    assert list(ConfigStore.instance().repo["model"]) == models
    ConfigStore.instance().repo.pop("model")
    assert "mean IoU" in told
    assert first.mean_iou == second.mean_iou
    assert state(first.folder).keys() == state(second.folder).keys()
    assert all(torch.equal(value, state(second.folder)[name]) for name, value in state(first.folder).items())


def test_the_command_trains_the_same_and_goes_on_with_it(home, fcnseg):
    import fcnseg as package

    run = package.train(*SMALL, folder="python", seed=2, lr_rule="none", stages=None)
    assert fcnseg("train", *SMALL, "folder=command", "seed=2") == 0
    ours, theirs = state(run.folder), state(Path("command"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert fcnseg("train", *SMALL, "folder=python", "seed=2", "resume=auto") == 0
    assert len(json.loads(Path("python/run.json").read_text())["sessions"]) == 1, "nothing was left to train"
    command = json.loads(Path("python/run.json").read_text())["sessions"][0]["command"]
    assert command.startswith("fcnseg train ")
    assert "seed=2" in command


def test_goes_on_with_a_run(home, capsys):
    run = fcnseg.train(*SMALL, folder="run")
    assert fcnseg.train(*SMALL, folder="run", resume="auto").metrics == run.metrics
    assert "nothing left to train" in capsys.readouterr().out
    with pytest.raises(InputError, match="run: holds a run already; resume=auto goes on"):
        fcnseg.train(*SMALL, folder="run")


def test_without_a_folder_it_takes_the_commands(home):
    run = fcnseg.train(*SMALL, quiet=True, name="mine")
    assert run.folder.parent == home / "runs" / "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        "trainer.max_epoch=3",
        "data=camvit",
        "model=3",
        "seed=0,1",
        "a=[1",
        "optimizer.lr=x",
        "data=camvid",
        "--seed=1",
        "resume=nowhere.ckpt",
    ],
)
def test_a_mistake_is_the_line_that_the_command_prints(wrong, fcnseg, capsys, tmp_path):
    import fcnseg as package

    assert fcnseg("train", *SMALL[:3], wrong) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(InputError) as caught:
        package.train(*SMALL[:3], wrong, folder=tmp_path / "none")
    assert f"fcnseg: {caught.value}" == line
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        (["-m"], {}, "-m: expected KEY=VALUE; options"),
        (["trainer=ddp_cpu"], {}, "trainer.devices=2: from Python one process trains"),
        ([], {"seed": {"a": 1}}, "seed={'a': 1}: expected a text, a number"),
        (["data.train.rael.length=3", "data.train.sinthetic.length=3"], {}, "data.train.rael.length: no such key"),
    ],
)
def test_refuses_what_is_the_command_lines_alone(home, overrides, settings, message):
    with pytest.raises(InputError) as caught:
        fcnseg.train(*overrides, **settings)
    assert message in str(caught.value)
