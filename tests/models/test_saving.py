"""Saved models: what is saved comes back bit for bit, or the old model stays whole; the card tells what it is."""

import json
import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fcnseg
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from fcnseg.models import FCN, create_model
from fcnseg.models.card import model_card
from fcnseg.models.loading import from_pretrained
from tests.models.stored import PROVENANCE, assert_equal, assert_refused, front_matter, logits, trained

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s_vgg16_bn", {}),
        ("fcn32s_alexnet", {"input_size": None, "label_space": None, "num_classes": 2, "mean": (0.1, 1 / 3, 3.0)}),
        ("fcn16s_caffenet", {"padding": "caffe", "channel_order": "bgr", "width": 0.1}),
        ("fcn8s_vgg16", {"in_channels": 4, "dropout": 0.0}),
    ],
)
def test_round_trip_gives_equal_logits(tmp_path: Path, name: str, options: dict) -> None:
    model = trained(name, **options)
    model.save_pretrained(tmp_path)
    assert_equal(from_pretrained(tmp_path), model)


def test_every_way_to_a_folder_leads_to_the_same_model(model: FCN, folder: Path) -> None:
    for loaded in (fcnseg.from_pretrained(str(folder)), from_pretrained(folder / "model.safetensors")):
        assert_equal(loaded, model)
    predictor, images = fcnseg.Predictor.from_pretrained(folder, device="cpu"), torch.randn(1, 3, 40, 50)
    with torch.inference_mode():  # what it computes with has no batch normalisation of its own
        expected = model(images)
        torch.testing.assert_close(predictor.model(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert loaded.provenance == PROVENANCE


def test_a_model_in_another_memory_layout_or_precision_is_stored_in_float32(model: FCN, tmp_path: Path) -> None:
    trained().to(memory_format=torch.channels_last).save_pretrained(tmp_path / "last")
    assert_equal(from_pretrained(tmp_path / "last"), model)
    rounded = trained().to(torch.bfloat16)
    rounded.save_pretrained(tmp_path / "bf16")
    rounded.to(torch.float32).prepare(rounded.spec)  # mean and std were rounded too, and come from the spec
    assert_equal(from_pretrained(tmp_path / "bf16"), rounded)


def test_float16_halves_the_file_and_loads_as_float32(model: FCN, folder: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "half", dtype="float16")
    half, whole = ((f / "model.safetensors").stat().st_size for f in (tmp_path / "half", folder))
    assert half == pytest.approx(whole / 2, rel=0.15)  # names and shapes take some
    loaded = from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = logits(model)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=float(2e-3 * expected.std()))
    assert not torch.equal(logits(loaded), expected)


def test_the_file_holds_what_its_readers_expect(model: FCN, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["library"] == "fcnseg"
    assert config["architecture"] == json.loads(json.dumps(model.spec.to_dict()))
    assert {key: config[key] for key in PROVENANCE} == PROVENANCE
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_training_data_and_metrics_may_be_given(model: FCN, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, training_data={"set": "A"}, metrics={})
    expected = PROVENANCE | {"training_data": {"set": "A"}, "metrics": {}}
    assert from_pretrained(tmp_path).provenance == expected
    assert model.provenance == PROVENANCE


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), names=st.lists(NAMES, min_size=1, max_size=5, unique=True), space=NAMES)
def test_every_label_space_comes_back(tmp_path_factory: Any, data: st.DataObject, names: list, space: str) -> None:
    byte = st.integers(0, 255)
    palette = data.draw(st.lists(st.tuples(byte, byte, byte), min_size=len(names), max_size=len(names)))
    ids = data.draw(st.lists(st.integers(0, 254), min_size=len(names), max_size=len(names), unique=True))
    labels = LabelSpace(space, tuple(names), tuple(palette), tuple(ids))
    numbers = st.floats(1e-6, 1e6)
    mean, std = (data.draw(st.tuples(numbers, numbers, numbers)) for _ in range(2))
    model = create_model(
        "fcn32s_alexnet", num_classes=len(names), width=0.02, mean=mean, std=std, label_space=labels.to_dict()
    )
    folder = tmp_path_factory.mktemp("spaces")
    model.save_pretrained(folder)
    loaded = from_pretrained(folder)
    assert loaded.spec == model.spec
    assert LabelSpace(**loaded.spec.label_space) == labels
    rows = [line for line in (folder / "README.md").read_text(encoding="utf-8").split("\n") if line.startswith("| ")]
    assert len([row for row in rows if "`#" in row and row[2].isdigit()]) >= len(names)


# What is not saved


