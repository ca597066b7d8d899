"""Sound files of every kind that the library reads, small, and how each is read; for scripts/fuzz_readers.py."""

import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import rasterio
import safetensors.torch
import scipy.io
import torch
import yaml
from fuzz_bombs import any_archive, any_pickle, any_text
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import fcnseg
from fcnseg.classes import label_space_from_file
from fcnseg.data import CityScenes, LaidOut, PairedFiles
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.synthia import read_text
from fcnseg.data.datasets.voc import Sbd
from fcnseg.data.files.images import image_size, read_image, read_label
from fcnseg.data.files.volumes import open_volume
from fcnseg.data.files.windows import image_window
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack
from fcnseg.errors import InputError
from fcnseg.inference.exported.network import parse_facts
from fcnseg.labels import STREET11
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.description import describe_weights
from fcnseg.models.pickles import read_torch
from fcnseg.models.sharded import HEAD, SHARDS, read_checkpoint
from fcnseg.models.spec import read_spec
from fcnseg.training.checkpoints import AtomicCheckpointIO
from fcnseg.training.sharding import save_sharded

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Seed:
    """A sound file.

    Attributes:
        kind: what it is called.
        name: of the file within its folder, whose other files stay sound.
        content: its bytes.
        read: reads it, and all that follows from it, given its path.
        make: makes another file of the kind, at random, in place of changing this one.
        plain: gives the plain values that it consists of, to be changed and written again, and `write` their bytes.
    """

    kind: str
    name: str
    content: bytes
    read: Read
    plain: Any = None
    write: Callable[[Any], bytes] | None = None
    make: Callable[[np.random.Generator], bytes] | None = None


def seeds(folder: Path) -> list[Seed]:
    """Every seed; what must lie beside some of them is written into the folder."""
    return [*pictures(), *rasters(), *volumes(folder), *texts(folder), *models(folder), *packs(folder)]


def read_picture(path: Path) -> None:
    """As an image, as a label, and by its size alone; what keeps it from being an image is told."""
    for read in (read_label, image_size):
        with suppress(InputError):
            read(path)
    read_image(path)


def pictures() -> list[Seed]:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (24, 32, 3), np.uint8)
    grey = Image.fromarray(colour[..., 0] % 12)
    palette = grey.convert("P")
    palette.putpalette(list(range(256)) * 3)
    made = {
        "png rgb": (Image.fromarray(colour), {"format": "PNG"}),
        "png grey": (grey, {"format": "PNG"}),
        "png palette": (palette, {"format": "PNG", "transparency": 3}),
        "png bits": (grey.convert("1"), {"format": "PNG", "bits": 1}),
        "png rgba": (Image.fromarray(colour).convert("RGBA"), {"format": "PNG"}),
        "jpeg": (Image.fromarray(colour), {"format": "JPEG"}),
        "tiff": (Image.fromarray(colour), {"format": "TIFF"}),
        "bmp": (Image.fromarray(colour), {"format": "BMP"}),
        "webp": (Image.fromarray(colour), {"format": "WEBP", "lossless": True}),
        "ppm": (Image.fromarray(colour), {"format": "PPM"}),
    }
    found = []
    for kind, (image, options) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, **options)
        ending = {"jpeg": "jpg", "tiff": "tif"}.get(kind, kind.split()[0])
        found.append(Seed(kind, f"picture.{ending}", buffer.getvalue(), read_picture))
    deep = cv2.imencode(".png", rng.integers(0, 65536, (24, 32, 3), np.uint16))[1].tobytes()
    return [*found, Seed("png 16 bits", "picture.png", deep, read_picture)]


def rasters() -> list[Seed]:
    def read(path: Path) -> None:
        image_window(path, 4, ((3, 20), (5, 30)))
        read_image(path, 4)

    made = []
    for dtype, options in (
        ("float32", {"nodata": -1}),
        ("uint16", {"tiled": True, "blockxsize": 16, "blockysize": 16}),
    ):
        with rasterio.MemoryFile() as memory:
            size = {"height": 24, "width": 32, "count": 4, "dtype": dtype, "compress": "deflate"}
            with memory.open(driver="GTiff", **size, **options) as raster:
                raster.write(np.random.default_rng(0).integers(0, 500, (4, 24, 32)).astype(dtype))
            made.append(Seed(f"geotiff {dtype}", "scene.tif", bytes(memory.getbuffer()), read))
    return made


