"""The predictor: the same mask from a path, a picture or an array, in the image's own size."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from torchvision import tv_tensors

from fcnseg.data import STREET11, CityScenes
from fcnseg.errors import InputError
from fcnseg.inference import Predictor
from fcnseg.inference.device import fast_precision
from fcnseg.models import create_model, resample


@pytest.fixture(scope="module")
def model():
    """An untrained network whose scores are not all zero, so that masks have structure."""
    torch.manual_seed(0)
    model = create_model(
        "fcn8s_alexnet", num_classes=11, width=0.1, input_size=(45, 60), label_space=STREET11.to_dict()
    )
    for name in ("score_fr", "score_pool1", "score_pool2"):
        torch.nn.init.normal_(model.get_submodule(name).weight)
    return model.eval()


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, device="cpu")


@pytest.fixture(scope="module")
def image():
    return CityScenes(1, seed=3, look="real", size=(90, 121))[0][0]


def test_path_picture_and_array_give_the_same_mask(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    masks = [
        predictor(source).mask
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image)
    ]
    assert masks[0].shape == (90, 121)
    assert masks[0].dtype == np.uint8
    assert len(np.unique(masks[0])) > 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def shares(new, old):
    """(new, old) shares of the old pixels in each new one, by the overlap of their extents."""
    edges = np.linspace(0, old, new + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def test_the_image_is_prepared_as_the_spec_says(predictor, image):
    """Resized by area, normalised, scored, resampled to the image's size: written out step by step."""
    small = np.rint(np.einsum("ih,jw,hwc->ijc", shares(45, 90), shares(60, 121), image)).astype(np.float32)
    with torch.inference_mode():
        model = predictor.model
        x = (torch.tensor(small).permute(2, 0, 1)[None] - model.mean) / model.std
        expected = resample(model(x), (90, 121)).argmax(1)[0].numpy()
    # OpenCV averages in single precision, and rounds one value in a thousand the other way.
    assert (predictor(image).mask == expected).mean() > 0.995


def test_grey_images_are_taken_as_three_equal_channels(predictor, image):
    grey = image[..., 0]
    np.testing.assert_array_equal(predictor(grey).mask, predictor(np.stack([grey] * 3, axis=-1)).mask)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 3), int),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(predictor, array):
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) or \(H, W\) uint8$"):
        predictor(array)


def untrained(channels, **options):
    """A network for images of so many channels, whose scores have structure."""
    torch.manual_seed(0)
    model = create_model("fcn32s_alexnet", num_classes=4, in_channels=channels, width=0.1, **options)
    torch.nn.init.normal_(model.score_fr.weight)
    return model.eval()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("channels", "dtype", "scale"), [(1, "uint8", 255), (4, "uint16", 9000), (6, "float32", 1), (3, "float32", 0.2)]
)
def test_images_of_other_channels_and_types(tmp_path, channels, dtype, scale):
    """From a file and from an array alike, normalised in the file's own values."""
    rng = np.random.default_rng(0)
    pixels = (cv2.resize(rng.random((5, 6, channels), np.float32), (60, 50)).reshape(50, 60, channels) * scale).astype(
        dtype
    )
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=50, width=60, count=channels, dtype=dtype
    ) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    model = untrained(channels, image_type=dtype, mean=[scale / 2] * channels, std=[scale / 4] * channels)
    predictor = Predictor(model, device="cpu")
    normalised = torch.tensor((pixels.astype(np.float32) - scale / 2) / (scale / 4)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model(normalised).argmax(1)[0].numpy()
    assert len(np.unique(expected)) > 1
    for source in (pixels, tmp_path / "a.tif"):
        np.testing.assert_array_equal(predictor(source).mask, expected)
    if channels == 1:
        np.testing.assert_array_equal(predictor(pixels[..., 0]).mask, expected)
    segmentation = predictor(pixels)
    assert segmentation.overlay().size == (60, 50)


def test_what_is_shown_of_them_is_stretched_between_percentiles():
    ramp = np.linspace(-7, 13, 101, dtype=np.float32)
    pixels = np.stack([np.tile(ramp * factor, (20, 1)) for factor in (1, 100, -1, 9)], axis=2)
    shown = Predictor(untrained(4, image_type="float32", mean=[0] * 4, std=[1] * 4), device="cpu")(pixels).image
    assert shown.shape == (20, 101, 3)
    assert shown.dtype == np.uint8
    expected = np.rint(
        np.interp(np.arange(101), [2, 98], [0, 255])
    )  # a ramp of 101 steps: its percentiles are its places
    for channel, row in enumerate((expected, expected, expected[::-1])):
        assert np.abs(shown[0, :, channel] - row).max() <= 1
    grey = Predictor(untrained(1, image_type="uint16", mean=[0], std=[1]), device="cpu")(
        np.full((20, 30), 5, np.uint16)
    ).image
    assert (grey == 0).all()


def test_no_data_in_an_array_is_0_as_in_a_file():
    predictor = Predictor(untrained(2, image_type="float32", mean=[0, 0], std=[1, 1]), device="cpu")
    zeros = np.random.default_rng(0).normal(size=(40, 50, 2)).astype(np.float32)
    zeros[:20, :25] = 0
    broken = zeros.astype(np.float64)
    broken[:20, :25] = np.nan
    np.testing.assert_array_equal(predictor(broken).mask, predictor(zeros).mask)


def test_saved_files_hold_the_mask_and_the_overlay(predictor, image, tmp_path):
    segmentation = predictor(image)
    segmentation.save(tmp_path / "masks" / "a.png", tmp_path / "overlays" / "a.png", opacity=0.3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / "a.png")), segmentation.mask)
    overlay = np.asarray(Image.open(tmp_path / "overlays" / "a.png"))
    np.testing.assert_array_equal(overlay[:90], np.asarray(segmentation.overlay(0.3)))


