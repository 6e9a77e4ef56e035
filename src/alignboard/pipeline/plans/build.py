"""From a plan to its graph of jobs.

A base model's jobs are one group: checkpoint, SFT, preference pairs, the preference methods, responses, lm-eval. A
judge that is loaded or paid for is a group of its own, so that its model is loaded once and its limits hold for all
that it judges; the judge that is trained here is another; so are the comparisons between all models, up to the board.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alignboard.benchmarks.task_files import generated_contents
from alignboard.data.preferences.sources import local_files
from alignboard.fetch.packages import is_packaged, packaged_digest
from alignboard.judges.load import load_judge
from alignboard.judges.spec import JudgeSpec
from alignboard.models.spec import ModelSpec, PromptFormat
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.judges import Access, Judges
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.made import JudgeModel, generated_tasks, judge_model
from alignboard.pipeline.plans.models import (
    ModelEntry,
    asked_as,
    is_adapter,
    pinned,
    source_identity,
    weights_identity,
)
from alignboard.pipeline.plans.plan import ResolvedPlan
from alignboard.pipeline.plans.sets import PlanSet
from alignboard.results.files import file_sha256
from alignboard.suites import EvaluationSuite, Suite

if TYPE_CHECKING:
    from alignboard.train.recipe import Recipe

_JUDGE_GROUP = "judge model"
_ALL_GROUP = "all models"
_RELEASED_GROUP = "released responses"


def judge_trained_here(declared: JudgeSpec) -> JudgeModel | None:
    """The judge's model that the plan trains; None for judges that are there already."""
    return None if declared.prompted is None else judge_model(declared.prompted.model)


