"""Sweeps whose runs other processes carry out: joblib's, jobs of submitit, and settings that Optuna looks for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import submitit
import torch
import yaml

from fcnseg.commands.configuration import explain
from tests.commands.processes import SETTINGS, in_a_process, start, state

TINY = (
    *SETTINGS,
    "data.size=[24,32]",
    "data.train.real.length=8",
    "data.train.synthetic.length=8",
    "data.val.length=2",
)
SHORT = (*TINY, "trainer.max_steps=2")

WITHOUT_PLUGINS = """
import sys
sys.modules["hydra_plugins"] = None  # as where none is installed
from hydra.core.global_hydra import GlobalHydra
from fcnseg.commands.cli import main

for setting in sys.argv[1:]:
    GlobalHydra.instance().clear()
    sys.argv = ["fcnseg", "train", "-m", setting, "seed=0,1"]
    try:
        main()
    except SystemExit as stop:
        print("exit code", stop.code, file=sys.stderr)
"""


def curve_is_longer_than(steps: int, run: Path, process: subprocess.Popen) -> None:
    """Wait until a run has taken more steps; with every step in its metrics.csv."""
    deadline = time.monotonic() + 120
    while not ((run / "metrics.csv").is_file() and len((run / "metrics.csv").read_text().splitlines()) > steps):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_job_of_submitit_trains_on_several_processes(tmp_path):
    """Lightning starts the second one from a process that is not the command's own."""
    sweep = ["hydra/launcher=local", "trainer=ddp_cpu", "seed=1", "hydra.sweep.dir=all"]
    process = in_a_process(["train", "-m", *SHORT, *sweep], tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (log,) = (tmp_path / "all" / ".submitit").glob("*/*_log.out")
    assert "trainer     2 x cpu" in log.read_text()
    assert (tmp_path / "all" / "0" / "metrics.json").is_file()


@pytest.mark.slow
def test_a_job_that_is_preempted_is_begun_again_and_learns_the_same(fcnseg, tmp_path):
    """Submitit's signal in the midst of an epoch."""
    long = [*TINY, "data.steps_per_epoch=60", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
    order = ["train", "-m", *long, "hydra/launcher=local", "hydra.sweep.dir=all", "resume=auto"]
    process = in_a_process(order, tmp_path)
    curve_is_longer_than(5, tmp_path / "all" / "0", process)
    (controller,) = psutil.Process(process.pid).children()
    (job,) = controller.children()
    job.send_signal(signal.SIGUSR2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (log,) = (tmp_path / "all" / ".submitit").glob("*/*_log.out")
    assert "goes on     all/0" in log.read_text()
    interrupted = len((tmp_path / "all" / "0" / "metrics.1.csv").read_text().splitlines())
    assert 5 < interrupted < 60
    assert fcnseg("train", *long, "hydra.run.dir=alone") == 0
    alone, both = state(tmp_path / "alone"), state(tmp_path / "all" / "0")
    assert all(torch.equal(alone[name], both[name]) for name in alone)


@pytest.mark.slow
def test_joblib_tells_what_was_wrong_with_a_run_and_finishes_the_others(tmp_path):
    sweep = ["hydra/launcher=processes", "hydra.sweep.dir=all", "optimizer.lr=1e-3,-1"]
    process = start(["fcnseg", "train", "-m", *SHORT, *sweep], tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1] == "fcnseg: optimizer: Invalid learning rate: -1"
    assert "Traceback" not in errors
    assert [path.parent.name for path in (tmp_path / "all").glob("*/metrics.json")] == ["0"]


def test_optuna_looks_for_the_highest_mean_iou(fcnseg, tmp_path):
    """Some of the rates are too high for it."""
    looked_for = ["hydra/sweeper=search", "optimizer.lr=tag(log, interval(3e-5, 30))"]
    trials = ["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=0", "hydra.sweep.dir=all"]
    assert fcnseg("train", "-m", *SHORT, *looked_for, *trials) == 0
    runs = list((tmp_path / "all").glob("*/metrics.json"))
    scores = {path.parent: json.loads(path.read_text())["mean_iou"] for path in runs}
    assert len(scores) == 3
    assert len(set(scores.values())) > 1
    found = yaml.safe_load((tmp_path / "all" / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(max(scores.values()))
    best = [run for run, score in scores.items() if score == max(scores.values())]
    rates = [yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"] for run in best]
    assert found["best_params"]["optimizer.lr"] in rates


def test_optuna_names_what_is_wrong_with_all_runs(fcnseg, tmp_path, capsys):
    assert fcnseg("train", "-m", *SHORT, "hydra/sweeper=search", "hydra.sweeper.n_trials=1", "optimizer.lr=-1") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "fcnseg: optimizer: Invalid learning rate: -1"


def test_a_job_that_ends_without_a_result_is_named(tmp_path):
    executor = submitit.LocalExecutor(tmp_path / "%j")
    executor.update_parameters(timeout_min=1)
    job = executor.submit(os._exit, 3)
    with pytest.raises(submitit.core.utils.UncompletedJobError) as caught:
        job.result()
    log = tmp_path / job.job_id / f"{job.job_id}_0_log.err"
    expected = f"job {job.job_id} has ended without a result, see {log}; resume=auto goes on"
    assert log.is_file()
    assert explain(caught.value, "train", []) == expected


def test_a_plugin_that_is_not_installed_is_named(tmp_path):
    settings = {
        "hydra/launcher=slurm": "hydra/launcher=submitit_slurm",
        "hydra/launcher=local": "hydra/launcher=submitit_local",
        "hydra/launcher=processes": "hydra/launcher=joblib",
        "hydra/sweeper=search": "hydra/sweeper=optuna",
    }
    command = [sys.executable, "-c", WITHOUT_PLUGINS, *settings]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=100
    )
    lines = done.stderr.splitlines()
    for name in settings.values():
        line = f"fcnseg: {name}: a plugin of Hydra's that is not installed; pip install 'fcnseg[sweep]'"
        assert lines[lines.index(line) + 1] == "exit code 2"
