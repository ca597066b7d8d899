"""Trained models out of folders, checkpoints, other programs' files and the Hugging Face Hub.

Nothing in a file is executed, and a spec in it is checked before anything is built.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import HfApi, errors, hf_hub_download
from safetensors import SafetensorError
from torch import Tensor

import fcnseg
from fcnseg.errors import InputError, refuse_endless
from fcnseg.models.build import build
from fcnseg.models.description import build_from
from fcnseg.models.fcn import FCN
from fcnseg.models.saving import CONFIG, LIBRARY, PROVENANCE, WEIGHTS
from fcnseg.models.sharded import is_sharded, read_checkpoint, read_head
from fcnseg.models.sources import DEMO
from fcnseg.models.spec import ModelSpec, read_spec

FOREIGN = (".caffemodel", ".pth")
"""Files that hold weights of other programs' FCNs."""

MOST_OF_CONFIG = 2**22
"""Bytes of a config.json; all classes and their scores take about 50,000."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> FCN:
    """Load a trained model, on the CPU and in evaluation mode.

    Args:
        source: a folder written by `save_pretrained`; a training checkpoint; a `.caffemodel`; a `.pth` of
            pytorch-fcn; "demo", the small model that comes with the package (a folder of that name is "./demo");
            or the name "user/name" of a model on the Hugging Face Hub. A path that exists comes before the Hub.
        revision: branch, tag or commit on the Hub.
        cache_dir, token, local_files_only, force_download: as everywhere in huggingface_hub.

    Raises:
        InputError: when there is no such model, or a file is damaged, foreign or of a newer fcnseg.
    """
    path = DEMO if source == "demo" else Path(source)
    if not path.exists() and _may_be_on_hub(source):
        options = {"cache_dir": cache_dir, "token": token, "force_download": force_download}
        path = _download(str(source), revision, local_files_only, **options)
    return _load(path)


def _load(path: Path) -> FCN:
    if path.name in (CONFIG, WEIGHTS):
        path = path.parent
    if path.is_dir() and not is_sharded(path):
        return _load_folder(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, and no name on the Hub, which would be user/name")
    return _load_foreign(path) if path.suffix in FOREIGN else load_checkpoint(path)


def _load_folder(folder: Path) -> FCN:
    config = read_config(folder / CONFIG)
    weights = folder / WEIGHTS
    refuse_endless(weights)
    try:
        state = safetensors.torch.load_file(weights)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "no safetensors file, or damaged"
        raise InputError(f"{weights}: {reason}") from error
    model = rebuild(config["architecture"], state, folder / CONFIG, weights)
    model.provenance = {key: config[key] for key in PROVENANCE if config.get(key) is not None}
    return model


def _load_foreign(path: Path) -> FCN:
    """A network that another program trained, built and prepared as its file says."""
    model = build_from(path)
    model.provenance = {"weights_source": path.name}
    return model.eval()


def read_config(path: Path) -> dict[str, Any]:
    """The checked content of a config.json.

    Raises:
        InputError: when it is missing, damaged, or describes no model that this version knows.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a folder written by save_pretrained (of a training run, give a checkpoint)"
        )
    if path.stat().st_size > MOST_OF_CONFIG:
        raise InputError(f"{path}: {path.stat().st_size} bytes; expected at most {MOST_OF_CONFIG}")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or damaged") from error
    if not isinstance(config, dict) or config.get("library") != LIBRARY:
        raise InputError(f"{path}: not of an fcnseg model; expected library: {LIBRARY}")
    _check_fields(path, config, {"library": str, "fcnseg_version": str, "architecture": dict}, PROVENANCE)
    spec = {field.name: object for field in fields(ModelSpec)}
    required = {field.name: object for field in fields(ModelSpec) if field.default is MISSING}
    _check_fields(path, config["architecture"], required, spec, config["fcnseg_version"])
    return config


def _check_fields(
    path: Path, found: dict[str, Any], required: Mapping[str, type], optional: Mapping[str, type], version: str = ""
) -> None:
    known = {**required, **optional}
    if missing := [key for key in required if key not in found]:
        raise InputError(f"{path}: {missing[0]} is missing")
    if unknown := [key for key in found if key not in known]:
        written = f", the file by fcnseg {version}" if version else ""
        raise InputError(f"{path}: {unknown[0]!r} is unknown here (this is fcnseg {fcnseg.__version__}{written})")
    for key, value in found.items():
        if not isinstance(value, known[key]) and not (value is None and key in optional):
            raise InputError(f"{path}: {key} is a {type(value).__name__}; expected a {known[key].__name__}")


