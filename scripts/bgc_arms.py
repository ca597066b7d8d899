"""What a study by scripts/bgc_study.py compares: regimes, with pieces of a recipe added to them, such as bgc+ema.

Each is known by its name; `settings` says what it is to `fcnseg train`.
"""

from fcnseg.commands.configuration import config_folder

PIECES = {
    "ema": "callbacks.ema.decay=0.99",
    "smoothing": "loss.label_smoothing=0.1",
    "focal": "loss=focal",
    "ohem": "loss=ohem",
    "dice": "loss=dice",
    "lovasz": "loss=lovasz",
    "rare_crops": "data.augment.rare_crops=0.5",
    "paste": "data.paste=0.3",
    "cosine": "scheduler=cosine",
    "deep": "deep_supervision=0.4",
    "fcn4s": "model=fcn4s_vgg16_bn",
    "fcn2s": "model=fcn2s_vgg16_bn",
}
"""One override each, with the value that it is tried with."""

TRIALS = {
    "finetune": {
        f"finetune+{name}": f"regime.phases.synthetic.steps={share} regime.phases.real.steps={1 - share} "
        f"regime.phases.real.lr={rate}"
        for name, share, rate in (
            ("quarter_half", 0.25, 0.5),
            ("quarter_full", 0.25, 1),
            ("half_fifth", 0.5, 0.2),
            ("half_half", 0.5, 0.5),
            ("half_full", 0.5, 1),
            ("three_quarters_half", 0.75, 0.5),
        )
    },
    "bgc": {
        f"bgc+{real}to{10 - real}": f"data.ratio.camvid={real} data.ratio.synthetic={10 - real}"
        for real in (9, 8, 7, 6, 5, 4)
    },
}
"""What is tried before a study, as often for each of the two: the steps on synthetic images and the rate on real ones
of fine-tuning, in shares of the steps and of `optimizer.lr`, and BGC's ratio."""

TUNED = "tuned"
"""The piece that stands for the best of a regime's trials."""


def regimes() -> list[str]:
    return sorted(path.stem for path in (config_folder() / "regime").glob("*.yaml"))


def settings(arm: str, best: dict[str, str]) -> list[str]:
    """The overrides of `fcnseg train` that make an arm, such as "bgc+ema".

    Args:
        arm: a regime, and pieces after plus signs.
        best: by regime the name of the best of its trials, which "+tuned" stands for.

    Raises:
        ValueError: for a regime or a piece that is not known.
    """
    regime, *pieces = arm.split("+")
    if regime not in regimes():
        raise ValueError(f"{arm}: no regime {regime}; expected one of {', '.join(regimes())}")
    return [f"regime={regime}", *(word for piece in pieces for word in _piece(regime, piece, best).split())]


def _piece(regime: str, piece: str, best: dict[str, str]) -> str:
    trials = TRIALS.get(regime, {})
    if piece == TUNED and trials:
        if regime not in best:
            raise ValueError(f"{regime}+{TUNED}: has not been tuned; --tune does so")
        return trials[best[regime]]
    if f"{regime}+{piece}" in trials:
        return trials[f"{regime}+{piece}"]
    if piece not in PIECES:
        raise ValueError(f"{regime}+{piece}: no piece {piece}; expected one of {', '.join([*PIECES, TUNED])}")
    return PIECES[piece]
