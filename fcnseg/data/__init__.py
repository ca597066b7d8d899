"""Data: label spaces, datasets, augmentation, and batches of one domain or several."""

from fcnseg.data.citygen import CityScenes, write_synthia
from fcnseg.data.datamodule import SegmentationData
from fcnseg.data.dataset import Concat, Remapped, SegmentationDataset, Subset
from fcnseg.data.datasets.camvid import CamVid, CamVid32, camvid32_as_street11
from fcnseg.data.datasets.cityscapes import Cityscapes
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.kitti import Kitti
from fcnseg.data.datasets.pairs import PairedFiles, PairedFolder
from fcnseg.data.datasets.synthia import SynthiaRand, SynthiaRandCityscapes, SynthiaSeqs
from fcnseg.data.datasets.voc import Sbd, Voc
from fcnseg.data.storage.packing import Packed
from fcnseg.label_spaces import LABEL_SPACES
from fcnseg.labels import IGNORE_INDEX, STREET11, LabelSpace

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
    "Packed",
    "PairedFiles",
    "PairedFolder",
    "Remapped",
    "Sbd",
    "SegmentationData",
    "SegmentationDataset",
    "Subset",
    "SynthiaRand",
    "SynthiaRandCityscapes",
    "SynthiaSeqs",
    "Voc",
    "camvid32_as_street11",
    "write_synthia",
]
