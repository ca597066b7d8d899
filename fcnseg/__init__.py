"""fcnseg: fully convolutional networks for semantic segmentation, from a command line, Python or a notebook."""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("fcnseg")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

# albumentations asks a package index for its newest version whenever it is imported, in every worker process too;
# here, because a config or another library may import it before our own transforms do.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Names load on first use: `fcnseg --help` must answer without importing torch.
_HOMES = {
    "create_model": "fcnseg.models",
    "explain": "fcnseg.explain",
    "factorise": "fcnseg.models",
    "from_pretrained": "fcnseg.models",
    "list_models": "fcnseg.models",
    "load_caffe_weights": "fcnseg.models",
    "load_weights": "fcnseg.models",
    "optimise": "fcnseg.models",
    "read_caffemodel": "fcnseg.models",
    "summarise": "fcnseg.models",
    "train": "fcnseg.commands.from_python",
    "Predictor": "fcnseg.inference",
    "Run": "fcnseg.runs.finished",
    "Segmentation": "fcnseg.inference",
}

__all__ = [
    "Predictor",
    "Run",
    "Segmentation",
    "__version__",
    "create_model",
    "explain",
    "factorise",
    "from_pretrained",
    "list_models",
    "load_caffe_weights",
    "load_weights",
    "optimise",
    "read_caffemodel",
    "summarise",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fcnseg' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
