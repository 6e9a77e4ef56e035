"""Options that several commands have, and what their values mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from alignboard.pipeline.executors.machine import Machine
    from alignboard.training.sections import LauncherName

STDOUT = "alignboard.stdout"
"""the key of the real standard output in click's context, for ``--json -``"""
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
READABLE_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False)
POSITIVE = click.IntRange(min=1)
_RATE = click.FloatRange(min=0, min_open=True)
_DOLLARS = click.FloatRange(min=0)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in their order in the help."""
    return lambda command: reduce(lambda found, option: option(found), reversed(options), command)


def completes(room: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The names of ``room`` (such as ``evaluate/suites``) that the shell offers."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        from alignboard.workspace import library, names

        found = {name for root in (Path.cwd(), library()) for name in names(room, root)}
        return sorted(name for name in found if name.startswith(incomplete))

    return complete


def parts(text: str | None) -> list[str]:
    """The entries of ``A,B``."""
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _human_text_aside(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Of ``--json -``: what is for people goes to standard error, so that standard output is JSON alone."""
    if path is not None and str(path) == "-" and not ctx.resilient_parsing:
        ctx.meta[STDOUT] = sys.stdout
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
model_arguments = click.argument(
    "models",
    nargs=-1,
    required=True,
    metavar="MODEL...",
    shell_complete=completes("evaluate/models"),
)
names_option = click.option(
    "--name",
    "model_names",
    metavar="A,B",
    help="Names for the MODELs, in their order: their folders in results/ (default: an entry's name, or the folder's).",
)
models_option = click.option("--models", metavar="A,B", help="Only these models.")
limit_option = click.option(
    "--limit", type=POSITIVE, metavar="N", help="Only the first N instructions."
)
replace_option = click.option(
    "--replace",
    is_flag=True,
    help="Write a file of results also where the one there has more scored rows; the old one is kept beside it.",
)
redo_option = click.option(
    "--redo",
    metavar="KIND",
    multiple=True,
    help="Do the jobs of this kind again, and what depends on them: train, generate, lm-eval, judge, board, ... "
    "After an upgrade of a library, whose version is recorded and no part of a job's key.",
)
assets_option = click.option(
    "--assets",
    type=PATH,
    metavar="DIR",
    help="Where df_gamed.csv and instruction_difficulty.csv are (else: from the hub, once).",
)
all_pairs_option = click.option(
    "--all-pairs", is_flag=True, help="Compare all pairs, not only the first model with the others."
)
port_options = together(
    click.option(
        "--port", type=click.IntRange(0, 65535), default=0, help="Of the page; 0 takes a free one."
    ),
    click.option("--no-browser", is_flag=True, help="Print the address only."),
)
trained_model_option = click.option(
    "--model",
    metavar="NAME",
    help="A name of `models list`, a folder, a .gguf file, a hub id, or tiny-<family> (default: the recipe's).",
)
training_data_option = click.option(
    "--data",
    "data_name",
    metavar="SOURCE",
    help="Train on this instead: a json, jsonl, csv or parquet file, a folder of `datasets`, a hub id.",
)
judge_option = click.option(
    "--judge",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=completes("evaluate/judges"),
    help="A judge of `alignboard judge list`, or a yaml file.",
)
allow_key_option = click.option(
    "--allow-key",
    metavar="VARIABLE@HOST",
    multiple=True,
    help="Let a file have the key in VARIABLE sent to HOST, where it does not belong (OPENAI_API_KEY belongs to "
    "api.openai.com).",
)
trust_remote_code_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Agree to run the repository's own Python where an entry asks.",
)
trust_tasks_option = click.option(
    "--trust-tasks",
    is_flag=True,
    help="Run the code that task files in evaluate/tasks name (!function), and their templates outside a sandbox.",
)
engine_option = click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="URL,URL",
    help="local, or the addresses of OpenAI-compatible endpoints, up to /v1.",
)
api_key_env_option = click.option(
    "--api-key-env",
    metavar="VARIABLE",
    help="The environment variable that holds the key of --engine.",
)
max_new_tokens_option = click.option(
    "--max-new-tokens", type=POSITIVE, metavar="N", help="Of a response, in place of the entry's."
)
request_options = together(
    click.option(
        "--concurrency",
        type=POSITIVE,
        default=16,
        show_default=True,
        help="Requests at a time, per address.",
    ),
    click.option(
        "--requests-per-minute",
        type=_RATE,
        metavar="N",
        help="The limit of the account, per address.",
    ),
    click.option(
        "--tokens-per-minute",
        type=_RATE,
        metavar="N",
        help="The same, of prompts and replies together.",
    ),
    click.option(
        "--price",
        type=(_DOLLARS, _DOLLARS),
        metavar="PROMPT REPLY",
        help="US dollars per million tokens (else from evaluate/prices.yaml, where the model is there).",
    ),
)
machine_options = together(
    click.option(
        "--workers",
        type=POSITIVE,
        metavar="N",
        help="Jobs at a time (default: one per GPU of --gpus; else one per core where no large model is loaded, and "
        "one where one is); with --launcher on a machine without GPUs, processes of one training.",
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
launcher_option = click.option(
    "--launcher",
    type=click.Choice(["auto", "none", "ddp", "fsdp2", "zero2", "zero3"]),
    default="auto",
    show_default=True,
    help="Processes of a training, by accelerate launch. auto: with several GPUs one for each training, and ddp for a "
    "single training.",
)


def results_option(help_text: str = "A results folder.") -> Decorator:
    """``--from DIR``: the results that a command reads."""
    return click.option("--from", "results", type=FOLDER, metavar="DIR", help=help_text)


def machine_of(
    workers: int | None, gpus: str | None, executor: str, launcher: str = "auto"
) -> Machine:
    """The options as `alignboard.pipeline.executors.machine.Machine`."""
    from alignboard.errors import InputError
    from alignboard.pipeline.executors.machine import Machine

    devices = tuple(parts(gpus))
    if gpus is not None and not devices:
        raise InputError("--gpus names no GPU; give their numbers, such as 0,1.")
    return Machine(workers, devices, executor, launcher=cast("LauncherName", launcher))
