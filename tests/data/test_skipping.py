"""Damaged images: trained on without them, by name and up to a bound, alike on any number of processes."""

import json
from pathlib import Path

import pytest
import torch

from fcnseg.data import CamVid, SegmentationData
from fcnseg.data.skipping import Skipping
from tests.commands.processes import SETTINGS, state
from tests.data.refusals import complaint


def damage(folder: Path, *numbers: int) -> list[Path]:
    files = sorted(folder.iterdir())
    for number in numbers:
        files[number].write_bytes(files[number].read_bytes()[:300])
    return [files[number] for number in numbers]


def test_the_next_sound_sample_stands_in_its_place(camvid: Path, tmp_path: Path) -> None:
    names = [CamVid(camvid)[index][2] for index in range(8)]
    damage(camvid / "train", 2, 3, 7)
    (label,) = damage(camvid / "trainannot", 5)
    found = Skipping(CamVid(camvid), tmp_path / "run" / "damaged.txt", 4)
    assert [found[index][2] for index in range(8)] == [names[i] for i in (0, 1, 4, 4, 4, 6, 6, 0)]
    assert [found[index][2] for index in range(8)] == [names[i] for i in (0, 1, 4, 4, 4, 6, 6, 0)], "again"
    lines = (tmp_path / "run" / "damaged.txt").read_text().splitlines()
    assert len(lines) == 4, "each once"
    assert any(line.startswith(f"{label}: cannot be read") for line in lines)
    assert (found.mask(5) == CamVid(camvid).mask(6)).all()
    few = Skipping(CamVid(camvid), tmp_path / "few.txt", 1)
    assert "more than data.most_errors=1 cannot be read" in complaint(lambda: few[2])


def test_when_none_is_sound_it_says_so(camvid: Path, tmp_path: Path) -> None:
    damage(camvid / "train", *range(8))
    found = Skipping(CamVid(camvid), tmp_path / "damaged.txt", 100)
    assert complaint(lambda: found[3]).startswith("sample 3 and those after it cannot be read;")


@pytest.mark.slow
def test_a_training_goes_on_without_them(fcnseg, camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (image,) = damage(camvid / "train", 4)
    settings = ["train", *SETTINGS, "data=camvid", f"data.root={camvid}", "trainer.max_epochs=2"]
    assert fcnseg(*settings, "hydra.run.dir=stops") == 2
    assert capsys.readouterr().err.startswith(f"fcnseg: {image}: cannot be read as an image")
    assert fcnseg(*settings, "data.on_error=skip", "hydra.run.dir=run") == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "damaged.txt").read_text().startswith(f"{image}: cannot be read as an image")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 4
    assert fcnseg(*settings, "data.on_error=skip", "data.num_workers=2", "hydra.run.dir=workers") == 0
    for name, value in state(tmp_path / "run").items():
        assert torch.equal(value, state(tmp_path / "workers")[name]), name
    damage(camvid / "val", 0)
    assert fcnseg(*settings, "data.on_error=skip", "hydra.run.dir=val") == 2, "scores are of all images"


def test_settings_that_do_not_fit_are_named(camvid: Path) -> None:
    def refused(**options: object) -> str:
        train = CamVid(camvid)
        return complaint(lambda: SegmentationData({"camvid": train}, CamVid(camvid, "val"), size=(48, 64), **options))

    assert refused(on_error="ignore") == "on_error 'ignore': expected one of raise, skip"
    assert refused(on_error="skip", cache="ram").endswith(
        "a cache is made of sound files; expected cache=none, not ram"
    )
    assert refused(on_error="skip", most_errors=0) == "most_errors=0: expected a whole number from 1 on"
