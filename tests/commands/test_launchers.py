"""Processes that torchrun, srun or a person starts: the first decides, also where each has a disk of its own."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from PIL import Image

from tests.commands.processes import SETTINGS, in_a_process, start, state

LENGTHS = ("data.train.real.length=8", "data.train.synthetic.length=10", "data.val.length=4")
TRAIN = ["train", *SETTINGS, "trainer=ddp_cpu", "trainer.log_every_n_steps=1"]
SLURM = dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"), 2) | {
    "SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_JOB_ID": 4242, "SLURM_STEP_ID": 0, "SLURM_JOB_NAME": "train",
    "SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost",
}  # fmt: skip


def by_srun(arguments: list[str], folder: Path) -> list[tuple[int, str, str]]:
    """Exit codes and what both processes have written; they find in the environment what SLURM puts there."""
    processes = [in_a_process(arguments, folder, **SLURM, SLURM_PROCID=i, SLURM_LOCALID=i) for i in range(2)]
    return [(process.wait(timeout=300), *process.communicate()) for process in processes]


def on_two_machines(arguments: list[str], folders: tuple[Path, Path], anew: bool = False) -> list[tuple[int, str, str]]:
    """As by hand on two machines; each has its folder for a disk. With `anew` the processes import torch themselves."""
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_free_network_port()}
    machines = [*arguments, "trainer.num_nodes=2", "trainer.devices=1"]
    begin = partial(start, ["fcnseg", *machines]) if anew else partial(in_a_process, machines)
    processes = [begin(folder, **settings, NODE_RANK=i) for i, folder in enumerate(folders)]
    return [(process.wait(timeout=300), *process.communicate()) for process in processes]


@pytest.mark.slow
def test_torchrun_trains_a_sweep_over_stages(tmp_path):
    order = ["-m", "regime=finetune,bgc", "trainer.max_steps=2", "name=y"]
    torchrun = ["torchrun", "--nproc-per-node=2", "-m", "fcnseg"]
    process = start([*torchrun, TRAIN[0], *order, *TRAIN[1:], *LENGTHS], tmp_path)
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert shown.count("2 x cpu") == 3, "three trainings, and one process speaks"
    (sweep,) = (tmp_path / "runs" / "y").iterdir()
    finished = {str(path.parent.relative_to(sweep)) for path in sweep.rglob("metrics.json")}
    assert finished == {"0/synthetic", "0/real", "0", "1"}


@pytest.mark.slow
def test_srun_trains_in_one_folder(tmp_path):
    (code, shown, errors), other = by_srun([*TRAIN, *LENGTHS, "trainer.max_steps=1"], tmp_path)
    assert code == 0, errors[-3000:]
    assert other == (0, "", "")
    assert "trainer     2 x cpu" in shown
    assert len(list((tmp_path / "runs").glob("*/*/metrics.json"))) == 1
    assert len(list((tmp_path / "runs").glob("*/*"))) == 1


@pytest.mark.slow
def test_a_count_that_is_not_the_launcher_s_is_refused_by_all(tmp_path):
    (code, _, errors), other = by_srun([*TRAIN, *LENGTHS, "trainer.devices=3"], tmp_path)
    assert code == 2
    assert errors.startswith("fcnseg: srun has started 2 processes, trainer.devices times trainer.num_nodes is 3;")
    assert len(errors.splitlines()) == 1
    assert other == (2, "", "")


@pytest.mark.slow
def test_a_run_goes_on_from_the_first_disk_alone(fcnseg, tmp_path):
    """On one process as far as the checkpoint, on two machines from there, and once on one process to the end."""
    more = [*TRAIN, *LENGTHS, "hydra.run.dir=run", "optimizer.lr=2e-4"]
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    assert fcnseg(*more, "trainer.devices=1", "trainer.max_steps=2") == 0
    for folder in (here, tmp_path / "alone"):
        shutil.copytree(tmp_path / "run", folder / "run")
    go_on = [*more, "resume=run/checkpoints/last.ckpt", "trainer.max_steps=4"]
    (code, _, errors), (other, _, _) = on_two_machines(go_on, (here, there))
    assert (code, other) == (0, 0), errors[-3000:]
    assert [path.name for path in (there / "run").rglob("*") if path.is_file()] == ["last.ckpt"], (
        "nothing but its start"
    )
    assert fcnseg(*go_on, "trainer.devices=1") == 0
    before, alone, both = (state(folder / "run") for folder in (there, tmp_path, here))
    update = sum(float((alone[name] - before[name]).square().sum()) for name in alone) ** 0.5
    apart = sum(float((alone[name] - both[name]).square().sum()) for name in alone) ** 0.5
    assert apart < 1e-4 * update


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_a_mistake_on_another_machine_is_told_by_the_first(camvid, tmp_path, missing):
    """Images that are not there, which shows before the training, or a wrong label, which shows in it."""
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(camvid, here / "camvid")
    shutil.copytree(camvid, there / "camvid")
    for label in (there / "camvid" / "trainannot").iterdir():
        Image.fromarray(np.full((48, 64), 42, np.uint8)).save(label)
    if missing:
        shutil.rmtree(there / "camvid")
    more = ["data=camvid", "data.root=camvid", "hydra.run.dir=run", "trainer.max_steps=1"]
    # A connection that is lost in the midst torch's C++ tells of as well, unless it is told not to when it is loaded.
    (code, _, errors), (other, _, others_errors) = on_two_machines([*TRAIN, *more], (here, there), anew=not missing)
    assert (code, other) == (2, 2), errors[-3000:]
    last = errors.strip().splitlines()[-1]
    expected = "camvid: no such folder" if missing else "label value 42 is outside the label space"
    assert last.startswith("fcnseg: ")
    assert expected in last
    assert others_errors == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "nothing tells of other processes; expected torchrun, srun or NODE_RANK"),
        (
            {"NODE_RANK": 0},
            "trainer.num_nodes: a value is missing; NODE_RANK does not tell how many machines there are",
        ),
    ],
)
def test_what_ddp_multinode_is_not_told(fcnseg, monkeypatch, capsys, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert fcnseg(*TRAIN, "trainer=ddp_multinode") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_nobody_answers(tmp_path):
    process = in_a_process([*TRAIN, "trainer.num_nodes=2"], tmp_path, NODE_RANK=1)
    shown, errors = process.communicate(timeout=100)
    assert (process.returncode, shown) == (2, "")
    assert errors == (
        "fcnseg: MASTER_ADDR: a value is missing; all processes meet at MASTER_ADDR:MASTER_PORT of the first\n"
    )
