"""Draw the README's picture: streets that a network has not seen, and what it makes of them.

Run it on the demo's checkpoint:

    python scripts/demo_picture.py runs/demo/TIME/checkpoints/last.ckpt .github/demo.png
"""

import argparse

from PIL import Image

import fcnseg
from fcnseg.data import CityScenes
from fcnseg.inference.overlay import add_legend

SCENES = (0, 2, 5, 7)
SIZE = (180, 240)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("output")
    arguments = parser.parse_args()
    predictor = fcnseg.Predictor.from_pretrained(arguments.checkpoint)
    height, width = SIZE
    scenes = CityScenes(max(SCENES) + 1, seed=2, look="real", size=SIZE)
    sheet = Image.new("RGB", (len(SCENES) * width, 2 * height))
    for column, index in enumerate(SCENES):
        segmentation = predictor(scenes[index][0])
        sheet.paste(Image.fromarray(segmentation.image), (column * width, 0))
        sheet.paste(segmentation.overlay(opacity=0.7), (column * width, height))
    add_legend(sheet, predictor.label_space).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