class _Builder:
    def __init__(self, resolved: ResolvedPlan) -> None:
        self.resolved = resolved
        self.plan = resolved.plan
        self.graph = Graph()

    def add(
        self,
        name: str,
        kind: str,
        group: str,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str | None] | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> str:
        entry = self.resolved.entries.get(group)
        # The estimates are for tiny models, and for judges that are as quick.
        large = entry is not None and not entry.is_tiny
        slow = "judge" in parameters and self._is_slow(parameters["judge"])
        seconds = None if large or slow else job_kind(kind).seconds
        return self.graph.add(name, kind, group, parameters, needs, seconds=seconds, hints=hints)

    def checkpoint(self, base: str) -> str:
        entry = self.resolved.entries[base]
        hints = {}
        if entry.spec is None:
            what = {
                "tiny": entry.declared.tiny,
                "seed": self.plan.seed,
                "pretrain": self.plan.overrides.pretrain,
            }
        else:
            what = {"source": weights_identity(entry.spec, self.resolved.workspace)}
            where = ("revision", "gguf_file")
            spec = pinned(entry.spec)
            hints = {"path": spec.base} | {one: getattr(spec, one) for one in where}
        parameters = {"model": base, **what}
        return self.add(f"checkpoint {base}", "checkpoint", entry.group, parameters, hints=hints)

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
        hints: dict[str, Any] = {
            "per_device": recipe.batch.per_device,
            "save_every": recipe.save_every,
        }
        root = self.resolved.workspace
        if recipe.start_from is not None and is_adapter(recipe.start_from, root):
            parameters["start"] = source_identity(recipe.start_from, root)
            local = root / recipe.start_from
            hints["start"] = str(local) if local.exists() else recipe.start_from
        needs = {"base": base, "start": start, "pairs": pairs}
        return self.add(f"train {model.name}", "train", model.base, parameters, needs, hints)

    def data_file(self, recipe: Recipe) -> str | None:
        """sha256 over the files, local or of a package, that a recipe trains on; None where its rows are elsewhere."""
        held_out = recipe.held_out.data if recipe.held_out else None
        found = [self._digest(one.name) for one in recipe.data_sets]
        found += [] if held_out is None else [self._digest(held_out.name)]
        known = [one for one in found if one is not None]
        if len(known) < 2:
            return known[0] if known else None
        return hashlib.sha256("".join(known).encode()).hexdigest()

    def _digest(self, name: str) -> str | None:
        if is_packaged(name):
            return packaged_digest(name, self.resolved.workspace)
        files = local_files(name, self.resolved.workspace)
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
        found = {}
        for name, judge in self.resolved.judges.items():
            made = judge_trained_here(judge.declared)
            if made is not None:
                needs = {"base": self._judge_base(made.family)}
                found[name] = self.add("judge model", made.job, _JUDGE_GROUP, settings, needs)
        return found

    def _judge_base(self, family: str) -> str:
        """The checkpoint that the judge's model starts from: one that the plan has anyway, where it has it."""
        for base, entry in self.plan.models.items():
            if entry.tiny == family:
                return self.checkpoint(base)
        what = {
            "tiny": family,
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
        responses: dict[tuple[str, str], str] = {}  # (model, set) -> job
        board: dict[str, str] = {}
        for asked in self.resolved.sets:
            if asked.reference is not None:
                responses[asked.reference.model, asked.name] = self._released(
                    asked.reference.model, asked, asked.reference.path
                )
        for base in self.plan.models:
            own = [model for model in models if model.base == base]
            for model in own:
                if model.recipe is not None:
                    trained[model.name] = self.train(model, trained)
            for model in own:
                responses |= self._ask(model, trained, board)
        for model in models:
            for asked in self.resolved.sets:
                self._judge(model, asked, responses, judge_models, board)
        if board and self.resolved.makes_board:
            self._compare(responses, judge_models, board)
            key = self.resolved.sets[0].asked.answer_key if self.resolved.sets else None
            name, parameters = f"board {self.plan.name}", self._board_parameters()
            self.add(name, "board", _ALL_GROUP, parameters, board, {"answer_key": key})
        return self.graph

    def _ask(
        self, model: TrainedModel, trained: Mapping[str, str], board: dict[str, str]
    ) -> dict[tuple[str, str], str]:
        """Responses and benchmarks of one model; returns the jobs of its responses."""
        found = {}
        entry = self.resolved.entries[model.base]
        weights = entry.is_tiny or (entry.spec is not None and entry.served is None)
        needs = (
            {"base": self.checkpoint(model.base), "adapter": trained.get(model.name)}
            if weights
            else {}
        )
        for asked in self.resolved.sets:
            path = self.resolved.outputs.get((model.base, asked.name))
            if path is not None:
                job = self._released(model.name, asked, path)
            else:
                job = self._generate(model, entry, asked, needs)
            found[model.name, asked.name] = board[f"outputs {asked.name} {model.name}"] = job
        for suite in self.resolved.benchmarks if weights else ():
            self._benchmark(model, entry, suite, needs, board)
        return found

    def _generate(
        self,
        model: TrainedModel,
        entry: ModelEntry,
        asked: PlanSet,
        needs: Mapping[str, str | None],
    ) -> str:
        spec = self._spec(model, entry)
        served = entry.served
        parameters = {
            "model": model.name,
            "set": {"name": asked.name, "digest": asked.asked.digest},
            "decoding": msgspec.to_builtins(asked.declared),
            "asked_as": asked_as(spec),
        }
        for field in ("set", "limit"):  # their digest stands for them
            parameters["decoding"].pop(field)
        hints = {**self._asked_hints(asked), "spec": msgspec.to_builtins(pinned(spec))}
        if served is not None:
            called = served.called(spec)
            parameters["served"] = {"urls": sorted(served.urls), "api": served.api, "as": called}
            hints["entry"] = msgspec.to_builtins(entry.declared)
        name = f"generate {asked.name} {model.name}"
        return self.add(name, "generate", entry.group, parameters, needs, hints)

    def _benchmark(
        self,
        model: TrainedModel,
        entry: ModelEntry,
        suite: EvaluationSuite,
        needs: Mapping[str, str | None],
        board: dict[str, str],
    ) -> None:
        spec = self._spec(model, entry)
        parameters = {
            "model": model.name,
            "asked_as": asked_as(spec),
            "suite": suite.name,
            "tasks": [task.parameters() for task in suite.benchmarks],
            "apply_chat_template": suite.apply_chat_template,
            "files": self.resolved.task_files[suite.name],
        }
        name = f"lm-eval {suite.name} {model.name}"
        needs = {**needs, "tasks": self.task_data(suite)}
        hints = {
            "spec": msgspec.to_builtins(pinned(spec)),
            "trust_tasks": self.resolved.consent.tasks,
        }
        board[name] = self.add(name, "lm-eval", entry.group, parameters, needs, hints)

    def _released(self, model: str, asked: PlanSet, path: Path) -> str:
        """Responses that are there already, under the name that they have in this plan."""
        parameters = {
            "model": model,
            "set": {"name": asked.name, "digest": asked.asked.digest},
            "sha256": file_sha256(path),
        }
        hints = {**self._asked_hints(asked), "path": str(path)}
        name = f"outputs {asked.name} {model}"
        return self.add(name, "outputs", _RELEASED_GROUP, parameters, hints=hints)

    def _asked_hints(self, asked: PlanSet) -> dict[str, Any]:
        """Where a worker finds the set; one that has no source travels with its jobs."""
        if asked.source is None:
            return {"rows": msgspec.to_builtins(asked.asked.rows)}
        return {"set": asked.source, "instructions": msgspec.to_builtins(asked.declared)}

    def _spec(self, model: TrainedModel, entry: ModelEntry) -> ModelSpec:
        """How a model is asked; a tiny checkpoint and an adapter trained here are found when they are there."""
        spec = ModelSpec(name=model.name, base="") if entry.spec is None else entry.spec
        template = self.chat_template(model.base)
        prompt = spec.prompt if template is None else PromptFormat(chat_template=template)
        return msgspec.structs.replace(spec, name=model.name, prompt=prompt)

    def task_data(self, suite: EvaluationSuite) -> str | None:
        """The job that writes the documents of a suite's tasks; None where they are all declared with their data."""
        generated = generated_tasks()
        tasks = dict.fromkeys(one.task for one in suite.benchmarks if one.task in generated)
        if not tasks:
            return None
        root, trusted = self.resolved.workspace, self.resolved.consent.tasks
        templates = {name: generated_contents(name, root, trusted=trusted) for name in tasks}
        name = f"tasks of {suite.name}"
        return self.add(
            name, "task-data", name, {"seed": 0, "n": suite.n_documents, "templates": templates}
        )

    def _judge(
        self,
        model: TrainedModel,
        asked: PlanSet,
        responses: Mapping[tuple[str, str], str],
        judge_models: Mapping[str, str],
        board: dict[str, str],
    ) -> None:
        baseline = self.resolved.baseline(model, asked)
        if baseline is None or baseline == model.name:
            return
        for judge in self.resolved.judges:
            job = self.add(
                f"judge {judge} {asked.name} {model.name}",
                "judge",
                self._judge_group(judge, model),
                {
                    **self._declared(judge),
                    "model": model.name,
                    "set": asked.name,
                    "two_turns": asked.asked.n_turns > 1,
                    "skips": self._skips(model.name, baseline),
                },
                {
                    "outputs": responses[model.name, asked.name],
                    "baseline": responses[baseline, asked.name],
                    "judge-model": judge_models.get(judge),
                },
                {**self._asked_hints(asked), "access": self._access(judge)},
            )
            board[f"verdicts {judge} {asked.name} {model.name}"] = job

    def _skips(self, *names: str) -> bool:
        """Whether one of the models leaves out instructions that are too long for it."""
        bases = {model.name: model.base for model in self.resolved.models}
        entries = [self.resolved.entries[bases[name]] for name in names if name in bases]
        return any(entry.spec is not None and entry.spec.too_long == "skip" for entry in entries)

    def _judge_group(self, judge: str, model: TrainedModel) -> str:
        """A judge that costs next to nothing goes where a tiny model is in memory anyway.

        A large model's group has no verdicts, which may wait for another base: its weights go when it has responded,
        and two bases never share a device.
        """
        entry = self.resolved.entries[model.base]
        beside = entry.is_tiny and not self._is_slow(judge)
        return entry.group if beside else f"judge {judge}"

    def _is_slow(self, judge: str) -> bool:
        """Whether a judge is loaded or paid for; the tiny one that is trained here is not counted."""
        declared = self.resolved.judges[judge].declared
        members = Judges(Access(), self.resolved.workspace).members(declared)
        trained = judge_trained_here(declared) is not None
        return not trained and any(one.hosted or one.needs_weights for one in members)

    def _declared(self, judge: str) -> dict[str, Any]:
        """A judge as the parameters of a job; of a jury with what its jurors declare."""
        chosen = self.resolved.judges[judge]
        content = {
            "judge": judge,
            "declared": msgspec.to_builtins(chosen.declared),
            "urls": list(chosen.access.urls),
        }
        if chosen.declared.jurors:
            root = self.resolved.workspace
            jurors = [load_judge(juror, root) for juror in chosen.declared.jurors]
            content["jurors"] = msgspec.to_builtins(jurors)
        return content

    def _access(self, judge: str) -> dict[str, Any]:
        return msgspec.to_builtins(self.resolved.judges[judge].access)

    def _compare(
        self,
        responses: Mapping[tuple[str, str], str],
        judge_models: Mapping[str, str],
        board: dict[str, str],
    ) -> None:
        pairwise, asked = self.plan.pairwise, self.resolved.pairwise_set
        judge = self.resolved.pairwise_judge
        models = [model.name for model in self.resolved.models]
        if pairwise is None or judge is None or asked is None or len(models) < 2:
            return
        needs: dict[str, str | None] = {
            f"outputs {model}": responses[model, asked.name] for model in models
        }
        needs["judge-model"] = judge_models.get(judge)
        parameters = {
            **self._declared(judge),
            "set": asked.name,
            "n_prompts": min(pairwise.n_prompts, len(asked.asked)),
            "models": models,
            "seed": self.plan.seed,
        }
        hints = {"access": self._access(judge)}
        board["pairwise"] = self.add(
            f"pairwise {self.plan.name}", "pairwise", _ALL_GROUP, parameters, needs, hints
        )

    def _board_parameters(self) -> dict[str, Any]:
        resolved = self.resolved
        pairwise = resolved.pairwise_set
        published = [suite.name for suite in resolved.suites if isinstance(suite, Suite)]
        wanted = {"published": {"suites": published, "models": self.plan.published}}
        return {
            **(wanted if self.plan.published is not None else {}),
            "name": self.plan.name,
            "title": self.plan.title or self.plan.name,
            "seed": self.plan.seed,
            "judges": list(resolved.judges),
            "sets": [
                {
                    "name": asked.name,
                    "title": asked.asked.title,
                    "suite": asked.suite.name,
                    "n": len(asked.asked),
                    "answer_key": asked.asked.answer_key is not None,
                    "reference": None if asked.reference is None else asked.reference.model,
                }
                for asked in resolved.sets
            ],
            "baseline": resolved.baseline_method,
            "suites": [
                msgspec.to_builtins(suite)
                | {"benchmarks": [task.parameters() for task in suite.benchmarks]}
                for suite in resolved.benchmarks
            ],
            "rating_judge": resolved.pairwise_judge,
            "rating_set": None if pairwise is None else pairwise.name,
            "models": [
                {
                    "model": m.name,
                    "family": m.family,
                    "method": m.method,
                    "baseline": m.baseline,
                    "trained_in_bits": self._bits(m),
                }
                for m in resolved.models
            ],
            **({"notes": self.plan.notes} if self.plan.notes else {}),
        }

    def _bits(self, model: TrainedModel) -> int | None:
        """How many bits a weight of the base had while an adapter was trained on it; None = as it is stored."""
        quantization = self.resolved.recipes[model.recipe].quantization if model.recipe else None
        return quantization.bits if quantization else None


def build_graph(resolved: ResolvedPlan) -> Graph:
    """The jobs of a plan, in an order in which they can be done."""
    return _Builder(resolved).build()
