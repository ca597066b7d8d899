"""The pieces of a recipe from the command line, together, and a loss of one's own as the README has it."""

import csv
import re
import textwrap
from pathlib import Path

import pytest
import torch

from fcnseg.training.averaging import CURRENT

README = Path(__file__).parents[2] / "README.md"
SMALL = (
    "train", "data=camvid", "model=fcn8s_vgg16_bn", "model.width=0.05", "data.size=[24,32]", "data.batch_size=4",
    "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1",
    "callbacks.progress=null", "logger.tensorboard=null", "hydra.run.dir=run",
)  # fmt: skip


def rows() -> list[dict[str, str]]:
    with Path("run/metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("loss", ["loss=lovasz", "loss=ohem", "loss.label_smoothing=0.1"])
def test_all_pieces_together(fcnseg, camvid, loss):
    pieces = ["callbacks.ema.decay=0.9", "deep_supervision=0.4", "scheduler=cosine", loss]
    data = ["data.augment.rare_crops=0.5", "data.paste=0.5", "loss.class_weights=sqrt_median_frequency"]
    assert fcnseg(*SMALL, f"data.root={camvid}", *pieces, *data) == 0
    found = rows()
    assert sum(float(row["train/loss"] or 0) > 0 for row in found) == 2
    assert any(0 < float(row["val/largest_share"] or 0) <= 1 for row in found)
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True).keys() >= {CURRENT, "state_dict"}


def test_a_loss_of_ones_own(fcnseg, camvid, tmp_path, monkeypatch):
    code = re.search(r"\n    class Tversky.*?\n\n(?! )", README.read_text(), re.S)
    assert code
    (tmp_path / "my_losses.py").write_text("import torch\n\n" + textwrap.dedent(code.group()))
    monkeypatch.syspath_prepend(tmp_path)
    own = ["loss=custom", "loss._target_=my_losses.Tversky", "+loss.alpha=0.3"]
    assert fcnseg(*SMALL, f"data.root={camvid}", *own) == 0
    losses = [float(row["train/loss"]) for row in rows() if row["train/loss"]]
    assert len(losses) == 2
    assert all(0 < loss < 1 for loss in losses)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=custom"], "loss._target_: a value is missing; give it as loss._target_=VALUE"),
        (["loss=dice", "loss.cross_entropy=0", "loss.class_weights=median_frequency"], "loss.class_weights=median_f"),
        (["deep_supervision=0.4", "trainer.compile=true"], "trainer.compile=true: does not go with deep_supervision"),
        (["deep_supervision=0.4", "model=fcn32s_vgg16"], "deep_supervision=0.4: fcn32s_vgg16 has no coarser network"),
        (["callbacks.ema.decay=1"], "callbacks.ema.decay=1: expected a number from 0 on and below 1, or null"),
        (["data.paste=2"], "data.paste=2: expected a probability from 0 to 1"),
        (["data/augment=torchvision", "data.augment.rare_crops=2"], "data.augment.rare_crops=2: expected a probab"),
    ],
)
def test_what_does_not_fit_is_one_line(fcnseg, camvid, capsys, overrides, message):
    assert fcnseg(*SMALL, f"data.root={camvid}", *overrides) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
