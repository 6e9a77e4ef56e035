"""What a plan declares: ``evaluate/plans/<name>.yaml``, resolved with everything that it names.

A plan names models, the recipes that train adapters on them, the suites that they are asked and the judges that
compare their responses. A model that a recipe trains is called ``<base>-<last part of the recipe's name>``: the recipe
``demo/dpo`` on the base ``tiny-phi`` makes ``tiny-phi-dpo``. Reading a plan loads no weights and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from alignboard.engines.openai.keys import require_consent
from alignboard.errors import InputError, nearest
from alignboard.judges.opening import Access
from alignboard.pipeline.evaluation import declared_judge
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.plans.baselines import (
    models_of,
    repeated,
    require_distinct,
    with_baselines,
    with_reference,
)
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.models import ModelEntry, read_entries
from alignboard.pipeline.plans.references import planned_recipe, task_files
from alignboard.pipeline.plans.resolved import ChosenJudge, ResolvedPlan
from alignboard.pipeline.plans.schema import Plan, PlanJudge, check
from alignboard.pipeline.plans.sets import (
    PlanSet,
    outputs_file,
    read_set,
    require_responses,
    set_source,
)
from alignboard.pipeline.plans.sweeps import check_selection, runs_of
from alignboard.published.wheel_boards import read_published_board
from alignboard.suites import EvaluationSuite, Suite, convert, load_evaluation, read_yaml
from alignboard.workspace import declaration


def access_of(given: PlanJudge, journal: Path) -> Access:
    """How a judge of a plan is asked; ``journal`` is where its batches are kept.

    The user agreed to its keys when the plan was read.
    """
    return Access(
        given.urls,
        given.api_key_env if given.urls else None,
        allowed_keys=None,
        limits=given.limits,
        rate=given.price,
        batch_folder=journal / "batches" if given.batch_api else None,
    )


def load_plan(
    name: str | Path, workspace: Path | None = None, consent: Consent | None = None
) -> ResolvedPlan:
    """The plan called ``name`` (or its file); raises `InputError` that names the file and the key."""
    root = (workspace or Path.cwd()).resolve()
    path = declaration("evaluate/plans", str(name), root)
    return resolve(convert(path, read_yaml(path), Plan, "a plan"), path, root, consent)


def resolve(plan: Plan, path: Path, root: Path, consent: Consent | None = None) -> ResolvedPlan:
    """``plan`` with everything that it names; ``path`` is what errors call it."""
    consent = consent or Consent()
    check(path, plan)
    runs = [run for recipe in sorted(plan.all_recipes) for run in runs_of(recipe, plan.sweeps)]
    recipes = {run.key: planned_recipe(run, plan, root) for run in runs}
    entries = read_entries(path, plan, root)
    suites = [load_evaluation(suite, root) for suite in plan.suites]
    judges = _judges(path, plan, suites, root)
    _require_key_consent(path, plan, judges.values(), root, consent)
    rows = [
        row for entry in entries.values() for row in models_of(path, plan, entry, recipes, root)
    ]
    require_distinct(path, rows)
    sets = _sets(path, plan, suites, root)
    if judges and not sets:
        raise InputError(
            f"{path}: there are judges, but no suite has instructions whose answers they could judge."
        )
    outputs = _outputs(path, entries, sets, root)
    if judges:
        rows = with_baselines(path, plan, rows, sets)
        sets = [with_reference(path, plan, one, rows, root) for one in sets]
    heads = [run.key for run in runs if recipes[run.key].trains_head]
    if heads and plan.suites:
        raise InputError(
            f"{path}: the recipe {heads[0]} trains a reward model, which answers no suite; train it by alignboard "
            "train, and name its adapter in a model's entry (evaluate/models/) that a judge of kind reward names."
        )
    if plan.repeats.several and any(one.checkpoints is not None for one in recipes.values()):
        raise InputError(
            f"{path}: learning curves are of single runs; leave checkpoints or repeats out."
        )
    rows = repeated(rows, plan.repeats, entries)
    require_distinct(path, rows)
    resolved = ResolvedPlan(
        plan=plan,
        path=path,
        workspace=root,
        entries=entries,
        recipes=recipes,
        judges=judges,
        suites=tuple(suites),
        sets=tuple(sets),
        outputs=outputs,
        benchmarks=tuple(suite for suite in suites if suite.benchmarks),
        task_files={suite.name: task_files(suite, root, consent) for suite in suites},
        consent=consent,
        models=tuple(rows),
    )
    _check_pairwise(path, resolved)
    _check_published(path, resolved)
    check_selection(path, plan.sweeps, [one.suite.name for one in sets])
    return resolved


def _judges(
    path: Path, plan: Plan, suites: Sequence[EvaluationSuite], root: Path
) -> dict[str, ChosenJudge]:
    """The plan's judges, or those of its suites, each by the name that its column has."""
    asked = plan.asked_judges
    if plan.judges is None:
        own = dict.fromkeys(suite.annotator for suite in suites if suite.annotator is not None)
        asked = [PlanJudge(judge=name) for name in own]
    found: dict[str, ChosenJudge] = {}
    for one in asked:
        declared = declared_judge(one.judge, root, one.order, hardened=one.hardened, urls=one.urls)
        if declared.name in found:
            raise InputError(f"{path}: judges names one judge twice ({declared.name}).")
        found[declared.name] = ChosenJudge(declared, one)
    return found