def volumes(folder: Path) -> list[Seed]:
    values = np.random.default_rng(0).integers(-500, 500, (8, 9, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.eye(4))
    plain, packed = image.to_bytes(), folder / "made.nii.gz"
    image.to_filename(packed)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 8, 9, 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation, file.RescaleSlope, file.RescaleIntercept = 15, 1, 1, -1024
    file.PixelData = values[..., 0].tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)

    def read(path: Path) -> None:
        volume = open_volume(path)
        volume.around(volume.shape[0] // 2, 1)

    contents = {"scan.nii": plain, "scan.nii.gz": packed.read_bytes(), "scan.dcm": buffer.getvalue()}
    return [Seed(name.partition(".")[2], name, content, read) for name, content in contents.items()]


def read_laid_out(path: Path) -> None:
    """Each of its splits; what keeps the first from being one is told."""
    for split in ("test", "small", "few"):
        with suppress(InputError):
            LaidOut(path, path.parent, split)[0]
    LaidOut(path, path.parent)[0]


def texts(folder: Path) -> list[Seed]:
    save(folder / "image.png", np.zeros((24, 32, 3), np.uint8))
    save(folder / "label.png", np.zeros((24, 32), np.uint8))
    save(folder / "01.png", np.zeros((24, 32, 3), np.uint8))
    (folder / "names.txt").write_text("image\n")
    scipy.io.savemat(folder / "names.mat", {"x": np.array([[1]])})
    pair = {"name": "a", "image": "image.png", "label": "label.png", "image_sha256": "", "label_sha256": ""}
    described = {
        "format": "fcnseg dataset", "version": 1, "label_space": STREET11.to_dict(),
        "reading": {"channels": 3, "labels_as": "index", "ignored_colours": []},
        "images": {"channels": 3, "dtype": "uint8", "mean": [9.0] * 3, "std": [9.0] * 3, "clip": None},
        "splits": {"train": {"pairs": [pair]}},
    }  # fmt: skip
    layout = {
        "name": "streets", "images": "{name}.png", "sizes": "differ", "exclude": ["x"],
        "labels": {"ids": {"files": "label.png", "classes": [[0, "road", [1, 2, 3]], [1, "car", [4, 5, 6]]]}},
        "splits": {
            "train": {"count": 2}, "test": {"labels": None}, "small": {"list": "names.txt", "exclude": ["x"]},
            "few": {"folder": "train", "list": {"file": "names.mat", "variable": "x", "digits": 2}},
        },
        "names": "{name}", "becomes": {"street11": {"road": "road"}}, "channels": 3, "scaling": None,
    }  # fmt: skip
    boundaries = np.zeros((24, 32), np.uint8)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": boundaries}}, do_compression=True)
    matlab = buffer.getvalue()
    sbd = Sbd.__new__(Sbd)
    text = "\n".join(" ".join(str(v % 12) for v in range(row, row + 32)) for row in range(24))
    return [
        Seed("dataset.yaml", "dataset.yaml", dump(described), lambda p: Described(p)[0], described, dump),
        Seed("yaml", "any.yaml", dump(layout), read_laid_out, make=partial(any_text, sound=dump(layout))),
        Seed("layout", "layout.yaml", dump(layout), read_laid_out, layout, dump),
        Seed("csv", "pairs.csv", b"image,label\nimage.png,label.png\n", lambda p: PairedFiles(p, STREET11)[0]),
        Seed("classes", "classes.txt", "\n".join(STREET11.classes).encode(), label_space_from_file),
        Seed("text labels", "label.txt", text.encode(), read_text),
        Seed("matlab", "label.mat", matlab, sbd.read_values),
    ]


def models(folder: Path) -> list[Seed]:
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=2, width=0.02)
    model.save_pretrained(folder / "model")
    config = json.loads((folder / "model/config.json").read_text())
    weights = (folder / "model/model.safetensors").read_bytes()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    checkpoint = {"hyper_parameters": {"spec": model.spec.to_dict()}, "state_dict": state, "provenance": {}}
    foreign = {"conv1_1.weight": torch.zeros(8, 3, 3, 3), "score_fr.weight": torch.zeros(2, 8, 1, 1)}
    net = NetParameter()
    for name, shape in ((b"conv1_1", (8, 3, 3, 3)), (b"score_fr", (2, 8, 1, 1))):
        blob = net.layer.add(name=name).blobs.add(data=[bytes(4 * int(np.prod(shape)))])
        blob.shape.dim.extend(shape)

    facts = {
        "format_version": 1, "library": "fcnseg", "architecture": model.spec.to_dict(), "normalise": True,
        "argmax": False, "precision": "32-true", "tiling": {"step": 32, "before": 90, "after": 90}, "size": [64, 64],
    }  # fmt: skip

    return [
        Seed("config.json", "model/config.json", encode(config), fcnseg.from_pretrained, config, encode),
        Seed("safetensors", "model/model.safetensors", weights, fcnseg.from_pretrained),
        Seed("checkpoint", "last.ckpt", saved(checkpoint), fcnseg.from_pretrained, checkpoint, saved),
        Seed("pth", "net.pth", saved(foreign), describe_weights, foreign, saved),
        Seed("caffemodel", "net.caffemodel", net.SerializeToString(), describe_weights),
        Seed("pickle", "any.ckpt", saved(checkpoint), read_pickle, make=any_pickle),
        Seed("archive", "any.pth", saved(foreign), describe_weights, make=partial(any_archive, sound=saved(foreign))),
        Seed("metadata", "facts.json", encode(facts), read_facts, facts, encode),
        *shares(folder, checkpoint),
    ]


