"""Pictures of validations and hyperparameters, read back from what each logger's own client has written."""

import io
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.labels import STREET11
from fcnseg.models import create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.averaging import WeightAverage
from fcnseg.training.hyperparameters import Hyperparameters
from fcnseg.training.loggers import Recipients, TrackioLogger, Wandb
from fcnseg.training.pictures import MOST, Pictures, side_by_side

SIZE = (32, 48)
TAGS = {"validation/1", "validation/2", "validation/confusion"}


def fit(logger: Any, *callbacks: pl.Callback, epochs: int = 2) -> tuple[pl.Trainer, SegmentationModule]:
    pl.seed_everything(3, verbose=False)
    scenes = CityScenes(12, 0, "real", SIZE)
    data = SegmentationData({"scenes": scenes}, scenes, size=SIZE, batch_size=6, num_workers=0, allow_overlap=True)
    model = create_model(
        "fcn32s_vgg16_bn", num_classes=11, width=0.05, dropout=0.5, label_space=scenes.label_space.to_dict()
    )
    module = SegmentationModule(model, optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer, module


def tensorboard(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(folder, "", "", default_hp_metric=False)


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()


def picture(found: EventAccumulator, tag: str, number: int = -1) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(found.Images(tag)[number].encoded_image_string)))


def test_tensorboard_has_pictures_of_each_validation_and_settings_with_scores(tmp_path: Path) -> None:
    settings = {"optimizer.lr": 0.05, "data": "scenes", "frozen_batch_norm": False}
    _, module = fit(tensorboard(tmp_path), Pictures(2), Hyperparameters(settings))
    found = events(tmp_path)
    assert set(found.Tags()["images"]) == TAGS
    for tag in TAGS:
        assert [each.step for each in found.Images(tag)] == [2, 4]
    assert picture(found, "validation/1", 0).shape == picture(found, "validation/1", 1).shape
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for name in (b"optimizer.lr", b"data", b"scenes", b"frozen_batch_norm"):
        assert name in content
    (final,) = found.Scalars("final/mean_iou")
    assert final.value == pytest.approx(module.last_scores.mean_iou)
    assert found.Scalars("val/mean_iou")[-1].value == final.value
    assert "hp_metric" not in found.Tags()["scalars"]


def test_they_show_the_image_its_label_and_what_was_scored(tmp_path: Path) -> None:
    """Also of a moving average, which is not there any more when validation has ended."""
    seen: dict[int, torch.Tensor] = {}

    class Note(pl.Callback):
        def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            assert outputs["predictions"][0].shape == SIZE
            seen.update(zip(batch["index"], outputs["predictions"], strict=True))

    trainer, module = fit(tensorboard(tmp_path), Pictures(2), WeightAverage(0.9), Note(), epochs=1)
    scenes = trainer.datamodule.val
    for tag, index in (("validation/1", 3), ("validation/2", 9)):
        image, label, _ = scenes[index]
        expected = side_by_side(image, label, seen[index].numpy().astype(np.uint8), STREET11)
        np.testing.assert_array_equal(picture(events(tmp_path), tag), np.asarray(expected))
        # On fit's end the module has the average, by which the same comes out again.
        again = module.model.eval().segment_each(torch.from_numpy(image).permute(2, 0, 1)[None], [SIZE])[0]
        assert torch.equal(again.cpu(), seen[index])


def test_training_is_as_without_them(tmp_path: Path) -> None:
    def run(folder: str, *callbacks: pl.Callback) -> tuple[dict[str, torch.Tensor], float, Any]:
        _, module = fit(tensorboard(tmp_path / folder), *callbacks)
        chance = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        loss = [each.value for each in events(tmp_path / folder).Scalars("train/loss")]
        return module.state_dict(), loss, chance

    plain, loss, chance = run("without")
    pictured, its_loss, its_chance = run("with", Pictures(3), Hyperparameters({"seed": 3}))
    assert set(events(tmp_path / "with").Tags()["images"]) == TAGS | {"validation/3"}
    assert loss == its_loss
    assert all(torch.equal(value, pictured[name]) for name, value in plain.items())
    assert torch.equal(chance[0], its_chance[0])
    assert chance[1:] == its_chance[1:]


def test_some_validations_may_be_left_out_and_all_images(tmp_path: Path) -> None:
    fit(tensorboard(tmp_path), Pictures(None, every_n_validations=2), epochs=3)
    found = events(tmp_path)
    assert found.Tags()["images"] == ["validation/confusion"]
    assert [each.step for each in found.Images("validation/confusion")] == [2, 6]


