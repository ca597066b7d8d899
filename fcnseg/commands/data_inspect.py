"""`fcnseg data inspect`: check every file of a dataset, and show all that is wrong in one report."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fcnseg.commands.common import progress_bars
from fcnseg.commands.data_create import splits_of_files
from fcnseg.data.datasets.described import Described, description_path, read_description
from fcnseg.data.inspection.contact_sheet import save_contact_sheet, save_histogram
from fcnseg.data.inspection.report import Finding, Inspection, inspect, plain, write_report
from fcnseg.data.inspection.samples import InspectedSplit
from fcnseg.errors import InputError
from fcnseg.runs.building import build_data
from fcnseg.runs.folder import relative

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def run(config: DictConfig) -> None:
    splits = find_splits(config)
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"output={output}: expected a folder, found a file")
    with progress_bars({"checking": sum(len(split.dataset) for split in splits)}) as advance:
        options = {"smallest": config.smallest, "near": config.near, "workers": config.workers}
        inspection = inspect(splits, **options, advance=partial(advance, "checking"))
    write_report(inspection, output / "report.json")
    save_contact_sheet(inspection, output / "contact_sheet.png", config.pictures)
    save_histogram(inspection, output / "classes.png")
    show(inspection)
    print(f"report and pictures  {relative(output)}")
    if inspection.errors:
        count = sum(len(finding.problems) for finding in inspection.errors)
        raise InputError(
            f"training would fail: {count} error{'s' * (count != 1)}; {relative(output)}/report.json has all"
        )


def find_splits(config: DictConfig) -> list[InspectedSplit]:
    """The splits that the settings mean.

    Raises:
        InputError: when they name no dataset or two, or it cannot be found.
    """
    ways = {
        "dataset": config.dataset is not None,
        "data": config.get("data") is not None,
        "images": config.images is not None or config.labels is not None or config.pairs is not None,
    }
    if sum(ways.values()) != 1:
        raise InputError(
            f"{'nothing' if not any(ways.values()) else 'several datasets'} to inspect; expected dataset=dataset.yaml, "
            "or data=camvid data.root=PATH, or images=FOLDER labels=FOLDER classes=FILE"
        )
    if ways["images"]:
        return splits_of_files(config)
    if ways["dataset"]:
        path = description_path(config.dataset)
        return [
            InspectedSplit(split, Described(path, split, check=False, outside=config.outside))
            for split in read_description(path)["splits"]
        ]
    data = build_data(config)
    domains = {"train" if len(data.train) == 1 else f"train/{name}": dataset for name, dataset in data.train.items()}
    return [*(InspectedSplit(split, dataset) for split, dataset in domains.items()), InspectedSplit("val", data.val)]


def show(inspection: Inspection) -> None:
    """Print the findings, or that there are none."""
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    counts = ", ".join(f"{len(split.dataset)} {split.name}" for split in inspection.splits)
    console.print(f"{counts} pairs, {inspection.label_space.num_classes} classes of {inspection.label_space.name}")
    if not inspection.findings:
        console.print("nothing found")
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column("severity", no_wrap=True)
    table.add_column("finding", max_width=44)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first three", overflow="fold", ratio=1)
    for finding in inspection.findings:
        about = Text.assemble((finding.kind, "bold"), "\n", (finding.hint, "dim"))
        severity = Text(finding.severity, style=STYLES[finding.severity])
        table.add_row(severity, about, str(len(finding.problems)), examples(finding))
    console.print(table)


def examples(finding: Finding) -> Text:
    """The first three files, each with what is wrong in it."""
    text = Text()
    for problem in finding.problems[:3]:
        text.append("\n" if text else "")
        text.append(plain(relative(problem.file) if Path(problem.file).is_absolute() else problem.file))
        text.append(f"  {plain(problem.detail)}" if problem.detail else "", style="dim")
    return text
