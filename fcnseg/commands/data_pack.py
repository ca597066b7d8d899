"""`fcnseg data pack`: write a dataset as a few large files that read fast."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fcnseg.commands.common import progress_bars, require_value
from fcnseg.data.storage.encoding import Packing
from fcnseg.data.storage.folders import is_remote
from fcnseg.data.storage.packing import pack
from fcnseg.errors import InputError
from fcnseg.runs.building import build_data
from fcnseg.runs.folder import relative


def run(config: DictConfig) -> None:
    output = require_value(config, "output", "FOLDER")
    if is_remote(output):
        raise InputError(f"output={output}: expected a folder on a disk; copy it to the object store afterwards")
    size: Any = OmegaConf.to_object(config.size) if OmegaConf.is_list(config.size) else config.size
    packing = Packing(size=size, jpeg_quality=config.jpeg_quality, resize=str(config.resize))
    data = build_data(config)
    lengths = {f"train/{name}": len(dataset) for name, dataset in data.train.items()} | {"val": len(data.val)}
    # Every sample is written, and read back to verify it.
    with progress_bars({part: 2 * length for part, length in lengths.items()}) as advance:
        pack(data.train, data.val, output, packing, advance, config.workers)
    size = sum(path.stat().st_size for path in Path(output).rglob("*.bin"))
    counts = ", ".join(f"{count} {part}" for part, count in lengths.items())
    print(f"packed and verified {counts}: {size / 1e6:.1f} MB")
    print(f"train on it with  data.packed={relative(Path(output))}")