def load_checkpoint(path: str | Path) -> FCN:
    """Rebuild the model that a training checkpoint holds, on the CPU, in evaluation mode, with its provenance.

    Raises:
        InputError: when the file is missing, damaged, or no fcnseg checkpoint.
    """
    path = Path(path)
    if not path.is_file() and not is_sharded(path):
        raise InputError(f"{path}: no such checkpoint")
    try:
        content: dict[str, Any] = read_checkpoint(path, "not an fcnseg checkpoint", optimizers=False)
        spec = dict(content["hyper_parameters"]["spec"])
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        provenance = dict(content.get("provenance", {}))
        json.dumps(provenance, allow_nan=False)
    except InputError:
        raise
    except Exception as error:  # whatever a checkpoint of something else holds
        raise InputError(f"{path}: not an fcnseg checkpoint, or damaged") from error
    model = rebuild(spec, state, path, path)
    model.provenance = provenance
    return model


def checkpoint_spec(path: str | Path) -> ModelSpec:
    """The spec of the model that a checkpoint holds; of a folder of shards no weights are read.

    Raises:
        InputError: as `load_checkpoint`.
    """
    if not is_sharded(path):
        return load_checkpoint(path).spec
    try:
        spec = dict(read_head(Path(path))["hyper_parameters"]["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an fcnseg checkpoint, or damaged") from error
    return read_spec(spec, str(path))


def rebuild(spec: dict[str, Any], state: Mapping[str, Any], described_in: Path, weights_in: Path) -> FCN:
    """The model of a spec's `to_dict()` with the weights of a state dict, in evaluation mode.

    Raises:
        InputError: when the spec describes no model, or the weights are not finite or not this model's.
    """
    checked = read_spec(spec, str(described_in))
    try:
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            model = build(checked)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{described_in}: its spec describes no model ({_first_line(error)})") from error
    if problem := _misfit(model.state_dict(), state):
        raise InputError(f"{weights_in}: weights do not fit {model.spec.name} ({problem})")
    expected = model.state_dict()
    copies = {name: values.to(expected[name].dtype, copy=True) for name, values in state.items()}
    model.load_state_dict(copies, assign=True)
    model.prepare(model.spec)
    return model.eval()


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    """What keeps `found` from being a model's finite weights; empty when nothing does."""
    for names, problem in ((expected.keys() - found.keys(), "missing"), (found.keys() - expected.keys(), "unknown")):
        if names:
            first, *others = sorted(names)
            return f"{first}{f' and {len(others)} more' if others else ''} {problem}"
    for name, ours in expected.items():
        theirs = found[name]
        if not isinstance(theirs, Tensor) or theirs.layout != torch.strided:
            return f"{name} is no tensor of plain values"
        if theirs.shape != ours.shape:
            return f"size mismatch for {name}: {tuple(theirs.shape)}, expected {tuple(ours.shape)}"
        if theirs.dtype != ours.dtype and not (theirs.dtype in FLOATS and ours.dtype in FLOATS):
            return f"{name} is {theirs.dtype}, expected {ours.dtype}"
        if not theirs.isfinite().all():
            return f"{name} has values that are not finite"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _may_be_on_hub(source: str | Path) -> bool:
    """Whether this reads like "user/name" and not like a file that is missing."""
    file = Path(source).suffix in (".ckpt", ".safetensors", ".json", *FOREIGN)
    return not file and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source), re.ASCII) is not None


def _download(name: str, revision: str | None, local_files_only: bool, **options: Any) -> Path:
    """The folder in the Hub's cache that holds a model, downloaded where needed.

    Raises:
        InputError: when there is no such model, or the Hub cannot be reached.
    """
    try:
        options["local_files_only"] = local_files_only or not _is_reachable(name, revision, options["token"])
        config = Path(hf_hub_download(name, CONFIG, revision=revision, **options))
        read_config(config)  # before the weights, which may be large and somebody else's
        hf_hub_download(name, WEIGHTS, revision=config.parent.name, **options)  # the same commit's
    except InputError:
        raise
    except Exception as error:  # of the Hub, of the network beneath it, of the disk
        raise InputError(f"{name}: no such file or folder, and {_why(error, revision)}") from error
    return config.parent


def _is_reachable(name: str, revision: str | None, token: str | bool | None) -> bool:
    """Ask the Hub once. A download would try for half a minute before it falls back on the cache."""
    try:
        HfApi(token=token).model_info(name, revision=revision, timeout=10)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise
    except Exception:  # whatever the network has to say
        return False
    return True


def _why(error: Exception, revision: str | None) -> str:
    if isinstance(error, errors.GatedRepoError):
        return "on the Hub its owner has to grant access first"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return "the Hub has no such model, or it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the model on the Hub has no revision {revision}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"the model on the Hub is none of fcnseg's: expected {CONFIG} and {WEIGHTS} in it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the download failed: {error.strerror}"
    return "the Hub could not be reached, nor is it in the cache"