def _require_key_consent(
    path: Path, plan: Plan, judges: Iterable[ChosenJudge], root: Path, consent: Consent
) -> None:
    """A plan may be somebody else's, so that the addresses that it gives need the user's consent, too."""
    given = [(f"{path}: models.{name}", entry) for name, entry in plan.models.items()]
    given += [(f"{path}: judges.{one.access.judge}", one.access) for one in judges]
    for what, access in given:
        require_consent(what, access.api_key_env, access.urls, consent.keys)
    for chosen in judges:
        access = Access(chosen.access.urls, allowed_keys=consent.keys)
        Judges(access, root).require_key_consent(chosen.declared)


def require_code_consent(resolved: ResolvedPlan) -> None:
    """A plan may be somebody else's, so that naming code in it is no consent to run it."""
    named = [
        f"models.{name} runs Python of the repository {entry.spec.base}"
        for name, entry in resolved.entries.items()
        if entry.spec is not None and entry.spec.trust_remote_code and entry.declared.engine is None
    ]
    judges = Judges(Access(), resolved.workspace)
    named += [
        f"the judge {spec.name} runs the command {spec.program!r}"
        for chosen in resolved.judges.values()
        for spec in judges.members(chosen.declared)
        if spec.program is not None
    ]
    if named and not resolved.consent.code:
        raise InputError(
            f"{resolved.path}: {'; '.join(named)}; read what that is, then agree by --trust-code."
        )


def _sets(path: Path, plan: Plan, suites: Sequence[EvaluationSuite], root: Path) -> list[PlanSet]:
    found: dict[str, PlanSet] = {}
    for suite in suites:
        if suite.instructions is None:
            continue
        declared = suite.instructions
        if plan.n_prompts is not None:
            declared = msgspec.structs.replace(declared, limit=plan.n_prompts)
        source = set_source(declared, root)
        one = PlanSet(suite, declared, source, read_set(source, root, declared), None)
        if one.name in found:
            raise InputError(
                f"{path}: suites {found[one.name].suite.name!r} and {suite.name!r} both ask the set {one.name}, and a "
                "model has one file of responses to it; make two plans."
            )
        found[one.name] = one
    return list(found.values())


def _outputs(
    path: Path, entries: Mapping[str, ModelEntry], sets: Sequence[PlanSet], root: Path
) -> dict[tuple[str, str], Path]:
    """The released responses of models that have no weights here, checked against what is asked."""
    found = {}
    for name, entry in entries.items():
        given = entry.declared.outputs
        for one in sets if given is not None else ():
            try:
                file = outputs_file(str(given), root, one.asked)
                require_responses(file, one.asked)
            except InputError as error:
                raise InputError(f"{path}: models.{name}.outputs: {error}") from error
            found[name, one.name] = file
    return found


def _check_published(path: Path, resolved: ResolvedPlan) -> None:
    wanted = resolved.plan.published
    if wanted is None:
        return
    boards = [suite for suite in resolved.suites if isinstance(suite, Suite)]
    if not boards:
        raise InputError(
            f"{path}: published asks for published rows, but none of suites has a published board."
        )
    known = {name for suite in boards for name in read_published_board(suite.board.file)}
    for name in wanted if wanted != "all" else ():
        if name not in known:
            hint = nearest(name, known) or "."
            raise InputError(
                f"{path}: published names {name!r}, which no published board has{hint}"
            )


def _check_pairwise(path: Path, resolved: ResolvedPlan) -> None:
    pairwise = resolved.plan.pairwise
    if pairwise is None:
        return
    if resolved.pairwise_judge is None:
        hint = nearest(pairwise.judge, resolved.judges) or "."
        raise InputError(
            f"{path}: pairwise.judge is {pairwise.judge!r}, which is not one of the plan's judges{hint}"
        )
    if pairwise.set is not None:
        known = [name for one in resolved.sets for name in (one.suite.name, one.name)]
        if pairwise.set not in known:
            hint = nearest(pairwise.set, known) or f" ({', '.join(known)})."
            raise InputError(
                f"{path}: pairwise.set is {pairwise.set!r}, which the plan does not ask{hint}"
            )
    chosen = resolved.pairwise_set
    if chosen is not None and chosen.asked.n_turns > 1:
        raise InputError(
            f"{path}: pairwise compares responses of one turn, and {chosen.name} has two."
        )
