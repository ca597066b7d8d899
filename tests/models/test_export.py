"""One exported program for images of every size, against the network itself.

AlexNet, whose grids lie on pixels, is among the formats of `tests/export`.
"""

import pytest
import torch
from torch.export import Dim

from fcnseg.models import create_model

SIZES = [(96, 130), (65, 97), (66, 200), (127, 129), (224, 224), (101, 65)]
"""Height and width; of more than one coarsest sample, since torch takes an axis of one for another program."""


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        ("fcn16s_vgg16_bn", "same"),
        ("fcn8s_vgg16", "caffe"),
        ("fcn4s_caffenet", "caffe"),
    ],
)
def test_one_program_for_all_sizes(name: str, padding: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, padding=padding, width=0.05).eval()
    for score in (module for key, module in model.named_children() if key.startswith("score")):
        torch.nn.init.normal_(score.weight)
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 3, 150, 90),), dynamic_shapes={"images": sizes}).module()
        for number, (height, width) in enumerate(SIZES, start=1):
            images = torch.randn(number, 3, height, width)
            torch.testing.assert_close(program(images), model(images), rtol=1e-4, atol=1e-4)


def test_compilation_is_of_one_piece(recwarn: pytest.WarningsRecorder) -> None:
    """No graph breaks, and nothing that the compiler has to warn of."""
    model = create_model("fcn8s_alexnet", num_classes=3, width=0.05).eval()
    images = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        torch.nn.init.normal_(model.score_fr.weight)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), model(images))
    assert not [str(warning.message) for warning in recwarn if "lru_cache" in str(warning.message)]
