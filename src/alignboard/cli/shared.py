"""What several commands do alike: JSON files, and runs with their progress, times and board."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from alignboard.cli.options import STDOUT
from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.pipeline.runner import RunResult


_OBEYED: Final = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""what a terminal obeys and JSON does not have to escape"""


def write_json(path: Path | None, content: Any) -> None:
    """Write ``content`` where ``--json`` was given; NaN is null."""
    if path is None:
        return
    import json

    import msgspec

    from alignboard.results.files import write_atomically
    from alignboard.text import json_value

    plain = json_value(msgspec.to_builtins(content, str_keys=True))
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if str(path) != "-":
        write_atomically(path, text.encode())
        return
    stdout = click.get_current_context().meta[STDOUT]
    stdout.buffer.write(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode())
    stdout.flush()


def terminal_width() -> int | None:
    """Columns of the terminal that standard output goes to; None for a pipe, which gets whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def show_run(
    run: Callable[..., RunResult],
    json_file: Path | None,
    *,
    dry_run: bool,
    more: Callable[[RunResult], dict[str, Any]] = lambda _: {},
) -> None:
    """Run a plan and print its times and its board; of a dry run the jobs and what they cost.

    ``run`` takes ``dry_run`` and ``on_progress`` as `alignboard.pipeline.runner.run_resolved` does; ``more`` gives
    further entries of the JSON.
    """
    from alignboard.boards.board import read_board
    from alignboard.boards.files import to_text
    from alignboard.pipeline.progress import (
        cost_table,
        job_table,
        showing,
        time_table,
        versions_text,
    )

    result = planned = run(dry_run=True)
    for remark in planned.remarks:
        print(shown(remark), file=sys.stderr)
    if not dry_run:
        with showing(len(planned.jobs), n_before=len(planned.done_before)) as listener:
            result = run(on_progress=listener)
    outdated = versions_text(result.other_versions, result.n_older)
    if outdated:
        print(outdated, file=sys.stderr)
    content = result.to_json() | more(result)
    if dry_run:
        costs = planned.costs()
        write_json(json_file, content | {"costs": costs})
        print(cost_table(costs), end="\n\n" if costs else "")
        print(job_table(planned.jobs, planned.done_before, planned.expected, planned.n_workers))
        return
    write_json(json_file, content)
    print(time_table(result.timings, result.seconds))
    if result.board is not None:
        made = read_board(result.board)
        print(f"\n{to_text(made, terminal_width())}\n\n{result.board.with_suffix('.html')}")
