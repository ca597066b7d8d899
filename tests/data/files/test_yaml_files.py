"""YAML that takes forever, crashes readers or is not what it says is refused in one line."""

from pathlib import Path

import pytest
from fuzz_bombs import TEXTS

from fcnseg.data.files.yaml_files import DEEPEST, read_yaml
from tests.data.refusals import complaint


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_yaml_is_refused(name: str, tmp_path: Path) -> None:
    said, text = TEXTS[name]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    message = complaint(lambda: read_yaml(path))
    assert message.startswith(f"{path}: cannot be read as YAML (")
    assert said in message


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a [1, é, null]\nb: *a\n2: {c: 1.5}\n")
    assert read_yaml(path, 20) == {"a": [1, "é", None], "b": [1, "é", None], 2: {"c": 1.5}}
    assert complaint(lambda: read_yaml(path, 10)).startswith(f"{path}: has more than 10 values")
    path.write_text("[" * DEEPEST + "]" * DEEPEST)
    assert len(read_yaml(path)) == 1
