"""What several commands have alike: the option ``--json``, names, and how a run uses the machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignboard.pipeline.executors.machine import Machine
    from alignboard.pipeline.runner import RunResult

_STDOUT = "alignboard.stdout"


def _human_text_aside(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Of ``--json -``: what is for people goes to standard error, so that standard output is JSON alone."""
    if path is not None and str(path) == "-" and not ctx.resilient_parsing:
        ctx.meta[_STDOUT] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return path


json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    callback=_human_text_aside,
    help="Write the result as JSON to FILE; - is standard output, and the text then goes to standard error.",
)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` for ``--json``; NaN is null."""
    import json

    import msgspec

    from alignboard.results.files import write_atomically
    from alignboard.text import json_value

    plain = json_value(msgspec.to_builtins(content, str_keys=True))
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if str(path) != "-":
        write_atomically(path, text.encode())
        return
    stdout = click.get_current_context().meta[_STDOUT]
    stdout.buffer.write(text.encode())
    stdout.flush()


def completes(room: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The names of ``room`` (such as ``evaluate/suites``) that the shell offers."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        from alignboard.workspace import library, names

        found = {name for root in (Path.cwd(), library()) for name in names(room, root)}
        return sorted(name for name in found if name.startswith(incomplete))

    return complete


name_option = click.option(
    "--name",
    "model_names",
    metavar="A,B",
    help="Names for the MODELs, in their order: their folders in results/ (default: an entry's name, or the folder's).",
)

replace_option = click.option(
    "--replace",
    is_flag=True,
    help="Write a file of results also where the one there has more scored rows; the old one is kept beside it.",
)

allow_key_option = click.option(
    "--allow-key",
    metavar="VARIABLE@HOST",
    multiple=True,
    help="Let a file have the key in VARIABLE sent to HOST, where it does not belong (OPENAI_API_KEY belongs to "
    "api.openai.com).",
)


def terminal_width() -> int | None:
    """Columns of the terminal that standard output goes to; None for a pipe, which gets whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


redo_option = click.option(
    "--redo",
    metavar="KIND",
    multiple=True,
    help="Do the jobs of this kind again, and what depends on them: train, generate, lm-eval, judge, board, ... "
    "After an upgrade of a library, whose version is recorded and no part of a job's key.",
)


def say_versions(result: RunResult) -> None:
    """Say on standard error which finished jobs other versions made."""
    from alignboard.pipeline.progress import versions_text

    text = versions_text(result.other_versions, result.n_older)
    if text:
        print(text, file=sys.stderr)


_MACHINE = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Jobs at a time (default: one per GPU of --gpus; else one per core where no large model is loaded, and "
        "one where one is).",
    ),
    click.option(
        "--gpus",
        metavar="0,1",
        help="One worker per GPU, which is all that it sees; models on one base go to one of them.",
    ),
    click.option(
        "--executor",
        default="processes",
        show_default=True,
        metavar="NAME",
        help="What does the jobs: processes, in-process, or one that an installed package registers.",
    ),
)


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a run uses the machine."""
    for option in reversed(_MACHINE):
        command = option(command)
    return command


def machine_of(workers: int | None, gpus: str | None, executor: str) -> Machine:
    """The options as `alignboard.pipeline.executors.machine.Machine`."""
    from alignboard.errors import InputError
    from alignboard.pipeline.executors.machine import Machine

    devices = tuple(one.strip() for one in (gpus or "").split(",") if one.strip())
    if gpus is not None and not devices:
        raise InputError("--gpus names no GPU; give their numbers, such as 0,1.")
    return Machine(workers, devices, executor)
