"""Validation by a Lightning trainer without any settings of ours, on one process and on two."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcnseg.data import CityScenes

PLAIN_VALIDATION = """
import json
import sys
import pytorch_lightning as pl
import torch
import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.training import SegmentationModule

torch.manual_seed(0)
module = SegmentationModule(fcnseg.create_model("fcn32s_vgg16", num_classes=11, width=0.05))
torch.nn.init.normal_(module.model.score_fr.weight)
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
processes = int(sys.argv[1])
trainer = pl.Trainer(accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", **options)
for length in (7, 1):
    data = SegmentationData({}, CityScenes(length, seed=1, size=(24, 32)), size=(24, 32), num_workers=0)
    (logged,) = trainer.validate(module, data, verbose=False)
    if trainer.is_global_zero:
        print(json.dumps([logged["val/loss"], *module.last_scores.pixels]))
if processes > 1:
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_a_plain_trainer_on_two_processes_scores_every_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without use_distributed_sampler=False, which few would think of; one image on two processes as well."""
    script = tmp_path / "validate.py"
    script.write_text(PLAIN_VALIDATION)
    monkeypatch.setattr(sys, "argv", [str(script), "1"])
    runpy.run_path(str(script))
    shown = [capsys.readouterr().out]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")}
    command = [sys.executable, script, "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    shown.append(done.stdout)
    found = [[json.loads(line) for line in text.splitlines() if line.startswith("[")] for text in shown]
    scenes = CityScenes(7, seed=1, size=(24, 32))
    for one, two, length in zip(*found, (7, 1), strict=True):
        counted = np.bincount(np.concatenate([scenes[i][1].ravel() for i in range(length)]), minlength=256)[:11]
        assert one[1:] == two[1:] == counted.tolist()
        assert two[0] == pytest.approx(one[0], rel=1e-6)
        assert one[0] > 0.1
