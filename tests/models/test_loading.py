"""Checkpoints: what a training run saves comes back as it was, and every other file ends in one readable line."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.inference.device import default_device
from fcnseg.labels import STREET11
from fcnseg.models import FCN, create_model, load_checkpoint
from fcnseg.models.loading import from_pretrained
from fcnseg.training import SegmentationModule


@pytest.fixture
def model() -> FCN:
    """Trained, as far as that shows: no score, bias or running mean is what a new model has."""
    torch.manual_seed(0)
    model = create_model("fcn8s_vgg16_bn", num_classes=3, width=0.05, mean=(1, 2, 3), input_size=(32, 48)).eval()
    for name, values in model.state_dict().items():
        if name.endswith(("bias", "running_mean")) or name.startswith("score_"):
            nn.init.normal_(values)
    return model


def content(model: FCN, **spec: Any) -> dict[str, Any]:
    """What Lightning saves of a module that holds the network as `self.model`, with other things beside it."""
    return {
        "epoch": 7,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()} | {"loss.weight": torch.ones(3)},
        "hyper_parameters": {"spec": model.spec.to_dict() | spec, "lr": 0.1},
    }


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message


def test_round_trip_gives_equal_logits(model: FCN, tmp_path: Path) -> None:
    again = load_checkpoint(saved(tmp_path / "last.ckpt", content(model)))
    assert again.spec == model.spec
    assert not again.training
    images = torch.rand(1, 3, 45, 50) * 255
    with torch.inference_mode():
        expected = model(model.normalise(images))
        assert expected.std() > 0
        torch.testing.assert_close(again(again.normalise(images)), expected, rtol=0, atol=0)


def test_provenance_comes_back(model: FCN, tmp_path: Path) -> None:
    told = {"training_data": {"real": 367}, "metrics": {"mean_iou": 0.5, "step": 10}}
    path = saved(tmp_path / "last.ckpt", content(model) | {"provenance": told})
    assert load_checkpoint(path).provenance == told
    assert load_checkpoint(saved(path, content(model))).provenance == {}
    for odd in ({"metrics": {"mean_iou": torch.ones(1)}}, {"metrics": float("nan")}, ["words"]):
        assert_refused(saved(path, content(model) | {"provenance": odd}), "not an fcnseg checkpoint, or damaged")


def test_a_checkpoint_goes_wherever_a_folder_goes(model: FCN, tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt", content(model) | {"provenance": {"metrics": {"mean_iou": 0.5}}})
    from_pretrained(path).save_pretrained(tmp_path / "folder")
    again = from_pretrained(tmp_path / "folder")
    assert again.spec == model.spec
    assert again.provenance == {"metrics": {"mean_iou": 0.5}}
    assert all(torch.equal(again.state_dict()[key], values) for key, values in model.state_dict().items())


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_real_run_tells_its_data_and_scores(tmp_path: Path, sanity: int) -> None:
    """Scores of the last validation with its own step, and never those of Lightning's check before training."""
    scenes = CityScenes(4, seed=1, look="real", size=(40, 56))
    data = SegmentationData({"real": scenes}, scenes, size=(32, 48), batch_size=2, num_workers=0, cache="ram")
    net = create_model("fcn32s_alexnet", num_classes=11, width=0.02, label_space=STREET11.to_dict())
    net.provenance = {"weights_source": "old.caffemodel", "metrics": {"mean_iou": 1.0}}
    module = SegmentationModule(net, training_data={"real": "4 scenes"})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=sanity,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)],
    )
    trainer.fit(module, data)
    first, last = (load_checkpoint(tmp_path / f"epoch={i}.ckpt").provenance for i in (0, 2))
    assert first == {"training_data": {"real": "4 scenes"}, "weights_source": "old.caffemodel"}
    metrics = last["metrics"]
    assert (metrics["step"], metrics["epoch"]) == (4, 1)
    assert metrics["mean_iou"] == module.last_scores.mean_iou
    assert metrics["classes"]["sky"]["pixels"] == sum(int((scenes[i][1] == 0).sum()) for i in range(4))
    load_checkpoint(tmp_path / "epoch=2.ckpt").save_pretrained(tmp_path / "folder")
    assert f"| mean iou | {metrics['mean_iou']:.3f} |" in (tmp_path / "folder" / "README.md").read_text()


def test_path_may_be_a_string(model: FCN, tmp_path: Path) -> None:
    assert load_checkpoint(str(saved(tmp_path / "last.ckpt", content(model)))).spec == model.spec


