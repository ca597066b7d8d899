"""Which files are made of images, and where: masks, overlays, probabilities, entropy, areas and polygons."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnseg.inference.areas import AreaTable, count_pixels
from fcnseg.inference.georeference import Georeference, import_rasterio, read_georeference
from fcnseg.inference.naming import with_ending
from fcnseg.inference.polygons import CocoFile, Region, find_regions, save_geojson
from fcnseg.inference.probabilities import save_entropy, save_probabilities
from fcnseg.inference.scene import lies_on_the_ground, open_scene
from fcnseg.inference.scene_files import surfaces_file, write_mask
from fcnseg.inference.segmentation import Segmentation
from fcnseg.labels import LabelSpace
from fcnseg.models.spec import ModelSpec


@dataclass(frozen=True)
class Wanted:
    """What is made of each image beside its mask.

    Attributes:
        overlays: pictures with a legend.
        probabilities: of the classes: .npz; of images on the ground or computed by windows bands of a GeoTIFF.
        entropy: grey pictures, or a GeoTIFF as of probabilities.
        areas: a table of all images, areas.csv.
        coco, geojson: polygons, in one file of all images or in one for each.
        tolerance, least_pixels: of polygons, see `find_regions`.
        opacity: of overlays.
    """

    overlays: bool = True
    probabilities: bool = False
    entropy: bool = False
    areas: bool = False
    coco: bool = False
    geojson: bool = False
    tolerance: float = 0.0
    least_pixels: int = 1
    opacity: float = 0.5

    @property
    def folders(self) -> list[str]:
        """What is made in the output."""
        kinds = ("overlays", "probabilities", "entropy", "geojson")
        return ["masks", *(kind for kind in kinds if getattr(self, kind))]


class Results:
    """Writes what is made of images; a context manager, at whose end the files of all images appear.

    Args:
        folder: the output.
        wanted: what is made.
        label_space: of the masks.
    """

    def __init__(self, folder: Path, wanted: Wanted, label_space: LabelSpace) -> None:
        self.folder, self.wanted, self.label_space = folder, wanted, label_space
        self._stack = ExitStack()
        self._table: AreaTable | None = None
        self._coco: CocoFile | None = None
        if wanted.coco or wanted.geojson:
            import_rasterio("polygons")

    def __enter__(self) -> "Results":
        if self.wanted.areas:
            self._table = self._stack.enter_context(AreaTable(self.folder / "areas.csv", self.label_space))
        if self.wanted.coco:
            self._coco = self._stack.enter_context(CocoFile(self.folder / "coco.json", self.label_space))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def summarises(self) -> bool:
        """Whether `note` makes anything of masks."""
        return self.wanted.areas or self.wanted.coco or self.wanted.geojson

    def place(self, kind: str, name: Path, ending: str = ".png") -> Path:
        """Where a file of an image goes."""
        return self.folder / kind / with_ending(name, ending)

    def write(self, found: Segmentation, name: Path, spec: ModelSpec) -> None:
        """Write an image's own files; from any thread."""
        overlay = self.place("overlays", name) if self.wanted.overlays else None
        if found.source is not None and lies_on_the_ground(found.source):
            self._write_rasters(found, found.source, name, spec)
            found.save(None, overlay, self.wanted.opacity)
            return
        found.save(self.place("masks", name), overlay, self.wanted.opacity)
        if self.wanted.probabilities and found.probabilities is not None:
            save_probabilities(found.probabilities, self.label_space, self.place("probabilities", name, ".npz"))
        if self.wanted.entropy and found.entropy is not None:
            save_entropy(found.entropy, self.place("entropy", name))

    def _write_rasters(self, found: Segmentation, source: Path, name: Path, spec: ModelSpec) -> None:
        """On the ground that the image lies on."""
        with open_scene(source, spec) as scene:
            write_mask(found.mask, self.label_space, scene, self.place("masks", name, ".tif"))
            if self.wanted.probabilities and found.probabilities is not None:
                path = self.place("probabilities", name, ".tif")
                with surfaces_file(scene, self.label_space.classes, path) as write:
                    write(0, 0, found.probabilities)
            if self.wanted.entropy and found.entropy is not None:
                with surfaces_file(scene, ("entropy",), self.place("entropy", name, ".tif")) as write:
                    write(0, 0, found.entropy[None])

    def note(self, source: Path, name: Path, mask: np.ndarray | Path) -> None:
        """Add an image to the files of all images, and write its polygons; from one thread, in order.

        Args:
            source: the image.
            name: what its results are called.
            mask: (H, W) class indices, or the file that has them.
        """
        if not self.summarises:
            return
        place = read_georeference(source) if lies_on_the_ground(source) else None
        pixels = _read(mask) if isinstance(mask, Path) else mask
        called = name.parent / source.name
        if self._table is not None:
            area = place.pixel_area if place else None
            self._table.add(called.as_posix(), count_pixels(pixels, self.label_space), area)
        if self._coco is not None:
            self._coco.add(called.as_posix(), (pixels.shape[0], pixels.shape[1]), self._regions(pixels))
        if self.wanted.geojson:
            self._geojson(name, pixels, place)

    def _geojson(self, name: Path, pixels: np.ndarray, place: Georeference | None) -> None:
        save_geojson(self._regions(pixels), self.label_space, self.place("geojson", name, ".geojson"), place)

    def _regions(self, pixels: np.ndarray) -> Iterator[Region]:
        return find_regions(pixels, tolerance=self.wanted.tolerance, least_pixels=self.wanted.least_pixels)


def _read(mask: Path) -> np.ndarray:
    with import_rasterio("masks of large images").open(mask) as raster:
        return raster.read(1)
