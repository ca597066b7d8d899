"""The model store's writing half: a network with its weights and what is known of them, in a folder or on the Hub.

A folder holds `model.safetensors`, `config.json` (the spec and the provenance) and `README.md`, the model card.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import HfApi

import fcnseg
from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.models.card import model_card
from fcnseg.models.spec import ModelSpec

LIBRARY = "fcnseg"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PROVENANCE: dict[str, type] = {"training_data": dict, "metrics": dict, "weights_source": str}
"""What a config.json and `FCN.provenance` may tell of the weights, with the kind of value."""

DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Storable:
    """What lets an FCN leave its process: `save_pretrained` and `push_to_hub`. `fcnseg.from_pretrained` reads both."""

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
    ) -> None:
        """Write `model.safetensors`, `config.json` and `README.md`; a save that is interrupted never looks whole.

        Args:
            save_directory: the folder, created where needed; a model in it is replaced.
            dtype: of the stored weights; "float16" halves the file, which loads back into float32.
            training_data, metrics: plain JSON values for config and card; by default the provenance's.
            license: the licence's identifier, such as "mit", for the card.

        Raises:
            InputError: for another dtype, weights that are not finite in it, or values that are not plain JSON.
            OSError: when a file cannot be written, on a full disk for instance; it names the file.
        """
        folder = Path(save_directory)
        config = self._config(training_data, metrics)
        card = model_card(config, license)
        try:
            texts = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False).encode(), card.encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"{folder / CONFIG}: expected plain JSON values ({error})") from error
        files = {CONFIG: texts[0], CARD: texts[1], WEIGHTS: self._packed(dtype)}
        # All are written before any replaces an old one, and the first to be written is the last to appear: while
        # weights and description may differ there is no config.json.
        with ExitStack() as stack:
            for name, content in files.items():
                stack.enter_context(replacing(folder / name)).write_bytes(content)
            (folder / CONFIG).unlink(missing_ok=True)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Push model with fcnseg",
        **options: Any,
    ) -> str:
        """Upload the model to the Hugging Face Hub, in one commit.

        Args:
            repo_id: "user/name", created where needed.
            private: whether a new repository is private; None: as the account's settings say.
            token: of the account, where one is not logged in.
            revision: the branch to commit to; None: the main one.
            create_pr: propose the commit as a pull request.
            commit_message: of the commit.
            options: those of `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            InputError: as `save_pretrained`.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)
            api = HfApi(token=token)
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        return str(commit.commit_url)

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