def shares(folder: Path, checkpoint: dict[str, Any]) -> list[Seed]:
    """The two files of a checkpoint that one process has written its share of, each beside the other one."""
    names = [name.removeprefix("model.") for name in checkpoint["state_dict"]]
    optimizer = {"state": {"x": {"momentum": torch.ones(3, 2)}}, "param_groups": [{"params": ["x", *names]}]}
    for name in ("shares_head", "shares"):
        save_sharded({**checkpoint, "optimizer_states": [optimizer]}, folder / name, AtomicCheckpointIO())
    head, shard = folder / "shares_head" / HEAD, next((folder / "shares").glob("*.safetensors"))
    plain = read_torch(head)

    def read_shard(path: Path) -> None:
        """As a shard of the size that the head has for it: others are refused at once."""
        torch.save({**plain, SHARDS: {path.name: path.stat().st_size}}, path.with_name(HEAD))
        read_shares(path)

    return [
        Seed("head of shares", f"shares_head/{HEAD}", head.read_bytes(), read_shares, plain, saved),
        Seed("share", f"shares/{shard.name}", shard.read_bytes(), read_shard),
    ]


def read_shares(path: Path) -> None:
    """With the optimisers' state, and as a model."""
    with suppress(InputError):
        read_checkpoint(path.parent)
    fcnseg.from_pretrained(path.parent)


def read_pickle(path: Path) -> None:
    """Also what is in it, of which only a checkpoint makes a model."""
    with suppress(InputError):
        fcnseg.from_pretrained(path)
    read_torch(path)


def read_facts(path: Path) -> None:
    """What an exported network tells of itself, as it would stand in its file."""
    try:
        facts = parse_facts(path, path.read_text())
    except (ValueError, RecursionError) as error:  # readers of such files name all of them
        raise InputError(f"{path}: {error}") from error
    read_spec(facts["architecture"], str(path))


def packs(folder: Path) -> list[Seed]:
    scenes = CityScenes(3, 0, "real", (24, 32))
    pack({"scenes": scenes}, scenes, folder / "pack")

    def read(path: Path) -> None:
        found = Packed(path.parent)
        for index in range(len(found)):
            found[index]

    found = []
    for path in sorted((folder / "pack/val").iterdir()):
        if path.name.startswith("."):
            continue
        plain = json.loads(path.read_bytes()) if path.suffix == ".json" else None
        kind = f"pack {path.name}"
        found.append(Seed(kind, f"pack/val/{path.name}", path.read_bytes(), read, plain, encode if plain else None))
    return found


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


def dump(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def quiet() -> None:
    """Nothing on the terminal from libraries that print what they think of a file."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    safetensors.torch.load(safetensors.torch.save({"a": torch.zeros(1)}))
