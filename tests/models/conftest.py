"""A trained model and its folder, for the tests of what becomes of models outside of their process."""

from pathlib import Path

import pytest

from fcnseg.models import FCN
from tests.models.stored import trained


@pytest.fixture(scope="module")
def model() -> FCN:
    return trained()


@pytest.fixture
def folder(model: FCN, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
