"""Heads of other sizes: `fc_channels` units in fc6 and fc7, and an fc6 of `fc6_rank`: built, kept, loaded, priced."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fcnseg.errors import InputError
from fcnseg.models import ModelSpec, build, create_model, from_pretrained, load_checkpoint, optimise, summarise
from fcnseg.models.description import describe_weights
from fcnseg.models.weights import load_weights
from tests.models.foreign import blobs, fcn, loaded, reference_net, saved, written
from tests.models.stored import checkpoint, edit, logits, trained

HEADS = [{"fc_channels": 24}, {"fc6_rank": 5}, {"fc_channels": 40, "fc6_rank": 40}]
NAMES = ["fcn8s_vgg16_bn", "fcn16s_alexnet_stem2", "fcn32s_caffenet"]


def ids(head: dict[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in head.items())


every_head = pytest.mark.parametrize("head", HEADS, ids=ids)


@every_head
@pytest.mark.parametrize("padding", ["same", "caffe"])
@pytest.mark.parametrize("name", NAMES)
def test_layers_have_the_channels_that_were_asked_for(name: str, padding: str, head: dict[str, int]) -> None:
    model = create_model(name, num_classes=5, width=0.05, padding=padding, **head)
    units = head.get("fc_channels", 208)  # 4096 times 0.05, as a multiple of 8
    trunk, kernel = model.backbone.channels["pool5"], model.backbone.fc6_kernel
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith(("fc", "score_fr"))}
    if rank := head.get("fc6_rank"):
        fc6 = {"fc6.L.weight": (rank, trunk, kernel, kernel), "fc6.U.weight": (units, rank, 1, 1)}
        fc6["fc6.U.bias"] = (units,)
    else:
        fc6 = {"fc6.weight": (units, trunk, kernel, kernel), "fc6.bias": (units,)}
    fc7 = {"fc7.weight": (units, units, 1, 1), "fc7.bias": (units,)}
    assert shapes == fc6 | fc7 | {"score_fr.weight": (5, units, 1, 1), "score_fr.bias": (5,)}


@every_head
@pytest.mark.parametrize("padding", ["same", "caffe"])
def test_logits_have_the_images_size_and_every_weight_a_gradient(padding: str, head: dict[str, int]) -> None:
    model = trained(padding=padding, **head)
    found = model(torch.randn(2, 3, 33, 47))
    assert found.shape == (2, 11, 33, 47)
    found.square().sum().backward()
    for name, values in model.named_parameters():
        assert values.grad is not None, name
        assert values.grad.any(), name


def test_timms_trunks_take_them_too() -> None:
    model = create_model("fcn32s_resnet18", num_classes=2, fc_channels=16, fc6_rank=3)
    assert [model.get_parameter(f"{name}.weight").shape[0] for name in ("fc6.L", "fc6.U", "fc7")] == [3, 16, 16]


@every_head
def test_copies_are_equal_to_the_bit(tmp_path: Path, head: dict[str, int]) -> None:
    model = trained(**head)
    model.save_pretrained(tmp_path)
    torch.save(checkpoint(model), tmp_path / "last.ckpt")
    whole = trained(**head)
    with torch.no_grad():
        for values in whole.parameters():
            values.zero_()
    load_weights(whole, tmp_path, verbose=False)
    for again in (from_pretrained(tmp_path), load_checkpoint(tmp_path / "last.ckpt"), whole, copy.deepcopy(model)):
        assert again.spec == model.spec
        assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(pickle.loads(pickle.dumps(model))), logits(model))


@every_head
def test_the_optimised_form_gives_the_same_scores(head: dict[str, int]) -> None:
    model = trained(**head)
    largest = float(logits(model).abs().max())
    torch.testing.assert_close(logits(optimise(model)), logits(model), rtol=0, atol=1e-5 * largest)
    sixteen = logits(optimise(model, "bf16-mixed"))
    assert 0 < float((sixteen - logits(model)).abs().max()) < 0.1 * largest


@every_head
def test_it_is_exported(head: dict[str, int]) -> None:
    model = trained(**head)
    program = torch.export.export(model, (torch.randn(1, 3, 40, 56),))
    images = torch.randn(1, 3, 40, 56)
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)


@every_head
@pytest.mark.parametrize("padding", ["same", "caffe"])
def test_the_table_prices_what_is_computed(padding: str, head: dict[str, int]) -> None:
    with torch.device("meta"):
        model = create_model("fcn8s_vgg16", num_classes=5, padding=padding, **head).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 64, 96))
    table = summarise(model, (64, 96))
    assert sum(row.multiply_adds for row in table.rows if not row.layer.transposed) == counter.get_total_flops() / 2
    assert table.parameters == sum(row.parameters for row in table.rows)
    plain = summarise(create_model("fcn8s_vgg16", num_classes=5, padding=padding, width=0.05), (64, 96))
    places = {row.layer.name: (row.grid.map, row.receptive_field, row.size) for row in plain.rows}
    for row in table.rows:  # the geometry is that of a whole fc6
        name = "fc6" if row.layer.name.startswith("fc6") else row.layer.name
        assert (row.grid.map, row.receptive_field, row.size) == places[name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fc_channels": 0}, "fc_channels=0: expected 1 to "),
        ({"fc_channels": 2.5}, "fc_channels=2.5: expected 1 to "),
        ({"fc_channels": True}, "fc_channels=True: expected 1 to "),
        ({"fc6_rank": -1}, "fc6_rank=-1: expected 1 to "),
        ({"fc6_rank": 209}, "fc6_rank=209: expected at most 208, the rank of the whole fc6"),
        ({"fc6_rank": 25, "fc_channels": 24}, "fc6_rank=25: expected at most 24"),
    ],
)
def test_what_is_no_head_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("fcn8s_vgg16", num_classes=2, width=0.05, **options)


def test_files_from_before_there_was_a_choice_load(tmp_path: Path) -> None:
    model = trained()
    model.save_pretrained(tmp_path)
    architecture = {k: v for k, v in model.spec.to_dict().items() if k not in ("fc_channels", "fc6_rank")}
    edit(tmp_path / "config.json", architecture=architecture)
    old = checkpoint(model)
    old["hyper_parameters"]["spec"] = architecture
    torch.save(old, tmp_path / "last.ckpt")
    for again in (from_pretrained(tmp_path), load_checkpoint(tmp_path / "last.ckpt")):
        assert again.spec == model.spec
        assert torch.equal(logits(again), logits(model))


def test_a_run_trains_and_predicts_with_them(fcnseg, camvid: Path, tmp_path: Path) -> None:
    options = ["model.width=0.05", "data.size=[48,64]", "data.num_workers=0", "data.batch_size=4"]
    options += ["trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks.progress=null", "logger.tensorboard=null"]
    heads = ["model.fc_channels=24", "model.fc6_rank=8"]
    assert fcnseg("train", "data=camvid", f"data.root={camvid}", "hydra.run.dir=run", *heads, *options) == 0
    spec = load_checkpoint("run/checkpoints/last.ckpt").spec
    assert (spec.fc_channels, spec.fc6_rank) == (24, 8)
    image = next((camvid / "val").iterdir())
    assert fcnseg("predict", "checkpoint=run/checkpoints/last.ckpt", f"input={image}", "output=seen") == 0
    assert fcnseg("train", "data=camvid", f"data.root={camvid}", "model.fc_channels=many", *options) == 2


# Weights over more units


class TestFewerUnits:
    """The first of a classifier's, with the sums over them scaled up: worked out here on pytorch-fcn's own layers."""

    def test_are_the_first(self, tmp_path: Path) -> None:
        net, fewer = reference_net(), 128
        paths = [saved(tmp_path / "fcn8s.pth", net.state_dict())]
        paths.append(written(tmp_path / "fcn8s.caffemodel", layers := blobs(net)))
        classifier = {k: [v[0].reshape(len(v[0]), -1), v[1]] if k in ("fc6", "fc7") else v for k, v in layers.items()}
        paths.append(written(tmp_path / "classifier.caffemodel", classifier))
        with torch.no_grad():
            net.fc6.weight, net.fc6.bias = (nn.Parameter(p[:fewer]) for p in net.fc6.parameters())
            net.fc7.weight = nn.Parameter(net.fc7.weight[:fewer, :fewer] * 4)
            net.fc7.bias = nn.Parameter(net.fc7.bias[:fewer])
            net.score_fr.weight = nn.Parameter(net.score_fr.weight[:, :fewer] * 4)
            images = torch.randn(1, 3, 37, 52) * 50
            expected = net(images)
            for path in paths:
                model, report = loaded(path, fc_channels=fewer)
                torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
                assert [line.partition(": ")[2] for line in report.adapted] == ["the first 128 of 512 units"] * 4
                assert not report.missing

    def test_keep_the_mean_of_what_follows(self) -> None:
        """Over all units as over those that are kept, where all say about the same."""
        torch.manual_seed(0)
        wide, narrow = fcn(), fcn(fc_channels=256)
        for values in (wide.get_parameter(f"{layer}.weight") for layer in ("fc6", "fc7", "score_fr")):
            nn.init.normal_(values, mean=0.01, std=1e-4)
        load_weights(narrow, wide.state_dict(), verbose=False)
        x = torch.rand(1, 64, 7, 7)
        scores = [m.score_fr(F.relu(m.fc7(F.relu(m.fc6(x))))) for m in (wide, narrow)]
        torch.testing.assert_close(scores[1], scores[0], rtol=0.01, atol=0)

    def test_more_than_there_are_is_an_error(self) -> None:
        with pytest.raises(InputError, match=r"fc6.weight .* does not become fc6.weight"):
            load_weights(fcn(fc_channels=1024), fcn().state_dict(), verbose=False)

    def test_without_being_asked_for_are_an_error(self) -> None:
        with pytest.raises(InputError, match=r"fc6.weight .* does not become fc6.weight"):
            load_weights(fcn(), fcn(fc_channels=1024).state_dict(), verbose=False)

    def test_of_a_damaged_classifier_are_an_error(self) -> None:
        state = fcn().state_dict()
        state["fc7.weight"] = state["fc7.weight"][:, :100].clone()
        with pytest.raises(InputError, match=r"fc6 and fc7 are not of the 512 units of its fc6.bias"):
            load_weights(fcn(fc_channels=64), state, verbose=False)

    def test_are_told_by_a_file_of_another_program(self, tmp_path: Path) -> None:
        model = fcn(fc_channels=72)
        tensors = {name.removeprefix("backbone."): values for name, values in model.state_dict().items()}
        described = describe_weights(saved(tmp_path / "fcn8s.pth", tensors))
        assert described["fc_channels"] == 72
        again = build(ModelSpec(**described))
        assert [v.shape for v in again.state_dict().values()] == [v.shape for v in model.state_dict().values()]
