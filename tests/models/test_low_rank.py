"""Low-rank factors of fc6: beside torch's own singular values and least squares, and through files and commands."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fcnseg
from fcnseg.errors import InputError
from fcnseg.models import FCN, create_model, from_pretrained, summarise
from fcnseg.models.low_rank import Spectrum, factorise, responses, singular_values
from fcnseg.models.weights import load_weights
from tests.models.foreign import PytorchFCN8s, fcn, loaded, reference_net, saved
from tests.models.stored import logits, trained

UNITS = 208  # 4096 times 0.05, as a multiple of 8


@pytest.fixture(scope="module")
def model() -> FCN:
    """Its fc6 has singular values that fall, as those of trained layers do."""
    model = trained("fcn8s_vgg16")
    weights = model.get_parameter("fc6.weight")
    with torch.no_grad():
        u, s, v = torch.linalg.svd(weights.flatten(1).double(), full_matrices=False)
        weights.data = ((u * (s * 0.97 ** torch.arange(len(s)))) @ v).float().view_as(weights)
    return model


def images(number: int, seed: int = 0) -> Tensor:
    """(N, 3, 32, 48) uint8, with more in their red than in their blue."""
    random = torch.Generator().manual_seed(seed)
    shares = torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1, 1)
    return (torch.rand(number, 3, 32, 48, generator=random) * 255 * shares).to(torch.uint8)


def product(model: FCN) -> Tensor:
    """The (out, in * k * k) weights that an fc6 amounts to."""
    fc6 = {name: values.detach() for name, values in model.fc6.named_parameters()}
    return fc6["weight"].flatten(1) if "weight" in fc6 else fc6["U.weight"].flatten(1) @ fc6["L.weight"].flatten(1)


def test_the_whole_rank_gives_the_same_scores(model: FCN) -> None:
    for spectrum in (None, responses(model, [images(40)])):
        whole = factorise(model, UNITS, spectrum, verbose=False)
        expected = logits(model)
        torch.testing.assert_close(logits(whole), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("rank", [1, 30, 150])
def test_weights_are_those_of_torchs_decomposition(model: FCN, rank: int) -> None:
    weights = product(model).double()
    u, s, v = torch.linalg.svd(weights, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    small = factorise(model, rank, verbose=False)
    assert small.spec.fc6_rank == rank
    assert float((product(small) - best).norm() / weights.norm()) < 1e-5
    spectrum = singular_values(model)
    torch.testing.assert_close(spectrum.values.double(), s**2, rtol=1e-3, atol=1e-6 * float(s[0] ** 2))
    assert spectrum.lost(rank) == pytest.approx(float((s[rank:] ** 2).sum() / (s**2).sum()), rel=1e-3)
    assert spectrum.lost(rank) == pytest.approx(
        float((product(small) - weights).norm() / weights.norm()) ** 2, rel=1e-3
    )


def outputs(model: FCN, batch: Tensor) -> Tensor:
    """(samples, out) of fc6."""
    kept: list[Tensor] = []
    handle = model.fc6.register_forward_hook(lambda layer, given, out: kept.append(out.detach().clone()))
    with torch.inference_mode():
        model.logits(batch)
    handle.remove()
    return kept[0].movedim(1, -1).flatten(0, -2).double()  # cloned: the ReLU that follows works in place


def test_responses_are_the_best_that_a_rank_can_give_on_their_images(model: FCN) -> None:
    """By what torch's decomposition of the outputs themselves leaves, and better than the weights' own."""
    batch, rank = images(60), 20
    exact = outputs(model, batch)
    centred = exact - exact.mean(0)
    least = float((torch.linalg.svdvals(centred)[rank:] ** 2).sum())
    spectrum = responses(model, batch.split(25))
    by_images, by_weights = (factorise(model, rank, s, verbose=False) for s in (spectrum, None))
    errors = [float((outputs(small, batch) - exact).square().sum()) for small in (by_images, by_weights)]
    assert errors[0] == pytest.approx(least, rel=0.01)
    assert spectrum.lost(rank) == pytest.approx(least / float(centred.square().sum()), rel=0.01)
    assert errors[0] < 0.7 * errors[1]
    others = images(60, seed=1)
    seen, blind = (
        float((outputs(small, others) - outputs(model, others)).square().sum()) for small in (by_images, by_weights)
    )
    assert seen < blind, "on images that were not looked at, too"


def test_the_model_stays_as_it_is(model: FCN) -> None:
    before = {name: values.clone() for name, values in model.state_dict().items()}
    training = trained("fcn8s_vgg16").train()
    responses(training, [images(2)])
    assert training.training
    assert not training.fc6._forward_hooks
    small = factorise(model, 4, verbose=False)
    with torch.no_grad():
        for values in small.parameters():
            values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert model.spec.fc6_rank is None
    assert "fc6" not in model.provenance["weights_source"]


def test_it_is_kept_with_what_was_left_out(model: FCN, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = fcnseg.factorise(model, 30)
    lost = f"fc6 of rank 30, {100 * singular_values(model).lost(30):.2g} % of its squares left out"
    weights = (30 * 24 * 49 + 31 * UNITS) / 1e6, (UNITS * 24 * 49 + UNITS) / 1e6
    assert capsys.readouterr().out == f"{lost}: {weights[0]:.3g} million weights instead of {weights[1]:.3g} million\n"
    small.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(small))
    assert again.provenance["weights_source"] == f"vgg16.caffemodel, {lost}"
    assert lost in (tmp_path / "README.md").read_text()
    rows = {row.layer.name: row.multiply_adds for row in summarise(again, (64, 96)).rows}
    assert (rows["fc6.L"], rows["fc6.U"]) == (30 * 24 * 49 * 2 * 3, 30 * UNITS * 2 * 3)


def test_what_cannot_be_factorised_is_refused(model: FCN) -> None:
    small = factorise(model, 4, verbose=False)
    for attempt in (lambda: factorise(small, 2), lambda: singular_values(small), lambda: responses(small, [images(1)])):
        with pytest.raises(InputError, match="fc6_rank=4: fc6 has been factorised"):
            attempt()
    with pytest.raises(InputError, match=f"fc6_rank={UNITS + 1}: expected at most {UNITS}"):
        factorise(model, UNITS + 1)
    with pytest.raises(InputError, match="fc6_rank=0: expected 1 to "):
        factorise(model, 0)
    with pytest.raises(InputError, match="batches: expected one image at least"):
        responses(model, [])


def test_no_variation_loses_nothing() -> None:
    spectrum = Spectrum.of(torch.zeros(3, 3), torch.zeros(3))
    assert spectrum.lost(1) == 0
    assert torch.equal(spectrum.values, torch.zeros(3))


# Weights with a whole fc6 for a network whose fc6 has a rank


def test_a_whole_fc6_is_factorised_as_it_is_loaded(tmp_path: Path) -> None:
    net: PytorchFCN8s = reference_net()
    path = saved(tmp_path / "fcn8s.pth", net.state_dict())
    whole, _ = loaded(path)
    small, report = loaded(path, fc6_rank=32)
    assert "fc6.weight" in report.copied
    batch = torch.randn(1, 3, 37, 52) * 50
    with torch.inference_mode():
        expected = factorise(whole, 32, verbose=False)(batch)
        torch.testing.assert_close(small(batch), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert small.spec == fcn(fc6_rank=32, channel_order="bgr", mean=small.spec.mean, std=(1, 1, 1)).spec


def test_a_trunk_alone_leaves_fc6_as_it_was() -> None:
    state = {name: values for name, values in fcn().state_dict().items() if name.startswith("backbone.")}
    model = fcn(fc6_rank=7)
    nn.init.normal_(model.get_parameter("score_fr.weight"))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    report = load_weights(model, state, verbose=False)
    assert any(note.startswith("fc6.weight") for note in report.missing)
    for name, values in model.state_dict().items():
        assert torch.equal(values, state.get(name, before[name])), name


def test_a_rank_that_was_not_asked_for_is_an_error() -> None:
    state = fcn(fc6_rank=7).state_dict()
    with pytest.raises(InputError, match="its fc6 is of rank 7; expected a model with fc6_rank=7"):
        load_weights(fcn(), state, verbose=False)
    with pytest.raises(InputError, match=r"fc6\.L\.weight .* does not become fc6\.L\.weight"):
        load_weights(fcn(fc6_rank=8), state, verbose=False)


@pytest.mark.slow
def test_a_factorised_network_trains_on(fcnseg, camvid: Path, tmp_path: Path) -> None:
    """As `factorise` says."""
    space = from_pretrained("demo").spec.label_space
    model = create_model("fcn32s_alexnet", num_classes=11, width=0.05, label_space=space)
    factorise(model, 16, verbose=False).save_pretrained(tmp_path / "small")
    small = ["model=fcn32s_alexnet", "model.width=0.05", "model.fc6_rank=16", "model.weights=small"]
    options = ["data.size=[48,64]", "data.num_workers=0", "data.batch_size=4", "trainer.max_steps=1"]
    options += ["trainer.accelerator=cpu", "callbacks.progress=null", "logger.tensorboard=null"]
    assert fcnseg("train", *small, "data=camvid", f"data.root={camvid}", "hydra.run.dir=run", *options) == 0
    again = from_pretrained("run/checkpoints/last.ckpt")
    before = from_pretrained("small").state_dict()
    assert again.spec.fc6_rank == 16
    torch.testing.assert_close(again.state_dict()["fc6.L.weight"], before["fc6.L.weight"], rtol=0, atol=0.01)
