"""litdata's index of a packed dataset, which says how bytes of the shards become objects.

It may ask for any of litdata's two dozen serialisers, of which some unpickle, that is run code of the file's choice,
and for classes by the name of their module. Nothing is taken but what `pack` writes: arrays, a name and a number.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fcnseg.data.storage.folders import within
from fcnseg.errors import InputError

INDEX = "index.json"
FIELDS = ("image", "mask", "name", "checksum")

_leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_spec = [1, {"type": "builtins.dict", "context": json.dumps(FIELDS), "children_spec": [_leaf] * len(FIELDS)}]

EXPECTED: dict[str, list[Any]] = {
    "data_format": [[array, array, "str", "int"] for array in ("numpy", "no_header_numpy:4")],  # 4: of uint8
    "data_spec": [_spec],
    "item_loader": ["PyTreeLoader"],
    "types": [None, {"image": "json", "mask": "json", "name": "str", "checksum": "int"}],
}
"""What `pack` lets litdata write into the configuration; whatever else is there must be null."""

SIZES = ("chunk_bytes", "chunk_size")


@dataclass(frozen=True)
class Chunks:
    """The shards of a dataset, and the number of the sample at which each ends."""

    names: tuple[str, ...]
    ends: tuple[int, ...]

    def name_of(self, index: int) -> str:
        """The shard that a sample is in."""
        return self.names[bisect_right(self.ends, index)]


def read_index(folder: str | Path, content: bytes, sizes: Mapping[str, int], samples: int) -> Chunks:
    """The shards that an index lists.

    Args:
        folder: that it is from, for messages.
        content: of the index.
        sizes: of the files that the manifest lists, in bytes.
        samples: how many there are.

    Raises:
        InputError: when it is damaged, does not go with the manifest, or asks for what `pack` does not write.
    """
    path = within(folder, INDEX)
    try:
        index = json.loads(content)
        config, chunks = index["config"], index["chunks"]
        config = {**config, "data_spec": json.loads(config["data_spec"])}
        names = tuple(str(chunk["filename"]) for chunk in chunks)
        ends = tuple(accumulate(int(chunk["chunk_size"]) for chunk in chunks))
        listed = all(
            sizes.get(chunk["filename"]) == chunk["chunk_bytes"] and chunk["chunk_size"] > 0 for chunk in chunks
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}); pack the data again") from None
    for key in {**EXPECTED, **config}:
        if key not in SIZES and config.get(key) not in EXPECTED.get(key, [None]):
            found = json.dumps(config.get(key))[:80]
            raise InputError(f"{path}: {key} is {found}, which fcnseg data pack does not write; pack the data again")
    if not listed or not all(re.fullmatch(r"chunk-\d+-\d+\.bin", name) for name in names) or ends[-1:] != (samples,):
        raise InputError(f"{path}: lists other shards than {within(folder, 'dataset.json')}; pack the data again")
    return Chunks(names, ends)
