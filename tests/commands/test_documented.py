"""The trainings that README shows, as printed: each is carried out, over tiny data and for two steps."""

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"

LEFT_OUT = {
    "trainer=ddp ": "wants GPUs",
    "trainer=ddp_cpu": "starts processes: test_processes.py",
    "TIME": "a folder that is called by the time: test_stages.py, test_train.py",
    "model.weights=imagenet": "downloads",
    ".caffemodel": "a file to be downloaded",
    "data=described": "wants the file of fcnseg data create: test_data_create.py",
    "data.packed": "wants the folder of fcnseg data pack: test_building.py",
}
"""What tells a line that is not carried out here, and why."""

SHORT = (
    "data.size=[24,32]", "data.num_workers=0", "data.batch_size=4", "model.width=0.05", "trainer.max_steps=2",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "callbacks.progress=null", "logger.tensorboard=null",
)  # fmt: skip


def printed() -> list[str]:
    return re.findall(r"^    (fcnseg train .*)$", README.read_text(), re.MULTILINE)


def lengths(line: str) -> list[str]:
    domains = ["synthetic"] if "camvid_bgc" in line else ["real", "synthetic"] if "data=" not in line else []
    validation = ["data.val.length=2"] if "data.root" not in line else []
    return [] if "experiment=" in line else [*(f"data.train.{name}.length=4" for name in domains), *validation]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in printed() if not any(part in line for part in LEFT_OUT)])
def test_a_training_of_the_readme(fcnseg, camvid, tmp_path, line):
    words = shlex.split(re.sub(r"PATH(/TO/camvid)?", str(camvid), line), comments=True)[1:]
    assert fcnseg(*words, *SHORT, *lengths(line)) == 0
    assert list((tmp_path / "runs").rglob("metrics.json"))


def test_what_is_left_out_is_there():
    assert [part for part in LEFT_OUT if not any(part in line for line in printed())] == []
