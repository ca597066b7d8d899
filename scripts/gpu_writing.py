"""The GPU report's two files: everything as JSON, and a table of each part as Markdown with the same numbers."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_settings import Row

from fcnseg.atomic import replacing

HEADINGS = {
    "max_difference": "largest difference", "relative": "of the largest score", "first_loss": "first loss",
    "last_loss": "last loss", "peak_mb": "peak MB", "resumed_steps": "steps after resuming", "of_weights": "of weights",
    "of_way": "of their way", "seconds_to_the_end": "s to the end", "tflops": "TFLOP/s",
    "images_per_second": "images/s", "milliseconds": "ms",
    "share": "share", "times_plain": "times plain", "wait_ms": "ms waited per step", "step_ms": "ms per step",
    "ok": "as expected",
}  # fmt: skip
"""What columns are called whose key is no word."""

UNTABLED = ("skipped", "error")


@dataclass
class Result:
    """What became of a part.

    Attributes:
        title: one line that says what the numbers are.
        seconds: that it took.
        rows: its table's lines, those that were found before an error too.
        error: the last line of what ended it.
        skipped: why it was not begun.
    """

    title: str
    seconds: float | None = None
    rows: list[Row] = field(default_factory=list)
    error: str | None = None
    skipped: str | None = None

    @property
    def complaints(self) -> list[str]:
        """What was wrong, a line each."""
        ended = [self.error] if self.error else []
        unlike = [f"{_case(row)}: not as expected" for row in self.rows if row.get("ok") is False]
        return ended + [f"{_case(row)}: {row['error']}" for row in self.rows if "error" in row] + unlike

    def to_dict(self) -> dict[str, Any]:
        shown = {"title": self.title, "seconds": self.seconds, "error": self.error, "skipped": self.skipped}
        return shown | {"failed": bool(self.complaints), "complaints": self.complaints, "rows": self.rows}


def write(folder: Path, machine: Row, results: dict[str, Result]) -> None:
    """Write report.json and report.md, each of which appears whole or stays as it was."""
    parts = {name: result.to_dict() for name, result in results.items()}
    for part in parts.values():
        part["rows"] = [{key: _plain(value) for key, value in row.items()} for row in part["rows"]]
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps({"machine": machine, "parts": parts}, indent=1) + "\n")
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(markdown(machine, results))


def _plain(value: object) -> object:
    """A value that JSON knows: what is infinite or no number is told as a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def markdown(machine: Row, results: dict[str, Result]) -> str:
    lines = ["# GPU report", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    for name, result in results.items():
        took = "" if result.seconds is None else f" ({shown(result.seconds)} s)"
        lines += [f"## {name}{' FAILED' if result.complaints else ''}", "", f"{result.title}{took}", ""]
        if result.skipped:
            lines += [f"Skipped: {result.skipped}", ""]
        if rows := [row for row in result.rows if not any(key in row for key in UNTABLED)]:
            lines += [*table(rows), ""]
        left_out = [f"- {_case(row)}: skipped, {row['skipped']}" for row in result.rows if "skipped" in row]
        if left_out or result.complaints:
            lines += [*left_out, *(f"- FAILED {line}" for line in result.complaints), ""]
    return "\n".join(lines)


def table(rows: list[Row]) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    head = [HEADINGS.get(key, key) for key in keys]
    body = [f"| {' | '.join(shown(row.get(key)) for key in keys)} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(keys) + "|", *body]


def shown(value: object) -> str:
    """A value as the table has it: four digits of a float, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"
    return str(value)


def _case(row: Row) -> str:
    """What tells a row from the others: its first words, numbers and answers."""
    told = [(key, value) for key, value in row.items() if key not in UNTABLED and not isinstance(value, float)]
    return ", ".join(value if isinstance(value, str) else f"{key} {shown(value)}" for key, value in told[:4])
