"""The command line: parse, call one function, print. Heavy packages are imported inside the commands.

Exit codes are those of `alignboard.cli.boundary`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path

import click

from alignboard.cli.boundary import EXIT_FOUND, guarded
from alignboard.cli.options import (
    PATH,
    allow_key_option,
    assets_option,
    completes,
    json_option,
    launcher_option,
    machine_of,
    machine_options,
    models_option,
    redo_option,
    trust_tasks_option,
)
from alignboard.cli.published import calibration, from_option, mode_option, names_of, released
from alignboard.cli.shared import show_run, write_json
from alignboard.startup import prepare
from alignboard.workspace import PUBLISHED


def main() -> None:
    """Run a command; a user's mistake is one sentence on stderr and exit code 2."""
    # numpy's BLAS would start a thread per core, which costs 0.1 s of processor time a run and stands in the way of
    # forks; the matrices here are small. What the user has set stays.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # datasets counts the reading of a local file on its server, and waits for that up to 3 s, each time.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    # What torch and transformers make while they are imported stays; looking for garbage among it takes long.
    gc.set_threshold(*_COLLECT_AFTER)
    prepare()
    # click's own standalone mode turns an interrupt into "Aborted!" and exit code 1.
    sys.exit(guarded(lambda: cli.main(prog_name="alignboard", standalone_mode=False)))


_ROOM = "alignboard.cli"
_COLLECT_AFTER = (1_000_000, 10, 10)
"""new objects, and collections of the younger generation, before the next collection"""


class Commands(MutableMapping[str, click.Command]):
    """Commands as `click.Group` takes them, from ``module:attribute`` inside `alignboard.cli`."""

    def __init__(self, **targets: str) -> None:
        self._targets: dict[str, str | click.Command] = dict(targets)

    def __getitem__(self, name: str) -> click.Command:
        found = self._targets[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(import_module(f"{_ROOM}.{module}"), attribute)
            self._targets[name] = found
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._targets[name] = command

    def __delitem__(self, name: str) -> None:
        del self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


COMMANDS = Commands(
    benchmark="benchmark:benchmark",
    board="boards.board:board",
    bridge="bridge:bridge",
    compare="compare:compare",
    convert="boards.convert:convert",
    data="data:data",
    evaluate="evaluate:evaluate",
    export="train:export",
    fetch="data:fetch",
    generate="generate:generate",
    judge="judge.judge:judge",
    label="boards.view:label",
    models="models:models",
    plot="boards.plot:plot",
    power="compare:power",
    publish="boards.view:publish",
    rank="rank:rank",
    recipe="recipe:recipe",
    sweep="train:sweep",
    tournament="tournament:tournament",
    track="boards.convert:track",
    train="train:train",
    view="boards.view:view",
)


@click.group(name="alignboard", commands=COMMANDS)
@click.version_option(package_name="alignboard")
def cli() -> None:
    """Train, judge and rank preference-tuned language models; recompute and audit published boards."""


@cli.command(epilog="Example: alignboard reproduce alpaca-eval-2 --models zephyr-7b-beta")
@click.argument("suite", shell_complete=completes("evaluate/suites"))
@from_option
@assets_option
@models_option
@mode_option
@json_option
def reproduce(
    suite: str,
    results: Path | None,
    assets: Path | None,
    models: str | None,
    mode: str,
    json_file: Path | None,
) -> None:
    """Recompute the board of SUITE (alpaca-eval-2, alpaca-eval-1) and hold it against the published one.

    Without --from, the released annotations are downloaded once. Exit code 3 where a figure differs from the
    published board by more than the suite's tolerance.
    """
    from alignboard.published.reproduce import reproduce as recompute
    from alignboard.published.terminal import reproduction_table, summary
    from alignboard.results.folder import ResultsFolder
    from alignboard.suites import load_suite

    declared = load_suite(suite)
    names = names_of(models)
    with ResultsFolder(results or released(declared, names)) as folder:
        folder.require(names or [], declared.annotator)
        board = recompute(declared, folder, calibration(declared, assets), models=names, mode=mode)
    write_json(json_file, board.to_json())
    print(reproduction_table(board))
    print()
    print(summary(board))
    for line in board.disagreements:
        print(f"DISAGREES  {line}")
    if board.disagreements:
        sys.exit(EXIT_FOUND)


@cli.command(epilog="Example: alignboard audit --from results")
@from_option
@assets_option
@json_option
def audit(results: Path | None, assets: Path | None, json_file: Path | None) -> None:
    """Say what is wrong or suspicious in the published boards and in a results folder, with the evidence.

    Exit code 3 where something was found.
    """
    from alignboard.published.audit.folder import audit_boards, audit_results
    from alignboard.published.terminal import findings_text, progress
    from alignboard.results.folder import ResultsFolder
    from alignboard.suites import load_suite

    suites = [load_suite(name) for name in PUBLISHED]
    findings = list(audit_boards(suites))
    if results is not None:
        with ResultsFolder(results) as folder, progress("auditing", len(folder.models)) as advance:
            findings += audit_results(folder, suites, calibration(suites[0], assets), advance)
    write_json(json_file, {"findings": [finding.to_json() for finding in findings]})
    print(findings_text(findings))
    if findings:
        sys.exit(EXIT_FOUND)


@cli.command(epilog="Example: alignboard run demo --dry-run")
@click.argument("plan", shell_complete=completes("evaluate/plans"))
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print which jobs are done, and the calls, tokens, dollars and seconds of the others.",
)
@machine_options
@launcher_option
@trust_tasks_option
@click.option(
    "--trust-code",
    is_flag=True,
    help="Run programs that judge, and Python of models' repositories (trust_remote_code), as PLAN names them.",
)
@allow_key_option
@redo_option
@json_option
def run(
    plan: str,
    workers: int | None,
    gpus: str | None,
    executor: str,
    *,
    launcher: str,
    dry_run: bool,
    trust_tasks: bool,
    trust_code: bool,
    allow_key: tuple[str, ...],
    redo: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Do what is missing of PLAN (a name such as demo, or a file): train, answer, judge, benchmark, rank.

    The workspace is the folder you are in. Interrupt it at any moment and start it again: it goes on where it was.
    Several runs and commands may be at work in one workspace; each product is made by one of them.
    """
    from functools import partial

    from alignboard.pipeline.plans.consent import Consent
    from alignboard.pipeline.runner import run_plan

    machine = machine_of(workers, gpus, executor, launcher)
    consent = Consent(frozenset(allow_key), trust_tasks, trust_code)
    planned = partial(run_plan, plan, machine=machine, redo=redo, consent=consent)
    show_run(planned, json_file, dry_run=dry_run)


@cli.command(epilog="Example: alignboard init my-workspace")
@click.argument("folder", type=PATH)
@json_option
def init(folder: Path, json_file: Path | None) -> None:
    """Make FOLDER a workspace: the built-in recipes, suites, judges and the demo's plan, to be edited."""
    from alignboard.workspace import init_workspace

    files = init_workspace(folder)
    print(f"{len(files)} files. Next: cd {folder} && alignboard run demo")
    write_json(json_file, {"files": [str(path) for path in files]})


if __name__ == "__main__":
    main()