def test_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere.ckpt", "no such checkpoint")
    assert_refused(tmp_path, "no such checkpoint")


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.05, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_file(model: FCN, tmp_path: Path, fraction: float, zipped: bool) -> None:
    path = tmp_path / "cut.ckpt"
    torch.save(content(model), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    assert_refused(path, "not an fcnseg checkpoint, or damaged")


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(7, 256)) * 9,
        random.Random(0).randbytes(4096),
        b"a text file\nof two lines\n",
        b"PK\x03\x04 no archive",
        b"\x80\x02.",
    ],
    ids=["bytes", "random", "text", "zip magic", "pickle magic"],
)
def test_foreign_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "foreign.ckpt").write_bytes(data)
    assert_refused(tmp_path / "foreign.ckpt", "not an fcnseg checkpoint, or damaged")


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3),
        [1, 2],
        {"conv1.weight": torch.ones(3)},
        {"state_dict": {"model.fc6.weight": torch.ones(1)}},
        {"state_dict": {}, "hyper_parameters": {"lr": 0.1}},
        {"state_dict": {}, "hyper_parameters": {"spec": "fcn8s_vgg16"}},
        {"state_dict": [1], "hyper_parameters": {"spec": {}}},
        {"state_dict": {1: 2}, "hyper_parameters": {"spec": {}}},
    ],
    ids=["tensor", "list", "weights alone", "no spec", "other spec", "spec no record", "list of weights", "odd keys"],
)
def test_checkpoint_of_something_else(tmp_path: Path, value: object) -> None:
    assert_refused(saved(tmp_path / "other.ckpt", value), "not an fcnseg checkpoint")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"name": "fcn4s_vgg16"}, "unknown model 'fcn4s_vgg16'"),
        ({"name": None}, "describes no model"),
        ({"colour": "red"}, "colour"),
        ({"padding": "valid"}, "padding 'valid'"),
        ({"width": "wide"}, "describes no model"),
        ({"mean": [1.0]}, "expected 3 values"),
        ({"input_size": [3]}, "describes no model"),
        ({"label_space": STREET11.to_dict()}, "its label space has 11 classes"),
    ],
)
def test_spec_that_describes_no_model(model: FCN, tmp_path: Path, spec: dict, reason: str) -> None:
    assert_refused(saved(tmp_path / "spec.ckpt", content(model, **spec)), reason)


def test_spec_without_a_name(tmp_path: Path) -> None:
    value = {"state_dict": {}, "hyper_parameters": {"spec": {"num_classes": 3}}}
    assert_refused(saved(tmp_path / "spec.ckpt", value), "name")


@pytest.mark.parametrize("spec", [{"width": 0.25}, {"num_classes": 5}, {"in_channels": 1, "mean": [0], "std": [1]}])
def test_weights_that_do_not_fit_the_spec(model: FCN, tmp_path: Path, spec: dict) -> None:
    assert_refused(
        saved(tmp_path / "misfit.ckpt", content(model, **spec)), r"weights do not fit fcn8s_vgg16_bn \(size mismatch"
    )


def test_missing_and_odd_weights(model: FCN, tmp_path: Path) -> None:
    value = content(model)
    del value["state_dict"]["model.fc7.weight"]
    assert_refused(saved(tmp_path / "missing.ckpt", value), r"weights do not fit .*fc7\.weight")
    value["state_dict"]["model.fc7.weight"] = torch.full_like(model.fc7.weight, torch.nan)
    assert_refused(saved(tmp_path / "diverged.ckpt", value), r"fc7\.weight has values that are not finite")
    value["state_dict"]["model.fc7.weight"] = torch.zeros_like(model.fc7.weight).to_sparse()
    assert_refused(saved(tmp_path / "sparse.ckpt", value), "weights do not fit")
    value["state_dict"]["model.fc7.weight"] = "words"
    assert_refused(saved(tmp_path / "odd.ckpt", value), "weights do not fit")


class Bomb:
    """Runs a shell command in whoever unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("where", ["alone", "in the spec", "in the weights", "beside them"])
@pytest.mark.parametrize("archive", [True, False], ids=["torch", "pickle"])
def test_code_in_a_file_is_not_executed(model: FCN, tmp_path: Path, where: str, archive: bool) -> None:
    marker, path = tmp_path / "executed", tmp_path / "malicious.ckpt"
    bomb = Bomb(marker)
    value: Any = content(model)
    if where == "in the spec":
        value["hyper_parameters"]["spec"]["label_space"] = bomb
    elif where == "in the weights":
        value["state_dict"]["model.fc7.weight"] = bomb
    else:
        value = bomb if where == "alone" else value | {"epoch": bomb}
    if archive:
        torch.save(value, path)
    else:
        path.write_bytes(pickle.dumps(value, protocol=2))

    assert_refused(path, "not an fcnseg checkpoint, or damaged")
    assert not marker.exists()

    torch.load(path, weights_only=False) if archive else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was armed


def test_default_device() -> None:
    assert default_device("cpu") == torch.device("cpu")
    assert default_device() == default_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "cuda:99"):
        with pytest.raises(InputError, match=f"device={name}: not available here"):
            default_device(name)
