"""Data: label spaces, datasets, augmentation, and batches of one domain or several."""

from fcnseg.data.camvid import CamVid
from fcnseg.data.citygen import CityScenes
from fcnseg.data.folder import PairedFolder
from fcnseg.data.module import SegmentationData
from fcnseg.labels import IGNORE_INDEX, STREET11, LabelSpace

__all__ = ["IGNORE_INDEX", "STREET11", "CamVid", "CityScenes", "LabelSpace", "PairedFolder", "SegmentationData"]
