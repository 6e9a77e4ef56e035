"""docs/benchmarks.md: the tables of `lm_eval_command.json`, between two marks.

Run:  python benchmarks/lm_eval_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "benchmarks" / "lm_eval_command.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- lm_eval_command.json -->", "<!-- end -->"


def main() -> None:
    """Put the tables in place."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")


def filled(page: str, measured: Mapping[str, Any]) -> str:
    """The page with the tables of what was measured."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(measured)}\n{END}{after}"


def tables(measured: Mapping[str, Any]) -> str:
    """A table of each part that was measured."""
    parts = (WRITERS[part](measured[part]) for part in WRITERS if part in measured)
    return "\n".join("\n".join(lines) for lines in parts)


def together(found: Mapping[str, Any]) -> Iterator[str]:
    """The three tasks of the headline."""
    n = found["n"]
    asked = f"ARC 25-shot ({n}), HellaSwag 10-shot ({n}), MMLU 5-shot ({5 * n})"
    yield f"| {asked} | wall | CPU | start, CPU | peak memory |"
    yield "|---|---|---|---|---|"
    for side, name in (("lm_eval", "`lm_eval run`"), ("alignboard", "ours")):
        row = found[side]
        yield (
            f"| {name} | {row['wall_s']:.0f} s | {row['cpu_s']:.1f} s | {row['start_cpu_s']:.1f} s | "
            f"{row['peak_mb']:.0f} MB |"
        )
    yield ""
    yield (
        f"{found['cpu_ratio']:.1f} times as fast in processor time ({found['cpu_ratio_after_start']:.1f} without the "
        f"start), {found['peak_ratio']:.1f} times"
    )
    yield f"less memory; no log-probability differs by more than {found['largest_difference']:.1e}."
    yield ""


def each(found: Mapping[str, Any]) -> Iterator[str]:
    """Every task alone."""
    yield f"| alone, without the start (n = {found['n']}) | lm-eval, CPU | ours, CPU | ratio |"
    yield "|---|---|---|---|"
    for task, row in found.items():
        if isinstance(row, dict):
            theirs, ours = row["lm_eval"], row["alignboard"]
            name = task.removesuffix("_local")
            yield f"| {name} | {theirs:.1f} s | {ours:.1f} s | {theirs / ours:.2f} |"
    yield ""


def sweep(found: Mapping[str, Any]) -> Iterator[str]:
    """A base and its adapters."""
    yield f"| base and six adapters: ARC ({found['n']}), PIQA ({5 * found['n']}) | wall | CPU |"
    yield "|---|---|---|"
    for side, name in (("lm_eval", "seven `lm_eval` runs"), ("alignboard", "one run of ours")):
        yield f"| {name} | {found[side]['wall_s']:.0f} s | {found[side]['cpu_s']:.1f} s |"
    yield ""
    yield f"{found['cpu_ratio']:.1f} times as fast in processor time."
    yield ""


WRITERS = {"together": together, "each": each, "sweep": sweep}


if __name__ == "__main__":
    main()
