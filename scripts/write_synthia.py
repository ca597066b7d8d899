"""Write the embedded street scenes in the layout of a SYNTHIA package, to try its configs without the download.

A run that was stopped goes on where it was. For example:

    python scripts/write_synthia.py data/synthia --length 400
    fcnseg train data=synthia_rand_cityscapes data.root=data/synthia model.width=0.25
"""

import argparse
import sys

from fcnseg.data.citygen import LOOKS
from fcnseg.data.citygen.synthia_layout import LAYOUTS, write_synthia
from fcnseg.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--length", type=int, default=400, help="how many scenes (%(default)s)")
    parser.add_argument("--layout", choices=LAYOUTS, default="rand_cityscapes", help="which package (%(default)s)")
    parser.add_argument("--look", choices=LOOKS, default="synthetic", help="(%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(180, 240), metavar=("HEIGHT", "WIDTH"), help="(180 240)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other scenes (%(default)s)")
    arguments = vars(parser.parse_args())
    try:
        written = write_synthia(**(arguments | {"size": tuple(arguments["size"])}))
    except InputError as error:
        sys.exit(f"write_synthia: {error}")
    print(f"{written} scenes written, {arguments['length'] - written} were there: {arguments['folder']}")


if __name__ == "__main__":
    main()
