"""Every command line that README, notebooks and `--help` show, carried out as it is printed, over small files.

Trainings and benchmarks are made short by further overrides, and what is compiled is traced and not turned into
kernels; nothing else is changed.
"""

import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
import torch
from large_raster_training import write_rasters
from PIL import Image
from rasterio.transform import from_origin

from fcnseg.commands.cli import EXAMPLE
from fcnseg.data.citygen import CityScenes
from fcnseg.inference.video import write_video
from fcnseg.labels import STREET11, VOC21
from fcnseg.models import create_model, factorise
from fcnseg.models.sources import DEMO
from tests.data import layouts
from tests.models.foreign import written

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text()

LEFT_OUT = {
    "model.weights=imagenet": "downloads",
    "srun ": "wants SLURM: test_launchers.py",
    "NODE_RANK=": "wants a second machine: test_launchers.py",
    "torchrun ": "starts processes: test_launchers.py",
    "hydra/launcher=": "starts processes: test_clusters.py, test_slurm.py",
    "hydra/sweeper=": "trains 20 times: test_clusters.py",
    "make ": "runs these tests, or takes minutes",
    "python scripts/bgc_study.py": "takes hours: tests/scripts",
    "python scripts/speed_ladder.py": "takes hours: tests/scripts",
    "protocol=synthia_to_cityscapes": "wants a network of 19 classes: test_evaluate.py",
    "data.packed=s3://": "wants an object store: tests/data/storage/test_object_store.py",
    "format=checkpoint": "wants a run on several processes: test_fsdp.py",
    "format=litert": "wants an environment of its own: tests/export",
    "fcnseg rerun": "wants a run: test_rerun.py",
    "python scripts/gpu_report.py": "wants a GPU: tests/scripts",
}
"""What tells a line that is not carried out here, and why."""

STANDS_FOR = {
    "COMMAND": "train",
    "regime=NAME": "regime=bgc",
    "checkpoint=PATH": f"checkpoint={DEMO}",
    "images=FOLDER": "images=PATH/train",
    "labels=FOLDER": "labels=PATH/trainannot",
    "val_images=FOLDER": "val_images=PATH/val",
    "val_labels=FOLDER": "val_labels=PATH/valannot",
    "model=[PATH,demo]": f"model=[{DEMO},demo]",
}
"""Words for something of the user's, where there is no file of that very name."""

TRAIN = (
    "data.size=[24,32]", "data.num_workers=0", "data.batch_size=4", "model.width=0.05", "trainer.max_steps=2",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "callbacks.progress=null", "logger.tensorboard=null",
)  # fmt: skip

EXPORT = ("checkpoint=tiny", "calibration_images=4", "agreement=0.5")
"""An export takes a minute with the demo's network."""

BENCHMARK = ("size=[24,32]", "width=0.05", "rounds=1", "memory=false")
"""Memory is measured in a process for each row: test_benchmark.py."""


def printed() -> list[str]:
    """The lines, without what is said beside them."""
    texts = [README, EXAMPLE]
    for path in sorted((HERE / "configs").glob("*.yaml")):
        texts += re.findall(r"^    +examples:\n(?:.+\n)+", path.read_text(), re.MULTILINE)
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    lines = []
    for text in texts:
        lines += re.findall(r"^ +((?:[A-Z_]+=\S+ )*(?:fcnseg|torchrun|srun|make|python) .*)$", text, re.MULTILINE)
        lines += re.findall(r"`(fcnseg [^`\n]+ [^`\n]+)`", text)
    said_beside = r" {3,}.*| #.*| \[the same settings\]| \.\.\."
    return list(dict.fromkeys(re.sub(said_beside, "", line).strip() for line in lines if line != "fcnseg data create"))


def carried_out() -> list[str]:
    return [line for line in printed() if not any(part in line for part in LEFT_OUT)]


