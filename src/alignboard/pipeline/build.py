"""From a plan to its graph of jobs.

A base model's jobs are one group: checkpoint, SFT, preference pairs, the preference methods, answers, lm-eval,
verdicts. The judge model is a group of its own, and so are the comparisons between all models, up to the board.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.benchmarks.run import DEMO_TASKS
from alignboard.data.preferences.sources import local_files
from alignboard.errors import InputError
from alignboard.judges.load import load_judge
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.jobs.kinds import KINDS, SECONDS
from alignboard.pipeline.plan import (
    TINY_FAMILIES,
    Overrides,
    Plan,
    PlanModel,
    ResolvedPlan,
    TrainedModel,
    resolve,
    source_identity,
)
from alignboard.results.files import file_sha256
from alignboard.suites import EvaluationSuite
from alignboard.workspace import declaration

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

DEMO_JUDGE = "demo-judge"
"""what a judge's declaration calls the tiny judge model that is trained here"""
_JUDGE_FAMILY = "phi"
_JUDGE_GROUP = "judge model"
_ALL_GROUP = "all models"


class _Builder:
    def __init__(self, resolved: ResolvedPlan) -> None:
        self.resolved = resolved
        self.plan = resolved.plan
        self.graph = Graph(KINDS)

    def add(
        self,
        name: str,
        kind: str,
        group: str,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str | None] | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> str:
        entry = self.plan.models.get(group)
        # The estimates are for tiny models.
        seconds = SECONDS[kind] if entry is None or entry.tiny is not None else None
        return self.graph.add(name, kind, group, parameters, needs, seconds=seconds, hints=hints)

    def checkpoint(self, base: str) -> str:
        entry = self.plan.models[base]
        if entry.tiny is not None:
            what = {
                "tiny": entry.tiny,
                "seed": self.plan.seed,
                "pretrain": self.plan.overrides.pretrain,
            }
        else:
            what = {"source": source_identity(str(entry.source), self.resolved.workspace)}
        return self.add(f"checkpoint {base}", "checkpoint", base, {"model": base, **what})

    def train(self, model: TrainedModel, adapters: Mapping[str, str]) -> str:
        recipe = self.resolved.recipes[str(model.recipe)]
        base = self.checkpoint(model.base)
        start = adapters[model.start] if model.start else None
        pairs = None
        if recipe.pairs is not None:
            # Recipes that ask for the same pairs share them.
            settings = {"pairs": msgspec.to_builtins(recipe.pairs), "seed": self.plan.seed}
            name = f"pairs {model.start or model.base}"
            known = self.graph.jobs.get(name)
            if known is not None and known.parameters != settings:
                name = f"pairs for {model.name}"
            pairs = self.add(name, "pairs", model.base, settings, {"base": base, "adapter": start})
        parameters = {
            "model": model.name,
            "recipe": recipe.identity(),
            "data": self.data_file(recipe),
            "seed": self.plan.seed + recipe.seed,
        }
        return self.add(
            f"train {model.name}",
            "train",
            model.base,
            parameters,
            {"base": base, "start": start, "pairs": pairs},
            {"per_device": recipe.batch.per_device},
        )

    def data_file(self, recipe: Recipe) -> str | None:
        """sha256 over the local files that a recipe trains on; None where its rows come from elsewhere."""
        files = local_files(recipe.data.name, self.resolved.workspace)
        if not files:
            return None
        return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()

    def chat_template(self, base: str) -> str | None:
        """The template that the recipes of a base model give it; None = its own."""
        own = (
            model.recipe for model in self.resolved.models if model.base == base and model.recipe
        )
        templates = (self.resolved.recipes[recipe].chat_template for recipe in own)
        return next((template for template in templates if template is not None), None)

    def judge_models(self) -> dict[str, str]:
        """The job that makes a judge's model, by judge, for judges that are trained here."""
        settings = {"seed": self.plan.seed, "training": self.plan.overrides.judge_training}
        return {
            name: self.add(
                "judge model", "judge-model", _JUDGE_GROUP, settings, {"base": self._judge_base()}
            )
            for name, declared in self.resolved.judges.items()
            if declared.prompted is not None and declared.prompted.model == DEMO_JUDGE
        }

    def _judge_base(self) -> str:
        """The checkpoint that the judge's model starts from: one that the plan has anyway, where it has it."""
        for base, entry in self.plan.models.items():
            if entry.tiny == _JUDGE_FAMILY:
                return self.checkpoint(base)
        what = {
            "tiny": _JUDGE_FAMILY,
            "seed": self.plan.seed,
            "pretrain": self.plan.overrides.pretrain,
        }
        return self.add(
            "checkpoint of the judge", "checkpoint", _JUDGE_GROUP, {"model": None, **what}
        )

    def build(self) -> Graph:
        judge_models = self.judge_models()
        models = self.resolved.models
        trained: dict[str, str] = {}  # model -> job
        answers: dict[str, str] = {}
        board: dict[str, str] = {}
        for base in self.plan.models:
            own = [model for model in models if model.base == base]
            for model in own:
                if model.recipe is not None:
                    trained[model.name] = self.train(model, trained)
            for model in own:
                needs = {"base": self.checkpoint(base), "adapter": trained.get(model.name)}
                answers |= self._ask(model, needs, board)
            for model in own:
                self._judge(model, answers, judge_models, board)
        if board:
            self._compare(answers, judge_models, board)
            self.add(
                f"board {self.plan.name}", "board", _ALL_GROUP, self._board_parameters(), board
            )
        return self.graph

    def _ask(
        self, model: TrainedModel, needs: Mapping[str, str | None], board: dict[str, str]
    ) -> dict[str, str]:
        """Answers and benchmarks of one model; returns the job of its answers."""
        found = {}
        asked = self.resolved.asked
        if asked is not None and asked.instructions is not None:
            instructions = msgspec.to_builtins(asked.instructions) | {"n": self.resolved.n_prompts}
            parameters = {
                "model": model.name,
                "chat_template": self.chat_template(model.base),
                "dataset": asked.name,
                "instructions": instructions,
            }
            job = self.add(f"generate {model.name}", "generate", model.base, parameters, needs)
            found[model.name] = board[f"outputs {model.name}"] = job
        for suite in self.resolved.benchmarks:
            parameters = {
                "model": model.name,
                "chat_template": self.chat_template(model.base),
                "suite": suite.name,
                "tasks": [msgspec.to_builtins(task) for task in suite.benchmarks],
                "apply_chat_template": suite.apply_chat_template,
                "files": self.resolved.task_files[suite.name],
            }
            name = f"lm-eval {suite.name} {model.name}"
            data = {"tasks": self.task_data(suite)}
            board[name] = self.add(name, "lm-eval", model.base, parameters, {**needs, **data})
        return found

    def task_data(self, suite: EvaluationSuite) -> str | None:
        """The job that writes the documents of a suite's tasks; None where they are all declared with their data."""
        if not any(task.task in DEMO_TASKS for task in suite.benchmarks):
            return None
        templates = {
            name: declaration("evaluate/tasks", name, self.resolved.workspace).read_text(
                encoding="utf-8"
            )
            for name in DEMO_TASKS
        }
        name = f"tasks of {suite.name}"
        return self.add(
            name, "task-data", name, {"seed": 0, "n": suite.n_documents, "templates": templates}
        )

    def _judge(
        self,
        model: TrainedModel,
        answers: Mapping[str, str],
        judge_models: Mapping[str, str],
        board: dict[str, str],
    ) -> None:
        if model.baseline is None or model.baseline == model.name:
            return
        for judge in self.resolved.judges:
            job = self.add(
                f"judge {judge} {model.name}",
                "judge",
                model.base,
                self._declared(judge),
                {
                    "outputs": answers[model.name],
                    "baseline": answers[model.baseline],
                    "judge-model": judge_models.get(judge),
                },
            )
            board[f"verdicts {judge} {model.name}"] = job

    def _declared(self, judge: str) -> dict[str, Any]:
        """A judge as the parameters of a job; of a jury with what its jurors declare."""
        declared = self.resolved.judges[judge]
        content = {"judge": judge, "declared": msgspec.to_builtins(declared)}
        if declared.jurors:
            root = self.resolved.workspace
            jurors = [load_judge(juror, root) for juror in declared.jurors]
            content["jurors"] = msgspec.to_builtins(jurors)
        return content

    def _compare(
        self, answers: Mapping[str, str], judge_models: Mapping[str, str], board: dict[str, str]
    ) -> None:
        pairwise = self.plan.pairwise
        if pairwise is None or len(answers) < 2:
            return
        needs: dict[str, str | None] = {f"outputs {model}": job for model, job in answers.items()}
        needs["judge-model"] = judge_models.get(pairwise.judge)
        parameters = {
            **self._declared(pairwise.judge),
            "n_prompts": min(pairwise.n_prompts, self.resolved.n_prompts),
            "models": list(answers),
            "seed": self.plan.seed,
        }
        board["pairwise"] = self.add(
            f"pairwise {self.plan.name}", "pairwise", _ALL_GROUP, parameters, needs
        )

    def _board_parameters(self) -> dict[str, Any]:
        asked = self.resolved.asked.instructions if self.resolved.asked else None
        return {
            "name": self.plan.name,
            "title": self.plan.title or self.plan.name,
            "seed": self.plan.seed,
            "baseline": self.plan.baseline,
            "judges": list(self.resolved.judges),
            "suites": [msgspec.to_builtins(suite) for suite in self.resolved.benchmarks],
            "rating_judge": self.plan.pairwise.judge if self.plan.pairwise else None,
            "answer_key": asked is not None and asked.source == "demo-world",
            "models": [
                {
                    "model": m.name,
                    "family": m.base,
                    "method": m.method,
                    "baseline": m.baseline,
                    "trained_in_bits": self._bits(m),
                }
                for m in self.resolved.models
            ],
        }

    def _bits(self, model: TrainedModel) -> int | None:
        """How many bits a weight of the base had while an adapter was trained on it; None = as it is stored."""
        quantization = self.resolved.recipes[model.recipe].quantization if model.recipe else None
        return quantization.bits if quantization else None


