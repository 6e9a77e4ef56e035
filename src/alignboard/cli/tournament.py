"""`alignboard tournament`: pairs of models judged until they are separated or the budget is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignboard.cli.judge.judging import judge_options
from alignboard.cli.options import FOLDER, POSITIVE, json_option, judge_option, parts
from alignboard.cli.shared import write_json

if TYPE_CHECKING:
    from alignboard.judges.spec import Order
    from alignboard.judges.tournament import Policy
    from alignboard.pipeline.executors.work import Event

_POLICY = (
    "round-robin: every pair on every prompt. open-pairs: those that are not separated. information: of these the half "
    "that is nearest to a decision."
)


@click.command(
    epilog="Example: alignboard tournament sft dpo simpo --judge hardened-pair --budget 500"
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@judge_option
@click.option(
    "--budget",
    type=POSITIVE,
    required=True,
    metavar="N",
    help="The most judgments of pairs; a judge that sees both orders makes two calls of one.",
)
@click.option(
    "--policy",
    type=click.Choice(["round-robin", "open-pairs", "information"]),
    default="open-pairs",
    show_default=True,
    help=_POLICY,
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws the order of the prompts.",
)
@click.option(
    "--people",
    "n_people",
    type=POSITIVE,
    metavar="N",
    help="Also draw about N judged pairs for people to judge, with the probability of each.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("leaderboards/tournament"),
    show_default=True,
    metavar="DIR",
    help="Where standings.json, battles.jsonl and, with --people, people.jsonl are written.",
)
@judge_options
@json_option
def tournament(
    models: tuple[str, ...],
    name: str,
    budget: int,
    policy: Policy,
    seed: int,
    n_people: int | None,
    out: Path,
    order: Order | None,
    *,
    hardened: bool,
    json_file: Path | None,
    **access: Any,
) -> None:
    """Judge all pairs of MODELs, prompt by prompt, until they are separated or the budget is spent.

    MODELs are files of outputs, or models of results/. Pairs are decided by e-processes with Holm's correction: looking
    at every step costs nothing, and the chance of any false claim in the run is at most 5 %. Replies are kept as they
    come; started again, it asks only for what is missing. battles.jsonl is what `alignboard rank` reads.
    """
    import msgspec

    from alignboard.cli.judge.judging import checking, plan_judge
    from alignboard.judges.round_robin import by_instruction, shared_instructions
    from alignboard.judges.tournament import Standings
    from alignboard.pipeline.evaluation import declared_judge
    from alignboard.pipeline.judged_outputs import read_models
    from alignboard.pipeline.plans.single import tournament_graph
    from alignboard.pipeline.progress import showing
    from alignboard.pipeline.runner import run_graph
    from alignboard.reports.tournament_text import to_text

    declared = declared_judge(
        name, Path.cwd(), order, hardened=hardened, urls=tuple(parts(access["judge_engine"]))
    )
    # Who cannot play is refused before anything starts.
    shared_instructions(by_instruction(read_models(models, Path.cwd())))
    with checking(access, declared, ask=True, replace=False):
        graph = tournament_graph(
            declared,
            models,
            plan_judge(access),
            folder=str(out),
            budget=budget,
            policy=policy,
            seed=seed,
            n_people=n_people,
        )
    reports: list[Any] = []
    with showing(len(graph)) as show:

        def listen(event: Event) -> None:
            show(event)
            if event.report:
                reports.append(event.report)

        run_graph(graph, Path.cwd(), listen)
    found = msgspec.convert(reports[0], Standings)
    write_json(json_file, found)
    print(to_text(found))
