"""The model card: what a stored model is, for people, as Markdown with the front matter that the Hub reads."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

CLASS_SCORES = {"iou": "IoU", "accuracy": "accuracy"}

USE = """## How to use it

`MODEL` is the folder of this file, or the model's name on the Hugging Face Hub (`user/name`).

```python
import fcnseg

predictor = fcnseg.Predictor.from_pretrained("MODEL")
segmentation = predictor("photo.jpg")
segmentation.mask  # class indices, in the picture's own size
segmentation.overlay().save("overlay.png")

model = fcnseg.from_pretrained("MODEL")  # the network itself, to evaluate or train further
```

```sh
fcnseg predict checkpoint=MODEL input=photo.jpg output=out
```"""


def model_card(config: Mapping[str, Any], license: str | None = None) -> str:
    """The card of a model.

    Args:
        config: the content of its config.json.
        license: the licence's identifier, such as "mit".
    """
    architecture = config["architecture"]
    sections = [
        _front_matter(architecture, license),
        f"# {_text(architecture['name'])}",
        _about(architecture, config["weights_source"]),
        USE,
        "## Classes\n\n" + _classes(architecture, (config["metrics"] or {}).get("classes")),
        "## Preparation of images\n\n" + _how_prepared(architecture),
    ]
    if config["training_data"]:
        sections.append("## Training data\n\n" + "\n".join(_bullets(config["training_data"])))
    if scores := {key: value for key, value in (config["metrics"] or {}).items() if key != "classes"}:
        sections.append("## Scores\n\n" + _scores(scores))
    return "\n\n".join([*sections, f"Written by fcnseg {config['fcnseg_version']}."]) + "\n"


def _front_matter(architecture: Mapping[str, Any], license: str | None) -> str:
    facts = {
        "library_name": "fcnseg",
        "pipeline_tag": "image-segmentation",
        "tags": ["fcnseg", "semantic-segmentation", "fcn", architecture["name"]],
    }
    if license:
        facts["license"] = license
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _about(architecture: Mapping[str, Any], source: str | None) -> str:
    head, _, backbone = architecture["name"].partition("_")
    kind = re.sub(r"^fcn(\d+)s$", r"FCN-\1s", head)
    space = architecture["label_space"]
    named = f" of the label space {_text(space['name'])}" if space else ""
    about = (
        f"{_text(kind)} over {_text(backbone)}: a fully convolutional network for semantic segmentation (Long, "
        f"Shelhamer and Darrell, CVPR 2015). It assigns each pixel one of {architecture['num_classes']} classes{named}."
    )
    return f"{about}\n\nThe weights come from {_text(source)}." if source else about


def _classes(architecture: Mapping[str, Any], scores: Mapping[str, Any] | None) -> str:
    space = architecture["label_space"]
    if not space:
        return f"{architecture['num_classes']} classes without names."
    scored = {name: s for name, s in scores.items() if isinstance(s, Mapping)} if isinstance(scores, Mapping) else {}
    columns = [key for key in CLASS_SCORES if any(key in s for s in scored.values())]
    rows = [
        (
            i,
            _text(name),
            f"`#{red:02x}{green:02x}{blue:02x}`",
            *(_value(scored.get(name, {}).get(c)) for c in columns),
        )
        for i, (name, (red, green, blue)) in enumerate(zip(space["classes"], space["palette"], strict=True))
    ]
    return _table(["index", "class", "colour", *(CLASS_SCORES[c] for c in columns)], rows)


def _how_prepared(architecture: Mapping[str, Any]) -> str:
    size = architecture["input_size"]
    mean, std = (", ".join(f"{v:g}" for v in architecture[key]) for key in ("mean", "std"))
    lines = [
        f"- channels: {architecture['in_channels']}",
        f"- size: {_how_resized(architecture)} {size[0]} x {size[1]} (height x width)" if size else "- size: their own",
        f"- values: minus {mean}, divided by {std}, on the scale of the file (0 to 255 for 8 bits)",
    ]
    if architecture["channel_order"] == "bgr":
        lines.insert(1, "- order: blue, green, red inside the network; images are given as RGB")
    return "\n".join([*lines, "", "The predictor does this by itself."])


def _how_resized(architecture: Mapping[str, Any]) -> str:
    keeps = architecture.get("resize") == "keep"
    return "scaled to fit, their aspect ratio kept, and padded at their end to" if keeps else "resized to"


def _scores(scores: Mapping[str, Any]) -> str:
    rows = [(_text(key.replace("_", " ")), _value(value)) for key, value in scores.items()]
    return _table(["score", "value"], rows)


def _bullets(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as a nested list."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}- {_text(key)}:"
            yield from _bullets(value, indent + "  ")
        else:
            yield f"{indent}- {_text(key)}: {_value(value)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _value(value: Any) -> str:
    """A number to three decimals, a list by its entries, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.3f}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    """Any text as one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", " ".join(str(value).split()))