def build_graph(resolved: ResolvedPlan) -> Graph:
    """The jobs of a plan, in an order in which they can be done."""
    return _Builder(resolved).build()


def single_recipe_plan(recipe: str, model: str | None, workspace: Path) -> ResolvedPlan:
    """A plan that trains ``recipe``, and the recipes that it starts from, on one model, and asks nothing.

    ``model`` is ``tiny-<family>``, a folder, or an id on the hub; None = the one that the recipe names.
    """
    from alignboard.train.recipe import load_recipe

    chain: list[str] = []
    following: str | None = recipe
    while following is not None:
        if following in chain:
            raise InputError(f"The recipes {', '.join(reversed(chain))} start from each other.")
        chain.insert(0, following)
        declared = load_recipe(declaration("train", following, workspace))
        model = model or declared.model
        following = declared.start_from
    if model is None:
        raise InputError(f"The recipe {recipe} names no model; say which one to train.")
    family = model.removeprefix("tiny-")
    tiny = model.startswith("tiny-") and family in TINY_FAMILIES
    entry = PlanModel(tiny=family) if tiny else PlanModel(source=model)
    name = model.rstrip("/").rsplit("/", 1)[-1]
    plan = Plan(
        name=f"train-{name}", models={name: entry}, suites=[], recipes=chain, overrides=Overrides()
    )
    return resolve(plan, Path(f"the model {model}"), workspace)
