"""Images row by row, against the same network on the whole image."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model, optimise
from fcnseg.models.rows import RowStream

NAMES = [
    "fcn8s_vgg16", "fcn8s_vgg16_bn_stem2", "fcn16s_alexnet", "fcn8s_caffenet", "fcn32s_vgg16_stem4", "fcn2s_vgg16",
    "fcn4s_alexnet",
]  # fmt: skip


def scored(name: str, padding: str, **options: Any) -> FCN:
    """A narrow network in float64 whose scores are not zero."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, padding=padding, width=0.05, **options).double().eval()
    for key, module in model.named_children():
        if key.startswith("score"):
            torch.nn.init.normal_(module.weight)
    return model


LOW_RANK = "fcn8s_vgg16 of low rank"
MODELS = {(name, padding): scored(name, padding) for name in NAMES for padding in ("same", "caffe")}
MODELS[LOW_RANK, "same"] = scored("fcn8s_vgg16", "same", fc6_rank=24)


def pushed(model: FCN, image: torch.Tensor, heights: list[int]) -> RowStream:
    stream = RowStream(model, tuple(image.shape[-2:]), lambda _, shape: torch.full(shape, torch.nan).double())
    while stream.rows < image.shape[-2]:
        for height in heights:
            stream.push(image[..., stream.rows : stream.rows + height, :])
            if stream.rows == image.shape[-2]:
                break
    return stream


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.tuples(st.integers(1, 300), st.integers(1, 90)),
    st.lists(st.integers(1, 130), min_size=1, max_size=3),
    st.data(),
)
def test_any_strips_give_the_scores_of_the_whole(
    key: tuple[str, str], size: tuple[int, int], heights: list[int], data: st.DataObject
) -> None:
    """And any part of the logits is that of the whole."""
    model = MODELS[key]
    image = torch.randint(256, (1, 3, *size), generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        whole = model.logits(image)
    stream = pushed(model, image, heights)
    start = data.draw(st.integers(0, size[0] - 1))
    stop = data.draw(st.integers(start + 1, size[0]))
    torch.testing.assert_close(stream.logits(start, stop), whole[:, :, start:stop], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("padding", ["same", "caffe"])
def test_a_stream_goes_on_in_another_process(padding: str, tmp_path: Any) -> None:
    """From its state, which holds a few rows for each layer."""
    model = MODELS["fcn8s_vgg16", padding]
    image = torch.rand(1, 3, 230, 60, generator=torch.Generator().manual_seed(1)).double() * 255
    began = RowStream(model, (230, 60))
    began.push(image[..., :101, :])
    torch.save(began.state(), tmp_path / "state")
    goes_on = RowStream(model, (230, 60))
    for there, here in zip(goes_on.scores, began.scores, strict=True):
        there.copy_(here)
    goes_on.restore(torch.load(tmp_path / "state", weights_only=True))
    assert goes_on.rows == 101
    goes_on.push(image[..., 101:, :])
    torch.testing.assert_close(goes_on.logits(0, 230).double(), model.logits(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_optimised_networks(precision: str) -> None:
    """In float32 to 1e-5 of the largest logit; in 16 bits within what their roundings may do."""
    model = optimise(scored("fcn8s_vgg16_bn", "same").float(), precision)
    image = torch.randint(256, (1, 3, 150, 130), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model.logits(image)
    found = pushed(model, image, [40]).logits(0, 150).float()
    tolerance = 1e-5 if precision == "32-true" else 2e-2
    assert (found - whole).abs().max() <= tolerance * whole.abs().max()


def test_what_is_refused() -> None:
    model = MODELS["fcn8s_vgg16", "same"]
    with pytest.raises(InputError, match=r"rows are 3x60; expected at most 2x60"):
        RowStream(model, (2, 60)).push(torch.zeros(1, 3, 3, 60))
    with pytest.raises(InputError, match="fcn8s_resnet18: is no chain of layers"):
        RowStream(create_model("fcn8s_resnet18", num_classes=2), (2, 60))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*sorted(MODELS), ("fcn8s_resnet18", "same")]), st.data())
def test_tiles_that_see_enough_give_the_logits_of_the_whole(key: tuple[str, str], data: st.DataObject) -> None:
    model = MODELS.get(key) or RESNET
    tiling = model.tiling()
    assert tiling is not None
    step, before, after = tiling["step"], tiling["before"], tiling["after"]
    height = 2 * (before + after) + data.draw(st.integers(0, 100))
    image = torch.rand(1, 3, height, 8, generator=torch.Generator().manual_seed(1)).double() * 255
    whole = model.logits(image)
    start = data.draw(st.integers(0, height // step - 1), "tile") * step
    stop = min(data.draw(st.integers(start + 1, height), "stop"), height)
    tile = model.logits(image[..., start:stop, :])
    first = 0 if start == 0 else before
    last = height - start if stop == height else stop - start - after
    if last > first:
        torch.testing.assert_close(tile[:, :, first:last], whole[:, :, start + first : start + last])


RESNET = create_model("fcn8s_resnet18", num_classes=5).double().eval()
for _name in ("score_fr", "score_stride16", "score_stride8"):
    torch.nn.init.normal_(RESNET.get_submodule(_name).weight)


def test_networks_that_average_over_the_image_have_no_tiles() -> None:
    assert create_model("fcn8s_efficientnet_b0", num_classes=2).tiling() is None
