"""Small runs that the tests of reports share, and only read: two trainings on two domains, and an evaluation."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from fcnseg.commands.cli import main
from tests.commands.processes import SETTINGS

TRAIN = (
    *SETTINGS,
    "data=citygen",
    "data.train.real.length=4",
    "data.train.synthetic.length=4",
    "data.val.length=5",
    "loss.domain_weights={real: 1, synthetic: 1}",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runs `one`, `other` and `scores`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)

        def carry_out(*words: str) -> None:
            patch.setattr(sys, "argv", ["fcnseg", *words])
            GlobalHydra.instance().clear()
            main()

        carry_out("train", *TRAIN, "hydra.run.dir=one")
        carry_out("train", *TRAIN, "hydra.run.dir=other", "optimizer.lr=0.02", "report.images=3")
        carry_out(
            *("evaluate", "checkpoint=one/checkpoints/last.ckpt", "hydra.run.dir=scores", "device=cpu"),
            *("calibrate=true", "data.val.length=5"),
        )
        yield folder
