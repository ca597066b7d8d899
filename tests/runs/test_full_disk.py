"""A disk that fills up at any moment of a run: one line, nothing that is half written, and a run that goes on."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning import Callback

from fcnseg.training.checkpoints import is_whole
from tests.commands.processes import SETTINGS


class Fill(Callback):
    """Leaves no byte on the run's disk at the first call of one of Lightning's hooks after the first epoch."""

    def __init__(self, hook: str, folder: str) -> None:
        self.folder = Path(folder)
        setattr(self, hook, self._fill)

    def _fill(self, trainer, pl_module, *_) -> None:
        if trainer.current_epoch == 0 or (self.folder.parent / "filled").exists():
            return
        (self.folder.parent / "filled").touch()
        try:
            with (self.folder.parent / "filling").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - which ends the loop


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_epoch_start", "on_fit_end"])
def test_a_disk_that_fills_up_costs_nothing_but_time(fcnseg, disk, capsys, hook):
    home = disk(64)
    train = ["train", *SETTINGS, f"hydra.run.dir={home}/run", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    train = [word for word in train if word != "logger.tensorboard=null"]
    train += ["data.train.real.length=4", "data.train.synthetic.length=4", "data.val.length=1", "resume=auto"]
    fill = f"+callbacks.fill={{_target_: tests.runs.test_full_disk.Fill, hook: {hook}, folder: '${{folder}}'}}"
    assert fcnseg(*train, fill) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.strip().splitlines()[-1].endswith("No space left on device")
    checkpoints = list((home / "run" / "checkpoints").glob("*.ckpt"))
    assert checkpoints
    assert all(map(is_whole, checkpoints))
    for path in (home / "run").rglob("*.json"):
        json.loads(path.read_text())
    assert not list((home / "run").glob("**/.*")), "no file that was begun"
    (home / "filling").unlink()
    assert fcnseg(*train, fill) == 0, capsys.readouterr().err
    with np.load(home / "run" / "confusions.npz") as confusions:
        assert len(confusions["matrices"]) == 1
