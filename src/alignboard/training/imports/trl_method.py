"""The method of a configuration of TRL.

Each of TRL's trainers is a method; keys that one of them has say which it is, else the file's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from alignboard.errors import InputError
from alignboard.registry import names
from alignboard.training.imports.translation import Translation
from alignboard.training.methods import SFT, loss_spec

_LOSS_TYPES: Final = {
    "sigmoid": "dpo", "simpo": "simpo", "kto": "kto", "nll": SFT, "chunked_nll": SFT
}  # fmt: skip
"""of trainers whose losses ours do not name by ``trl_name``, and of SFT"""
_NAMED: Final = ("orpo", "kto", "cpo", "simpo", "reward")
"""methods whose configurations may have no key of their own: the name of the file says them"""
_KEYS: Final[Mapping[str, Iterable[str]]] = {
    "simpo": ("gamma_beta_ratio", "simpo_gamma"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "reward": ("center_rewards_coefficient",),
    "cpo": ("cpo_alpha",),
}
"""keys that only this method's trainer has"""
_ONLINE: Final = (
    "num_generations", "reward_funcs", "reward_model_name_or_path", "reward_model_path", "use_vllm", "num_ppo_epochs"
)  # fmt: skip


def method_of(one: Translation) -> str:
    """Our name for what the configuration trains."""
    online = next((key for key in _ONLINE if key in one.keys), None)
    if online is not None:
        raise InputError(
            f"{one.source}: {online}: online methods (GRPO, RLOO, PPO, online DPO) are not done here; SFT, reward "
            "models and losses on pairs or rated replies are."
        )
    losses = _loss_types(one)
    words = Path(one.source).stem.lower().replace("-", "_").split("_")
    by_key = (name for name, keys in _KEYS.items() if any(key in one.keys for key in keys))
    by_name = (name for name in _NAMED if name in words)
    if not losses:
        plain = "dpo" if "beta" in one.keys or "dpo" in words else SFT
        return next(by_key, None) or next(by_name, plain)
    # KTO's trainer has other losses; the names of the other trainers' do not say the trainer.
    found = next(by_key, None) or next(by_name, None)
    if found in {"simpo", "orpo", "cpo"}:
        if losses not in (["sigmoid"], ["simpo"]):
            raise InputError(
                f"{one.source}: loss_type {' and '.join(losses)} of {found} has no method of ours; sigmoid and simpo "
                "have."
            )
        return "simpo" if losses == ["simpo"] else found
    return _method_of_loss(one, losses)


def _loss_types(one: Translation) -> list[str]:
    given = one.keys.get("loss_type")
    return (
        [] if given is None else [str(x) for x in (given if isinstance(given, list) else [given])]
    )


def _method_of_loss(one: Translation, losses: list[str]) -> str:
    if len(losses) != 1:
        raise InputError(
            f"{one.source}: loss_type adds up {' and '.join(losses)}; a recipe has one loss, name it by --method or "
            "leave one in loss_type."
        )
    ours = {loss_spec(name).trl_name: name for name in names("loss")} | _LOSS_TYPES
    if losses[0] not in ours:
        known = ", ".join(sorted(name for name in ours if name))
        raise InputError(
            f"{one.source}: loss_type {losses[0]!r} has no method of ours; those that have: {known}."
        )
    return ours[losses[0]]