def test_values_that_have_no_place_in_the_files_are_refused(model: FCN, tmp_path: Path) -> None:
    for options in ({"metrics": {"mean_iou": float("nan")}}, {"training_data": {"data": tmp_path}}):
        with pytest.raises(InputError, match=r"config\.json: expected plain JSON values"):
            model.save_pretrained(tmp_path / "m", **options)
    with pytest.raises(InputError, match="dtype='int8': expected one of float32, float16"):
        model.save_pretrained(tmp_path / "m", dtype="int8")
    diverged = trained()
    diverged.fc7.bias.data[0] = 1e5
    diverged.save_pretrained(tmp_path / "fine")
    with pytest.raises(InputError, match=r"fc7\.bias: has values that are not finite as float16"):
        diverged.save_pretrained(tmp_path / "m", dtype="float16")
    assert not (tmp_path / "m").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_leaves_the_old_model_whole(model: FCN, folder: Path) -> None:
    """A limit on the size of files stands for the full disk: the write ends half-way with an OSError."""
    new = folder.parent / "new"

    def save(told: Connection) -> None:
        small = create_model("fcn32s_alexnet", num_classes=3, width=0.02)  # 146 kB
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for about in (120_000, 1):
            for place in (folder, new):
                try:
                    small.save_pretrained(place, training_data={"about": "x" * about})
                except OSError as error:
                    told.send(error.filename)

    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=save, args=(theirs,))
    process.start()
    process.join()
    assert process.exitcode == 0
    expected = [str(f / n) for n in ("config.json", "model.safetensors") for f in (folder, new)]
    assert [ours.recv() for _ in expected] == expected
    assert_equal(from_pretrained(folder), model)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert list(new.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_a_save_that_is_killed_never_looks_whole(model: FCN, tmp_path: Path) -> None:
    """Before the first, second and third file appears: never new weights under an old description, nor the reverse."""
    folders = [tmp_path / str(i) for i in range(4)]
    replace = os.replace

    def save(left: int, folder: Path) -> None:
        def replace_or_die(source: Path, target: Path) -> None:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            replace(source, target)

        os.replace = replace_or_die
        create_model("fcn32s_alexnet", num_classes=3, width=0.02).save_pretrained(folder)

    codes = []
    for left, folder in enumerate(folders):
        model.save_pretrained(folder)
        process = FORK.Process(target=save, args=(left, folder))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes == [9, 9, 9, 0]
    for folder in folders[:3]:
        assert_refused(folder, str(folder / "config.json"), "no such file")
    assert from_pretrained(folders[3]).spec.name == "fcn32s_alexnet"


# The model card


def test_the_card_tells_what_the_config_holds(model: FCN, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, license="cc-by-4.0")
    matter, text = front_matter((tmp_path / "README.md").read_text())
    assert matter["library_name"] == "fcnseg"
    assert matter["pipeline_tag"] == "image-segmentation"
    assert matter["license"] == "cc-by-4.0"
    assert "| 0 | sky | `#808080` | 0.938 | 0.969 |" in text
    assert "| 1 | building | `#800000` | - | - |" in text
    assert "| mean iou | 0.438 |" in text
    assert "| step | 1200 |" in text
    assert "  - real: 367 images\n" in text
    assert "- ratio: 6, 4\n" in text
    assert "32 x 48 (height x width)" in text
    assert "come from vgg16.caffemodel" in text


def test_a_card_without_facts_leaves_their_parts_out(tmp_path: Path) -> None:
    create_model("fcn32s_alexnet", num_classes=2, width=0.05, channel_order="bgr").save_pretrained(tmp_path)
    matter, text = front_matter((tmp_path / "README.md").read_text())
    assert "license" not in matter
    assert "2 classes without names" in text
    assert "blue, green, red" in text
    assert "## Scores" not in text
    assert "## Training data" not in text


def test_special_characters_stay_themselves() -> None:
    """Every character that means something in Markdown has a backslash before it, and no name breaks its row."""
    odd = "a|b*c_d`e<f>[g](h)\\ \n x"
    space = LabelSpace(odd, (odd, "ü"), ((1, 2, 3), (4, 5, 6)))
    model = create_model("fcn32s_alexnet", num_classes=2, width=0.05, label_space=space.to_dict())
    _, text = front_matter(model_card(model._config(training_data={odd: odd}), "mit: [x]\n---"))
    shown = "a\\|b\\*c\\_d\\`e\\<f\\>\\[g\\](h)\\\\ x"
    assert f"| 0 | {shown} | `#010203` |\n| 1 | ü | `#040506` |" in text
    assert f"- {shown}: {shown}\n" in text


def test_the_card_s_python_example_runs(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40)).save("photo.jpg")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace('"MODEL"', repr(str(folder))), {})
    assert Image.open("overlay.png").size == (60, 40)
