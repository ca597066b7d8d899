"""What objects show in notebooks: escaped, whole, and bounded."""

import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import fcnseg
from fcnseg.data import CityScenes, Concat, Remapped, SegmentationData, Subset, WithoutLabels
from fcnseg.data.datasets.pairs import PairedFolder
from fcnseg.data.showing import MOST
from fcnseg.evaluation import Evaluation, evaluate
from fcnseg.inference import Segmentation
from fcnseg.labels import STREET11, LabelSpace
from fcnseg.views import WIDEST, Html, bar, html, picture, table

ODD = LabelSpace("<b>odd</b>", ("<script>alert(1)</script>", "3 & more"), ((1, 2, 3), (250, 250, 250)))


class Balanced(HTMLParser):
    """Tags that are opened and closed in order, and their texts."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], set(), ""
        self.feed(shown)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(shown: str) -> Balanced:
    """What is shown, after a look for what no view may have: scripts, requests, and text in a fixed colour."""
    found = Balanced(shown)
    assert not found.tags & {"script", "link", "iframe", "style", "b>odd"}
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', shown) == []
    assert re.search(r"url\(|[;\"] *color:", shown) is None
    return found


def test_label_space_shows_swatches_and_escapes_names():
    shown = ODD._repr_html_()
    assert "rgb(1, 2, 3)" in shown
    text = read(shown).text
    assert "<b>odd</b>: 2 classes" in text
    assert "0 <script>alert(1)</script>" in text
    assert "1 3 & more" in text


def test_network_tells_size_taps_and_classes():
    model = fcnseg.create_model(
        "fcn8s_vgg16", num_classes=2, width=0.05, label_space=ODD.to_dict(), input_size=(48, 64)
    )
    shown = model._repr_html_()
    text = read(shown).text
    parameters = sum(p.numel() for p in model.parameters())
    assert f"fcn8s_vgg16: {parameters / 1e6:.2f} M parameters, 2 classes" in text
    assert re.search(r"fc7 \(stride 32, .*pool4 \(stride 16, .*pool3 \(stride 8, sees 44 pixels\)", text)
    assert "seen at 48 x 64" in text
    assert "<script>" in text
    assert "Conv2d" in repr(model), "torch's own list is still there"


def test_network_without_classes_names():
    shown = fcnseg.create_model("fcn32s_vgg16", num_classes=3, width=0.05)._repr_html_()
    assert "M parameters, 3 classes" in read(shown).text


def test_segmentation_is_a_png_with_shares():
    mask = np.zeros((100, 150), np.uint8)
    mask[:25] = 1
    mask[-1] = 255
    segmentation = Segmentation(np.zeros((100, 150, 3), np.uint8), mask, ODD)
    shown = Image.open(BytesIO(segmentation._repr_png_()))
    assert shown.format == "PNG"
    assert shown.width == 150
    overlay = np.asarray(segmentation.overlay())
    np.testing.assert_array_equal(np.asarray(shown)[:100], overlay)
    assert np.asarray(shown)[100:].min() < 100, "a legend stands below"


def test_large_segmentation_is_shown_small():
    segmentation = Segmentation(np.zeros((3000, 4000, 3), np.uint8), np.zeros((3000, 4000), np.uint8), ODD)
    assert Image.open(BytesIO(segmentation._repr_png_())).width == WIDEST


class Counted(CityScenes):
    """Scenes that tell which were read."""

    def __init__(self, length: int) -> None:
        super().__init__(length, size=(24, 32))
        self.read: list[int] = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("length", [0, 1, 9])
def test_dataset_shows_a_few_samples(length):
    scenes = Counted(length)
    shown = scenes._repr_html_()
    assert f"Counted: {length} samples" in read(shown).text
    assert scenes.read == list(range(min(length, MOST)))
    assert ("<img" in shown) == (length > 0)


def test_datasets_made_of_others_show_themselves():
    scenes = CityScenes(6, size=(24, 32))
    for dataset in (Subset(scenes, 0.5), Concat([scenes, scenes]), Remapped(scenes, "cityscapes19")):
        text = read(dataset._repr_html_()).text
        assert f"{type(dataset).__name__}: {len(dataset)} samples" in text
    assert "without labels" in read(WithoutLabels(scenes)._repr_html_()).text


def test_damaged_and_large_files_are_told_of_and_not_read(tmp_path, monkeypatch):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        Image.new("L" if kind == "labels" else "RGB", (8, 8)).save(tmp_path / kind / "a.png")
    dataset = PairedFolder(tmp_path / "images", tmp_path / "labels", STREET11)
    assert "<img" in dataset._repr_html_()
    with monkeypatch.context() as patch:
        patch.setattr("fcnseg.data.showing.BYTES", 10)
        assert "images too large to show" in read(dataset._repr_html_()).text
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    assert "a.png" in read(dataset._repr_html_()).text


def test_data_tells_domains_and_their_places_in_a_batch():
    scenes = CityScenes(7, size=(24, 32))
    data = SegmentationData(
        {"<i>real": scenes, "game": WithoutLabels(scenes)},
        scenes,
        size=(24, 32),
        ratio={"<i>real": 3, "game": 1},
        batch_size=4,
    )
    text = read(data._repr_html_()).text
    assert "24 x 32, keep; batches of 4, 2 of them in an epoch" in text
    assert "<i>realCityScenes73" in text
    assert "gameWithoutLabels71" in text
    assert "validationCityScenes7" in text
    read(SegmentationData({}, scenes, size=None)._repr_html_())
    assert (
        "drawn from all together" in SegmentationData({"a": scenes}, scenes, size=(9, 9), mixing="pooled")._repr_html_()
    )


def test_evaluation_shows_a_row_for_each_class():
    found = Evaluation(np.array([[[6, 2], [0, 8]]]), ("one",), ODD)
    text = read(found._repr_html_()).text
    assert "mean IoU 77.5 % on 1 images" in text
    assert "<script>alert(1)</script>75.075.050.00" in text
    assert "class 1" in read(Evaluation(found.per_image, ("one",))._repr_html_()).text
    absent = np.zeros((1, 2, 2), np.int64)
    absent[0, 0, 0] = 5
    assert "absent" in read(Evaluation(absent, ("one",), ODD)._repr_html_()).text


def test_evaluation_knows_the_networks_classes():
    scenes = CityScenes(1, size=(24, 32))
    model = fcnseg.create_model("fcn32s_vgg16", num_classes=11, width=0.05, label_space=STREET11.to_dict())
    loader = SegmentationData({}, scenes, size=(24, 32), num_workers=0).validation_loader()
    assert evaluate(model, loader).label_space == STREET11


def test_pieces():
    assert html("<&>") == "&lt;&amp;&gt;"
    assert html(Html("<br>")) == "<br>"
    assert "width: 25.0%" in bar(0.25)
    assert "width: 0.0%" in bar(float("nan"))
    assert "&lt;" in table([("<",)])
    encoded = picture(Image.new("RGB", (3000, 30)))
    assert len(encoded) < 20000
