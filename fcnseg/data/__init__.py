"""Data: label spaces, datasets, augmentation, and batches of one domain or several."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcnseg.data.citygen import CityScenes, write_synthia
    from fcnseg.data.datamodule import SegmentationData
    from fcnseg.data.dataset import Concat, Remapped, SegmentationDataset, Subset, WithoutLabels
    from fcnseg.data.datasets.camvid import CamVid, CamVid32, camvid32_as_street11
    from fcnseg.data.datasets.cityscapes import Cityscapes
    from fcnseg.data.datasets.described import Described
    from fcnseg.data.datasets.kitti import Kitti
    from fcnseg.data.datasets.laid_out import LaidOut
    from fcnseg.data.datasets.pairs import PairedFiles, PairedFolder
    from fcnseg.data.datasets.synthia import SynthiaRand, SynthiaRandCityscapes, SynthiaSeqs
    from fcnseg.data.datasets.unlabelled import Unlabelled
    from fcnseg.data.datasets.voc import Sbd, Voc
    from fcnseg.data.datasets.volumes import Slices
    from fcnseg.data.datasets.windows import Windows
    from fcnseg.data.storage.packed import Packed
    from fcnseg.data.targets import Targets
    from fcnseg.label_spaces import LABEL_SPACES
    from fcnseg.labels import IGNORE_INDEX, STREET11, LabelSpace

# Names load on first use: prediction needs neither Lightning nor albumentations, which take seconds to import.
_HOMES = {
    "IGNORE_INDEX": "fcnseg.labels",
    "LABEL_SPACES": "fcnseg.label_spaces",
    "STREET11": "fcnseg.labels",
    "CamVid": "fcnseg.data.datasets.camvid",
    "CamVid32": "fcnseg.data.datasets.camvid",
    "CityScenes": "fcnseg.data.citygen",
    "Cityscapes": "fcnseg.data.datasets.cityscapes",
    "Concat": "fcnseg.data.dataset",
    "Described": "fcnseg.data.datasets.described",
    "Kitti": "fcnseg.data.datasets.kitti",
    "LabelSpace": "fcnseg.labels",
    "LaidOut": "fcnseg.data.datasets.laid_out",
    "Packed": "fcnseg.data.storage.packed",
    "PairedFiles": "fcnseg.data.datasets.pairs",
    "PairedFolder": "fcnseg.data.datasets.pairs",
    "Remapped": "fcnseg.data.dataset",
    "Sbd": "fcnseg.data.datasets.voc",
    "SegmentationData": "fcnseg.data.datamodule",
    "SegmentationDataset": "fcnseg.data.dataset",
    "Slices": "fcnseg.data.datasets.volumes",
    "Subset": "fcnseg.data.dataset",
    "SynthiaRand": "fcnseg.data.datasets.synthia",
    "SynthiaRandCityscapes": "fcnseg.data.datasets.synthia",
    "SynthiaSeqs": "fcnseg.data.datasets.synthia",
    "Targets": "fcnseg.data.targets",
    "Unlabelled": "fcnseg.data.datasets.unlabelled",
    "Voc": "fcnseg.data.datasets.voc",
    "Windows": "fcnseg.data.datasets.windows",
    "WithoutLabels": "fcnseg.data.dataset",
    "camvid32_as_street11": "fcnseg.data.datasets.camvid",
    "write_synthia": "fcnseg.data.citygen",
}

__all__ = [
    "IGNORE_INDEX",
    "LABEL_SPACES",
    "STREET11",
    "CamVid",
    "CamVid32",
    "CityScenes",
    "Cityscapes",
    "Concat",
    "Described",
    "Kitti",
    "LabelSpace",
    "LaidOut",
    "Packed",
    "PairedFiles",
    "PairedFolder",
    "Remapped",
    "Sbd",
    "SegmentationData",
    "SegmentationDataset",
    "Slices",
    "Subset",
    "SynthiaRand",
    "SynthiaRandCityscapes",
    "SynthiaSeqs",
    "Targets",
    "Unlabelled",
    "Voc",
    "Windows",
    "WithoutLabels",
    "camvid32_as_street11",
    "write_synthia",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fcnseg.data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