def test_a_model_without_label_space_gets_numbered_classes():
    model = create_model("fcn32s_alexnet", num_classes=3, width=0.05)
    space = Predictor(model, device="cpu").label_space
    assert space.classes == ("class 0", "class 1", "class 2")
    assert len(set(space.palette)) == 3


def test_a_stored_model_predicts_the_same(model, predictor, image, tmp_path, fcnseg):
    model.save_pretrained(tmp_path / "model")
    expected = predictor(image).mask
    loaded = Predictor.from_pretrained(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded(image).mask, expected)
    assert loaded.label_space == STREET11
    Image.fromarray(image).save(tmp_path / "a.png")
    assert fcnseg("predict", "checkpoint=model", "input=a.png", "output=out", "device=cpu") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")), expected)


def test_a_stored_model_is_evaluated_as_its_masks_say(camvid, tmp_path, fcnseg):
    model = create_model("fcn32s_alexnet", num_classes=11, width=0.05, label_space=STREET11.to_dict())
    torch.nn.init.normal_(model.score_fr.weight)
    model.save_pretrained(tmp_path / "model")
    settings = ("data=camvid", f"data.root={camvid}", "device=cpu", "hydra.run.dir=scores")
    assert fcnseg("evaluate", "checkpoint=model", *settings) == 0
    predictor = Predictor.from_pretrained("model", device="cpu")
    hits = pixels = 0
    for path in (camvid / "val").iterdir():
        label = np.asarray(Image.open(camvid / "valannot" / path.name))
        hits += ((predictor(path).mask == label) & (label < 11)).sum()
        pixels += (label < 11).sum()
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert scores["pixel_accuracy"] == pytest.approx(hits / pixels)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_missing_model_is_one_line(fcnseg, capsys, command):
    Image.new("RGB", (8, 8)).save("a.png")
    extra = ("input=a.png", "output=out") if command == "predict" else ()
    assert fcnseg(command, "checkpoint=runs/gone/last.ckpt", *extra) == 2
    assert capsys.readouterr().err.startswith("fcnseg: runs/gone/last.ckpt: no such file or folder")


def test_an_unknown_device_is_named():
    with pytest.raises(InputError, match="device=gpu9: not available here"):
        Predictor(create_model("fcn32s_alexnet", num_classes=3, width=0.05), device="gpu9")


UNIT = np.linspace(0, 1, 20 * 30 * 3, dtype=np.float32).reshape(20, 30, 3)


@pytest.mark.parametrize(
    ("give", "expected"),
    [
        (
            lambda: UNIT,
            "float32 values from 0 to 1; the model was trained on uint8: give (image * 255).round().astype(np.uint8)",
        ),
        (
            lambda: torch.from_numpy(UNIT).permute(2, 0, 1),
            "values from 0 to 1; the model was trained on uint8: give (image * 255).round().to(torch.uint8)",
        ),
        (
            lambda: UNIT * 255,
            "values from 0 to 255; the model was trained on uint8: give image.round().astype(np.uint8)",
        ),
        (lambda: UNIT * 900, "image has float32 values from 0 to 900; the model was trained on uint8"),
        (
            lambda: (UNIT * 900).astype(np.uint16),
            "image has uint16 values from 0 to 900; the model was trained on uint8",
        ),
    ],
)
def test_values_of_another_type_than_in_training_are_refused(predictor, give, expected):
    """A picture in 0 to 1 would be black to a network that knows 0 to 255; the line says what to give."""
    with pytest.raises(InputError, match=f"{re.escape(expected)}$"):
        predictor(give())


