"""From what a judge declares to somebody who can be asked: judges that are models in memory.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.judges.opening import Opening
from alignboard.judges.pairs import Backend
from alignboard.judges.spec import PairRankerSpec, PromptedSpec, RewardSpec
from alignboard.models.asked import load_spec
from alignboard.models.checks.opened import open_small
from alignboard.models.checks.report import check_model
from alignboard.models.loading import LoadedModel
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec

Load = Callable[[ModelSpec], tuple[LoadedModel, str | None]]
"""from a registry entry to its model and the name of its adapter, as `load_spec`; one that keeps what it has loaded
lets several judges, or a judge and the judged, share a base"""
LocalSpec = PromptedSpec | RewardSpec | PairRankerSpec


def open_judge(
    spec: LocalSpec, load: Load = load_spec, *, workspace: Path | None = None, device: str = "auto"
) -> Backend:
    """The judge that ``spec`` declares, its model loaded.

    ``spec.model`` is an entry of the registry, a folder, or an id on the hub. ``load`` is for language models;
    ``device`` is where those with a head of their own are put. Raises `InputError` for what cannot be asked here.
    """
    if spec.hosted:
        raise InputError(
            f"Judge {spec.name} is asked at an endpoint, not here: its engine is openai."
        )
    return spec.open(Opening(load=load, workspace=workspace, device=device))


def open_prompted(spec: PromptedSpec, opening: Opening) -> Backend:
    """A language model: here, at an endpoint, or through an endpoint's batches."""
    if not spec.hosted:
        from alignboard.judges.backends.local import LocalJudge

        entry = _entry(spec, opening)
        model, adapter = (opening.load or load_spec)(entry)
        return LocalJudge(spec, model, adapter=adapter, entry=entry)
    from alignboard.judges.backends.endpoint import EndpointJudge, endpoint_of

    endpoint = endpoint_of(
        spec, opening.urls, opening.limits, opening.api_key_env, opening.allowed_keys
    )
    if opening.batch_folder is None:
        return EndpointJudge(spec, endpoint, opening.rate)
    from alignboard.judges.backends.batches import BatchJudge

    return BatchJudge(spec, endpoint, opening.batch_folder, opening.rate)


def check_prompted(spec: PromptedSpec, opening: Opening) -> None:
    """Whether the key is there, or the model's files are and render a prompt."""
    if not spec.hosted:
        check_model(_entry(spec, opening)).require_loadable()
        return
    from alignboard.judges.backends.endpoint import endpoint_of

    endpoint_of(spec, opening.urls, opening.limits, opening.api_key_env, opening.allowed_keys).key()


def check_weights(spec: RewardSpec | PairRankerSpec, opening: Opening) -> None:
    """Whether the model's configuration and tokenizer are there."""
    open_small(_entry(spec, opening))


def open_reward_model(spec: RewardSpec, opening: Opening) -> Backend:
    """A model with a scalar head."""
    from alignboard.judges.backends.reward import open_reward

    return open_reward(spec, _entry(spec, opening), device=opening.device)


def open_ranker(spec: PairRankerSpec, opening: Opening) -> Backend:
    """An encoder that reads both outputs."""
    from alignboard.judges.backends.pair_ranker import open_pair_ranker

    return open_pair_ranker(spec, _entry(spec, opening), device=opening.device)


def _entry(spec: LocalSpec, opening: Opening) -> ModelSpec:
    return opening.models.get(spec.name) or entry_of(spec, opening.workspace)


def entry_of(spec: LocalSpec, workspace: Path | None) -> ModelSpec:
    """The registry entry of the judge's model, with the judge's adapter."""
    if spec.unsupported is not None:
        raise InputError(f"Judge {spec.name} cannot be asked: {spec.unsupported.rstrip('.')}.")
    entry, adapter = load_model(spec.model, workspace), getattr(spec, "adapter", None)
    if adapter is None:
        return entry
    if entry.adapter is not None:
        raise InputError(
            f"Judge {spec.name} has the adapter {adapter}, and its model {entry.name} has {entry.adapter}; "
            "an adapter has one base."
        )
    return msgspec.structs.replace(entry, adapter=adapter)
