"""From what a judge declares to somebody who can be asked: judges that are models in memory.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.judges.pairs import Backend
from alignboard.judges.spec import PairRankerSpec, PromptedSpec, RewardSpec
from alignboard.models.asked import load_spec
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
    if spec.unsupported is not None:
        raise InputError(f"Judge {spec.name} cannot be asked: {spec.unsupported.rstrip('.')}.")
    entry = load_model(spec.model, workspace)
    if not isinstance(spec, PairRankerSpec) and spec.adapter is not None:
        if entry.adapter is not None:
            raise InputError(
                f"Judge {spec.name} has the adapter {spec.adapter}, and its model {entry.name} has {entry.adapter}; "
                "an adapter has one base."
            )
        entry = msgspec.structs.replace(entry, adapter=spec.adapter)
    if isinstance(spec, RewardSpec):
        from alignboard.judges.backends.reward import open_reward

        return open_reward(spec, entry, device=device)
    if isinstance(spec, PairRankerSpec):
        from alignboard.judges.backends.pair_ranker import open_pair_ranker

        return open_pair_ranker(spec, entry, device=device)
    if spec.engine != "local":
        raise InputError(
            f"Judge {spec.name} is asked at an endpoint, not here: its engine is {spec.engine}."
        )
    from alignboard.judges.backends.local import LocalJudge

    model, adapter = load(entry)
    return LocalJudge(spec, model, adapter=adapter, entry=entry)