def test_the_remedies_give_what_they_promise(predictor, image):
    """What the line for floats says, carried out on floats of the image, gives the mask of the image."""
    for floats in (image / 255, torch.from_numpy(image).permute(2, 0, 1) / 255, image * 1.0):
        with pytest.raises(InputError) as refused:
            predictor(floats)
        remedy = str(refused.value).split(": give ")[1]
        given = eval(remedy, {"image": floats, "np": np, "torch": torch})
        np.testing.assert_array_equal(predictor(given).mask, predictor(image).mask)


def test_tensors_give_the_mask_of_their_array(predictor, image):
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    np.testing.assert_array_equal(predictor(tensor).mask, predictor(image).mask)
    np.testing.assert_array_equal(predictor(tv_tensors.Image(tensor)).mask, predictor(image).mask)
    for grey in (tensor[0], tensor[:1], image[..., :1]):
        np.testing.assert_array_equal(predictor(grey).mask, predictor(image[..., 0]).mask)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64", "bfloat16"])
def test_tensors_of_other_types(dtype):
    """Of one channel, with gradients and without."""
    kind = "uint16" if dtype == "uint16" else "float32"
    predictor = Predictor(untrained(1, image_type=kind, mean=[90], std=[60]), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50)).astype(kind)  # exact in bfloat16 as well
    expected = predictor(pixels).mask
    tensor = torch.from_numpy(pixels).to(getattr(torch, dtype))
    for given in (tensor, tensor[None], tensor.float().requires_grad_() if kind == "float32" else tensor):
        np.testing.assert_array_equal(predictor(given).mask, expected)


@pytest.mark.parametrize(
    ("mode", "kind"), [("I;16", "uint16"), ("I;16B", "uint16"), ("I", "uint16"), ("I", "float32"), ("F", "float32")]
)
def test_pictures_of_16_bits_and_floats(mode, kind):
    values = np.random.default_rng(0).integers(0, 60000, (40, 50))
    predictor = Predictor(untrained(1, image_type=kind, mean=[30000], std=[15000]), device="cpu")
    stored = {"I;16": "<u2", "I;16B": ">u2", "I": np.int32, "F": np.float32}[mode]
    picture = Image.frombytes(mode, (50, 40), values.astype(stored).tobytes())
    assert len(np.unique(predictor(picture).mask)) > 1
    np.testing.assert_array_equal(predictor(picture).mask, predictor(values.astype(kind)).mask)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_another_kind_than_the_models_end_in_one_line(predictor, mode):
    with pytest.raises(InputError, match=f"^image is a PIL image of mode {mode}; expected 3 channels of uint8$"):
        predictor(Image.new(mode, (30, 20)))
    bytes_of_one_channel = Predictor(untrained(1), device="cpu")
    with pytest.raises(
        InputError, match=r"^image has (uint16|float32) values from 0 to 0; the model was trained on uint8"
    ):
        bytes_of_one_channel(Image.new(mode, (30, 20)))


def test_a_picture_with_values_beyond_16_bits_is_refused():
    predictor = Predictor(untrained(1, image_type="uint16", mean=[0], std=[1]), device="cpu")
    with pytest.raises(
        InputError, match=r"^image has float32 values from 70000 to 70000; the model was trained on uint16$"
    ):
        predictor(Image.new("I", (30, 20), 70000))


def test_a_picture_that_cannot_be_decoded_is_one_line(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"^image cannot be decoded \(.*truncated.*\)$"):
        predictor(Image.open(tmp_path / "half.png"))