def shortened(line: str) -> list[str]:
    """The line's words, and the overrides that keep what it does small."""
    words = shlex.split(line)[1:]
    words = [STANDS_FOR.get(word, word) for word in words]
    if "input=scan.nii.gz" in words:
        words[1] = "checkpoint=organs"
    words = [word.replace("trainannot", "colours") if "labels_as=colour" in line else word for word in words]
    embedded = "camvid" not in line and "data=" not in line
    if words[0] == "evaluate":
        return [*words, "data.val.length=2"] if embedded else words
    if words[0] == "export":
        return [*words, *EXPORT]
    if words[0] == "benchmark":
        return [*words, *BENCHMARK]
    if words[0] != "train" or "--help" in words:
        return words
    domains = ["real", "synthetic"] if embedded else ["synthetic"] if "bgc" in line else []
    lengths = [f"data.train.{name}.length=4" for name in domains] + ["data.val.length=2"] * embedded
    processes = ["trainer.devices=1"] if "trainer=" in line else []
    return [*words, *TRAIN, *lengths, *processes]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the lines name: a data set in CamVid's layout, photographs, networks in Caffe's format."""
    folder = tmp_path_factory.mktemp("user")
    scenes = CityScenes(16, 0, "real", (48, 64))
    for number in range(16):
        image, mask, name = scenes[number]
        for split, root in (
            (split, folder / root) for split in ("train", "val") for root in ("PATH", "PATH/TO/camvid")
        ):
            if (split == "val") == (number >= 8):
                save(root / split / f"{name}.png", image)
                save(root / f"{split}annot" / f"{name}.png", np.where(mask == 255, 11, mask).astype(np.uint8))
        if number < 8:
            save(folder / "grey" / f"{name}.png", image.mean(axis=2).astype(np.uint8))
            save(folder / "PATH/colours" / f"{name}.png", np.array(VOC21.palette, np.uint8)[mask % 21])
    image = scenes[0][0]
    for path in ("photo.jpg", "photos/1_left.png", "a/0001.png", "b/0001.png", "FILE_OR_FOLDER/photo.png"):
        save(folder / path, image)
    ground = {"crs": "EPSG:32633", "transform": from_origin(500000, 4649000, 0.3, 0.3)}
    size = {"height": image.shape[0], "width": image.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", **size, **ground) as scene:
        scene.write(np.moveaxis(image, 2, 0))
    write_rasters(folder / "PATH", 64)
    volumes(folder / "PATH" / "volumes")
    nibabel.Nifti1Image(np.zeros((40, 32, 2), np.float32), np.eye(4)).to_filename(folder / "scan.nii.gz")
    layouts.kitti(folder / "PATH" / "kitti", 4, (48, 64))
    (folder / "streets.yaml").write_text(re.findall(r"```yaml\n(name: streets\n.*?)```", README, re.DOTALL)[0])
    write_video(folder / "drive.mp4", [image] * 3, 10)
    labels = sorted((folder / "PATH/trainannot").iterdir())
    (folder / "classes.txt").write_text("\n".join([*STREET11.classes, "unlabelled"]))
    pairs = [f"grey/{path.name},PATH/trainannot/{path.name}" for path in labels]
    (folder / "pairs.csv").write_text("\n".join(["image,label", *pairs]))
    tiny = create_model("fcn32s_vgg16", num_classes=11, width=0.05, label_space=STREET11.to_dict())
    tiny.save_pretrained(folder / "tiny")
    organs = {"mean": [0.5] * 3, "std": [0.3] * 3, "image_type": "float32", "scaling": "window:40:400"}
    create_model("fcn32s_alexnet", num_classes=3, width=0.05, **organs).save_pretrained(folder / "organs")
    factorise(create_model("fcn8s_vgg16", num_classes=11, width=0.05), 128).save_pretrained(folder / "small")
    caffe(folder / "VGG_ILSVRC_16_layers.caffemodel", "fcn32s_vgg16")
    caffe(folder / "bvlc_reference_caffenet.caffemodel", "fcn32s_caffenet")
    trunk = create_model("fcn32s_vgg16", num_classes=2, width=0.05).backbone
    torch.save(trunk.state_dict(), folder / "vgg16_trunk.pth")
    return folder


def volumes(folder: Path) -> None:
    """Two volumes of three slices in NIfTI, with their labels."""
    (folder / "classes.txt").parent.mkdir()
    (folder / "classes.txt").write_text("other\nliver\n")
    for number in range(2):
        for name, values in (("images", 300), ("labels", 2)):
            (folder / name).mkdir(exist_ok=True)
            voxels = np.random.default_rng(number).integers(0, values, (30, 40, 3)).astype(np.int16)
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(folder / name / f"{number}.nii.gz")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def caffe(path: Path, name: str, width: float = 0.05) -> None:
    """Weights in Caffe's own format."""
    layers: dict[str, list[np.ndarray]] = {}
    for key, value in create_model(name, num_classes=21, padding="caffe", width=width).state_dict().items():
        layers.setdefault(key.removeprefix("backbone.").rpartition(".")[0], []).append(value.numpy())
    written(path, layers)


BEFORE = {
    "checkpoint=model.onnx": ["fcnseg export checkpoint=tiny output=model.onnx"],
    "runs/camvid_quick/TIME": ["fcnseg train data=camvid data.root=PATH hydra.run.dir=runs/camvid_quick/TIME"],
    "runs/NAME/ONE": ["fcnseg train hydra.run.dir=runs/NAME/ONE", "fcnseg train hydra.run.dir=runs/NAME/OTHER"],
    "runs/NAME/TIME": ["fcnseg train hydra.run.dir=runs/NAME/TIME"],
    "OLD": ["fcnseg train hydra.run.dir=OLD"],
    "resume=runs/camvid_staged/TIME": [
        "fcnseg train experiment=camvid_staged data.root=PATH hydra.run.dir=runs/camvid_staged/TIME"
    ],
    "=dataset.yaml": ["fcnseg data create images=FOLDER labels=FOLDER classes=classes.txt output=dataset.yaml"],
    "runs/raster/TIME": [
        "fcnseg train data=raster data.root=PATH data.reading.channels=5 hydra.run.dir=runs/raster/TIME"
    ],
    "packed=packed": [
        "fcnseg data pack data=camvid data.root=PATH output=packed",
        "fcnseg data pack data=camvid data.root=PATH output=packed/camvid",
    ],
}
"""What is carried out before a line that names this."""


@pytest.mark.slow
@pytest.mark.parametrize("line", carried_out())
def test_a_line_that_is_printed(fcnseg, user, tmp_path, capsys, monkeypatch, line):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    shutil.copytree(user, tmp_path, dirs_exist_ok=True)
    if "heavy-pascal" in line:
        caffe(tmp_path / "fcn8s-heavy-pascal.caffemodel", "fcn8s_vgg16", width=0.25)
    before = next((lines for part, lines in BEFORE.items() if part in line and f"output{part}" not in line), [])
    for each in [*before, line]:
        assert fcnseg(*shortened(each)) == 0, capsys.readouterr().err
    if " train " in line and "--help" not in line:
        assert list((tmp_path / "NEW" if "=NEW" in line else tmp_path / "runs").rglob("metrics.json"))


@pytest.mark.parametrize("part", LEFT_OUT)
def test_what_is_left_out_is_printed(part):
    assert any(part in line for line in printed())
