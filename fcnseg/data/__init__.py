"""Data: label spaces, datasets, augmentation, and batches of one domain or several."""

from fcnseg.data.camvid import CamVid, CamVid32, camvid32_as_street11
from fcnseg.data.citygen import CityScenes
from fcnseg.data.cityscapes import Cityscapes
from fcnseg.data.described import Described
from fcnseg.data.folder import PairedFiles, PairedFolder
from fcnseg.data.kitti import Kitti
from fcnseg.data.module import SegmentationData
from fcnseg.data.packing import Packed
from fcnseg.data.part import Part
from fcnseg.data.remapped import Remapped
from fcnseg.data.synthia import SynthiaRand, SynthiaRandCityscapes, SynthiaSeqs
from fcnseg.data.synthia_scenes import write_synthia
from fcnseg.data.voc import Sbd, Voc
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
    "Described",
    "Kitti",
    "LabelSpace",
    "Packed",
    "PairedFiles",
    "PairedFolder",
    "Part",
    "Remapped",
    "Sbd",
    "SegmentationData",
    "SynthiaRand",
    "SynthiaRandCityscapes",
    "SynthiaSeqs",
    "Voc",
    "camvid32_as_street11",
    "write_synthia",
]