def test_nothing_is_drawn_without_a_logger_for_it(tmp_path: Path) -> None:
    pictures = Pictures(2)
    fit(CSVLogger(tmp_path, "", ""), pictures, Hyperparameters({"seed": 3}), epochs=1)
    assert not pictures._wanted
    assert "final" not in (tmp_path / "metrics.csv").read_text()


def test_a_logger_that_fails_is_told_of_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away(CSVLogger):
        def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
            raise ConnectionError("no route to host\nand more")

    fit([Away(tmp_path / "away", "", ""), tensorboard(tmp_path / "there")], Pictures(2))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pictures")]
    assert lines == ["pictures    none any more to Away: ConnectionError: no route to host"]
    assert len(events(tmp_path / "there").Images("validation/2")) == 2


def test_a_drawing_that_fails_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Pictures):
        def _drawn(self, module: Any) -> dict[str, Image.Image]:
            raise MemoryError

    fit(tensorboard(tmp_path), Broken(2))
    assert capsys.readouterr().err.count("pictures    none any more to TensorBoardLogger: MemoryError") == 1


def test_panels_of_large_and_of_tiny_images_fit_the_eye() -> None:
    for size in ((700, 2000), (900, 500), (20, 30)):
        image = np.zeros((*size, 3), np.uint8)
        sheet = side_by_side(image, np.zeros(size, np.uint8), np.ones(size, np.uint8), STREET11)
        width = (sheet.width - 4 * 8) // 3
        assert 240 <= width <= MOST
        assert sheet.height < MOST + 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": -1}, "images=-1: expected a whole number from 0 on"),
        ({"images": "all"}, "images='all': expected a whole number from 0 on"),
        ({"every_n_validations": 0}, "every_n_validations=0: expected a whole number from 1 on"),
    ],
)
def test_other_numbers_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"callbacks.pictures.{said}")):
        Pictures(**options)


def test_recipients_that_fail_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    reached = []

    def send(logger: Any) -> None:
        reached.append(logger)
        if logger == "bad":
            raise OSError("gone")

    to = Recipients(["bad", "good"], "pictures")  # type: ignore[list-item]
    to.each(send)
    to.each(send)
    assert reached == ["bad", "good", "good"]
    assert capsys.readouterr().err == "pictures    none any more to str: OSError: gone\n"


def test_wandb_has_them_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the training after it: each is a run of its own."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_MODE", "offline")  # which Lightning sets, and leaves behind
    for number in range(2):
        logger = Wandb(name=f"run {number}", save_dir=tmp_path, project="fcnseg", offline=True)
        fit(logger, Pictures(2), Hyperparameters({"optimizer.lr": 0.05, "data": "scenes"}), epochs=1)
    folders = sorted(tmp_path.glob("wandb/offline-run-*-*"))
    assert len(folders) == 2
    for folder in folders:
        pictures = {str(path.relative_to(folder / "files/media/images")) for path in folder.rglob("*.png")}
        assert {name.rpartition("_")[0].rpartition("_")[0] for name in pictures} == TAGS
        found = next(folder.glob("run-*.wandb")).read_bytes()  # records whose texts are plain
        for word in (b"val/mean_iou", b"optimizer.lr", b"validation/confusion"):
            assert word in found


def test_trackio_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio", reason="trackio asks for an older Pillow than what is tested here")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    if tmp_path != utils.TRACKIO_DIR:
        pytest.skip("trackio was imported before, and writes elsewhere")
    logger = TrackioLogger("fcnseg", "scenes", auto_log_gpu=False, auto_log_cpu=False)
    fit(logger, Pictures(2), Hyperparameters({"optimizer.lr": 0.05, "data": "scenes"}))
    (run,) = SQLiteStorage.get_run_records("fcnseg")
    assert run["name"] == "scenes"
    config = SQLiteStorage.get_run_config("fcnseg", run_id=run["id"])
    assert (config["optimizer.lr"], config["data"]) == (0.05, "scenes")
    logs = SQLiteStorage.get_logs("fcnseg", run_id=run["id"])
    assert {key for each in logs for key in each} >= TAGS | {"val/mean_iou", "train/loss"}
    pictures = list(tmp_path.rglob("*.png"))
    assert len(pictures) == 6, "two validations of three pictures"
    assert Image.open(pictures[0]).width > 3 * 240
