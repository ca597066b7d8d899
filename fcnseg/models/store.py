"""The model store: a network with its weights and what is known of them, in a folder or on the Hugging Face Hub.

A folder holds `model.safetensors`, `config.json` (the spec and the provenance) and `README.md`, the model card.
Nothing in it is ever executed.
"""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin, errors, hf_hub_download
from safetensors import SafetensorError

import fcnseg
from fcnseg.errors import InputError
from fcnseg.files import replacing
from fcnseg.models.card import model_card
from fcnseg.models.checkpoint import default_device, load_checkpoint, rebuild
from fcnseg.models.sources import DEMO
from fcnseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from fcnseg.models.fcn import FCN

LIBRARY = "fcnseg"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PROVENANCE: dict[str, type] = {"training_data": dict, "metrics": dict, "weights_source": str}
"""What a config.json and `FCN.provenance` may tell of the weights, with the kind of value."""

DTYPES = {"float32": torch.float32, "float16": torch.float16}
FOREIGN = (".caffemodel", ".pth")
"""Files that hold weights of other programs' FCNs."""


class Storable(PyTorchModelHubMixin):
    """What makes an FCN a citizen of the Hugging Face Hub: `save_pretrained`, `from_pretrained`, `push_to_hub`.

    `push_to_hub("user/name", model_card_kwargs={...})` takes the options of `save_pretrained` in that dictionary.
    """

    # Not None: keeps the mixin from collecting the arguments of __init__; the spec says it all.
    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012
    spec: ModelSpec
    provenance: dict[str, Any]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: str = "float32",
        training_data: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        license: str | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **hub: Any,
    ) -> str | None:
        """Write `model.safetensors`, `config.json` and `README.md`; a save that is interrupted never looks whole.

        Args:
            save_directory: the folder, created where needed; a model in it is replaced.
            dtype: of the stored weights; "float16" halves the file, which loads back into float32.
            training_data, metrics: plain JSON values for config and card; by default the provenance's.
            license: the licence's identifier, such as "mit", for the card.
            push_to_hub: upload the model as well, to `repo_id`, which is named like the folder by default.
            model_card_kwargs: these options as one dictionary, which is how `push_to_hub` hands them on.
            hub: further options of `push_to_hub`, such as `private` or `token`.

        Returns:
            The address of the upload, if there was one.

        Raises:
            InputError: for another dtype, weights that are not finite in it, or values that are not plain JSON.
            OSError: when a file cannot be written, on a full disk for instance; it names the file.
        """
        options: dict[str, Any] = {
            "dtype": dtype,
            "training_data": training_data,
            "metrics": metrics,
            "license": license,
        }
        options |= model_card_kwargs or {}
        self._save_pretrained(Path(save_directory), **options)
        if push_to_hub:
            return self.push_to_hub(repo_id or Path(save_directory).name, model_card_kwargs=options, **hub)
        return None

    def _save_pretrained(
        self,
        save_directory: Path,
        dtype: str = "float32",
        training_data: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> None:
        config = self._config(training_data, metrics)
        card = model_card(config, license)
        try:
            texts = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False).encode(), card.encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"{save_directory / CONFIG}: expected plain JSON values ({error})") from error
        files = {CONFIG: texts[0], CARD: texts[1], WEIGHTS: self._packed(dtype)}
        # All are written before any replaces an old one, and the first to be written is the last to appear: while
        # weights and description may differ there is no config.json.
        with ExitStack() as stack:
            for name, content in files.items():
                stack.enter_context(replacing(save_directory / name)).write_bytes(content)
            (save_directory / CONFIG).unlink(missing_ok=True)

    def _config(
        self, training_data: Mapping[str, Any] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The content of config.json."""
        given = {"training_data": training_data, "metrics": metrics}
        provenance = self.provenance | {key: dict(value) for key, value in given.items() if value is not None}
        return {
            "library": LIBRARY,
            "fcnseg_version": fcnseg.__version__,
            "architecture": self.spec.to_dict(),
            **{key: provenance.get(key) for key in PROVENANCE},
        }

    def _packed(self, dtype: str) -> bytes:
        """The content of model.safetensors, in memory: its own writer reports a full disk as something else."""
        if dtype not in DTYPES:
            raise InputError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
        state = {}
        for name, value in self.state_dict().items():  # type: ignore[attr-defined]
            value = value.detach().to("cpu", DTYPES[dtype] if value.is_floating_point() else None).contiguous()
            if not value.isfinite().all():
                raise InputError(f"{name}: has values that are not finite as {dtype}; the model was not saved")
            state[name] = value
        return safetensors.torch.save(state, metadata={"format": "pt"})

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """The model card, as `save_pretrained` writes it; `license` as there."""
        return ModelCard(model_card(self._config(), options.get("license")))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "FCN":
        """`fcnseg.from_pretrained`, by the name that Hub users know."""
        return from_pretrained(pretrained_model_name_or_path, **options)


def from_pretrained(
    source: str | Path,
    device: str | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> "FCN":
    """Load a trained model, in evaluation mode.

    Args:
        source: a folder written by `save_pretrained`; a training checkpoint; a `.caffemodel`; a `.pth` of
            pytorch-fcn; "demo", the small model that comes with the package (a folder of that name is "./demo");
            or the name "user/name" of a model on the Hugging Face Hub. A path that exists comes before the Hub.
        device: to put the model on; the CPU by default, "auto" for the first GPU.
        revision: branch, tag or commit on the Hub.
        cache_dir, token, local_files_only, force_download: as everywhere in huggingface_hub.

    Raises:
        InputError: when there is no such model, or a file is damaged, foreign or of a newer fcnseg.
    """
    path = DEMO if source == "demo" else Path(source)
    if not path.exists() and _may_be_on_hub(source):
        options = {"cache_dir": cache_dir, "token": token, "force_download": force_download}
        path = _download(str(source), revision, local_files_only, **options)
    model = _load(path)
    return model if device is None else model.to(default_device(device))


def _load(path: Path) -> "FCN":
    if path.name in (CONFIG, WEIGHTS):
        path = path.parent
    if path.is_dir():
        return _load_folder(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, and no name on the Hub, which would be user/name")
    return _load_foreign(path) if path.suffix in FOREIGN else load_checkpoint(path)


def _load_folder(folder: Path) -> "FCN":
    config = read_config(folder / CONFIG)
    weights = folder / WEIGHTS
    try:
        state = safetensors.torch.load_file(weights)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "no safetensors file, or damaged"
        raise InputError(f"{weights}: {reason}") from error
    model = rebuild(config["architecture"], state, folder / CONFIG, weights)
    model.provenance = {key: config[key] for key in PROVENANCE if config.get(key) is not None}
    return model


def _load_foreign(path: Path) -> "FCN":
    """A network that another program trained, built and prepared as its file says."""
    from fcnseg.models.registry import create_model  # see `rebuild`
    from fcnseg.models.weights import describe_weights, load_weights

    model = create_model(**describe_weights(path))
    load_weights(model, path)
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
