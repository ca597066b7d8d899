"""How far the embedded scenes are from CamVid: brightness, colour, texture and frequency of every class.

Example: python scripts/domain_gap.py --root PATH/TO/camvid
Prints for every class its brightness relative to the road's in the same image, saturation, texture, the share of the
images that show it and its share of their pixels. The tones of the look "photo" were chosen by this table.
"""

import argparse

import cv2
import numpy as np

from fcnseg.data import STREET11, CamVid, CityScenes
from fcnseg.data.citygen import LOOKS
from fcnseg.data.dataset import SegmentationDataset
from fcnseg.data.resizing import resize_image, resize_mask

SIZE = (120, 180)
LEAST = 15  # pixels of a class for an image to count as showing it
COLUMNS = ("of road", "saturation", "texture", "images %", "pixels %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid, with train/ and trainannot/")
    parser.add_argument("--images", type=int, default=92, help="of each dataset, evenly spread (default: %(default)s)")
    arguments = parser.parse_args()
    sets: dict[str, SegmentationDataset] = {"CamVid": CamVid(arguments.root, "train")}
    sets |= {look: CityScenes(arguments.images, look=look, size=(180, 240)) for look in LOOKS}
    tables = {name: measure(dataset, arguments.images) for name, dataset in sets.items()}
    print(f"{'':12}{'':11}" + "".join(f"{column:>12}" for column in COLUMNS))
    for index, name in enumerate(STREET11.classes):
        for source, table in tables.items():
            print(f"{name:12}{source:11}" + "".join(f"{value:12.2f}" for value in table[index]))


def measure(dataset: SegmentationDataset, images: int) -> np.ndarray:
    """(classes, 5) medians over `images` images, evenly spread over the dataset; columns as in `COLUMNS`."""
    found = [tones(*dataset[int(i)][:2]) for i in np.linspace(0, len(dataset) - 1, images)]
    values = np.stack(found)  # (images, classes, 4)
    shown = ~np.isnan(values[..., 3])
    medians = np.stack([np.nanmedian(values[:, k], axis=0) for k in range(values.shape[1])])
    return np.column_stack([medians[:, :3], 100 * shown.mean(axis=0), 100 * np.nanmean(values[..., 3], axis=0)])


def tones(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(classes, 4) of one image: brightness relative to road, saturation 0 to 255, texture in grey levels, share."""
    image, mask = resize_image(image, SIZE), resize_mask(mask, SIZE)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    road = mask == STREET11.classes.index("road")
    unit = np.median(grey[road]) if road.sum() >= LEAST else np.nan
    rows = np.full((STREET11.num_classes, 4), np.nan)
    for index in range(STREET11.num_classes):
        inside = mask == index
        if inside.sum() >= LEAST:
            rows[index] = grey[inside].mean() / unit, saturation[inside].mean(), fine[inside].std(), inside.mean()
    return rows


if __name__ == "__main__":
    main()