BYTES = np.zeros((40, 50, 3), np.uint8)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (None, "image is None; expected a path, a PIL image, an (H, W, 3) array or a (3, H, W) tensor of uint8"),
        (7, "image is of type int; expected a path, a PIL image, an (H, W, 3) array or a (3, H, W) tensor of uint8"),
        (b"\x89PNG", "image is of type bytes; give PIL.Image.open(io.BytesIO(image))"),
        (
            BYTES.astype(object),
            "image is a (40, 50, 3) object array; expected (H, W, 3) or (H, W) uint8",
        ),
        (
            BYTES.transpose(2, 0, 1),
            "image is a (3, 40, 50) uint8 array; expected (H, W, 3) or (H, W) uint8; "
            "image.transpose(1, 2, 0) puts its axes in this order",
        ),
        (
            torch.from_numpy(BYTES),
            "image is a (40, 50, 3) uint8 tensor; expected (3, H, W) or (H, W) uint8; "
            "image.permute(2, 0, 1) puts its axes in this order",
        ),
        (BYTES[:, :0], "image is a (40, 0, 3) uint8 array; expected (H, W, 3) or (H, W) uint8"),
        (np.zeros(0), "image is a (0,) float64 array; expected (H, W, 3) or (H, W) uint8"),
        (np.array(5), "image is a () int64 array; expected (H, W, 3) or (H, W) uint8"),
        (torch.zeros(3, 0, 50), "image is a (3, 0, 50) float32 tensor; expected (3, H, W) or (H, W) uint8"),
        (
            torch.zeros(3, 40, 50, dtype=torch.int64),
            "image is a (3, 40, 50) int64 tensor; expected (3, H, W) or (H, W) uint8",
        ),
        (Image.new("RGB", (0, 5)), "image is empty: a PIL image of 0 x 5 pixels"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_no_image_ends_in_a_line_that_says_what_is(predictor, thing, expected):
    with pytest.raises(InputError) as refused:
        predictor(thing)
    assert str(refused.value) == expected


def test_the_calls_in_the_readme_are_as_accurate_as_the_predictor():
    """On demo scenes of the size that the network sees, where nothing but the preparation can differ."""
    predictor, scenes = Predictor.from_pretrained("demo", device="cpu"), CityScenes(4, 5, "real", size=(180, 240))
    model = predictor.model
    pixels, labels, _ = zip(*(scenes[i] for i in range(len(scenes))), strict=True)
    images, labels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), np.stack(labels)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    calls = re.findall(r"^(?:logits|masks) = (model[.(].*?)  #", readme, re.MULTILINE)
    assert calls
    expected = np.mean(np.stack([predictor(image).mask for image in pixels]) == labels)
    assert expected > 0.8
    for call in calls:
        call = call.replace("(360, 480)", "(180, 240)")
        with torch.inference_mode():
            result = eval(call, {"model": model, "images": images.float()})  # so that only normalising decides
        masks = result.argmax(1) if result.ndim == 4 else result
        assert np.mean(masks.numpy() == labels) == pytest.approx(expected)


def test_a_model_is_loaded_without_what_takes_seconds_to_import() -> None:
    """Neither what only training needs, nor torch's compiler, which random numbers without values would bring in."""
    script = (
        "import sys, fcnseg.commands.predict\n"
        "fcnseg.Predictor.from_pretrained('demo')\n"
        "heavy = {'albumentations', 'pytorch_lightning', 'torchvision', 'matplotlib', 'torch._dynamo'}\n"
        "sys.exit(str(found) if (found := heavy & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(fast_precision(torch.device("cpu")) == "32-true", reason="this processor emulates bfloat16")
@pytest.mark.parametrize(("least", "kept"), [(0.5, "bf16-mixed"), (1.01, "32-true")])
def test_a_fast_precision_is_kept_where_the_first_mask_agrees(model, image, monkeypatch, least, kept):
    monkeypatch.setattr(Predictor, "AGREEMENT", least)
    auto = Predictor(model, device="cpu", precision="auto")
    assert (auto.precision, auto.agreement) == ("bf16-mixed", None)
    mask = auto(image).mask
    assert auto.precision == kept
    both = [Predictor(model, device="cpu", precision=precision)(image).mask for precision in ("bf16-mixed", "32-true")]
    assert auto.agreement == (both[0] == both[1]).mean()
    np.testing.assert_array_equal(mask, both[kept == "32-true"])


def test_training_that_goes_on_does_not_change_a_predictor(image):
    torch.manual_seed(0)
    model = create_model("fcn32s_vgg16_bn", num_classes=5, width=0.05).train()
    torch.nn.init.normal_(model.score_fr.weight)
    predictor = Predictor(model, device="cpu")
    assert model.training
    before = predictor(image).mask
    model(torch.randn(2, 3, 64, 64))  # changes the running statistics
    np.testing.assert_array_equal(predictor(image).mask, before)


def test_another_precision_is_refused(model):
    with pytest.raises(InputError, match="precision=half: expected one of auto, 32-true, bf16-mixed, 16-mixed"):
        Predictor(model, device="cpu", precision="half")
