"""Training methods: what each preference loss is called, which parameters it has, and what it needs.

A loss is one pure function (`alignboard.training.losses`, or any package's) and one registration::

    register("loss", "mine", LossSpec("my_package:mine", "My loss", {"beta": BETA}, ln2))

The recipe reads the registration: a parameter that the loss does not have is refused, a required one is asked for.

Light: no torch. The function is imported when a run starts.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alignboard.errors import InputError, nearest
from alignboard.registry import lookup, names, register

SFT: Final = "sft"
Value = float | str
Settings = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a loss: its range, or its choices, and its default."""

    default: Value | None = None
    """None: the recipe has to give it"""
    above: float = -math.inf
    """exclusive"""
    at_least: float = -math.inf
    below: float = math.inf
    """exclusive"""
    choices: tuple[str, ...] = ()

    def fault(self, value: Any) -> str | None:
        """What is expected in place of ``value``; None where it is right."""
        if self.choices:
            return None if value in self.choices else f"one of {', '.join(self.choices)}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            number
            and math.isfinite(value)
            and self.above < value < self.below
            and value >= self.at_least
        ):
            return None
        bounds = (("> ", self.above), (">= ", self.at_least), ("< ", self.below))
        words = " and ".join(f"{sign}{bound:g}" for sign, bound in bounds if math.isfinite(bound))
        return f"a number {words}".rstrip()


@dataclass(frozen=True)
class LossSpec:
    """A preference loss with what a recipe and the trainer must know about it."""

    function: str
    """``module:attribute`` of a function (PairLogps, **parameters) -> losses per pair; see `rated`"""
    title: str
    parameters: Mapping[str, Parameter]
    at_start: Callable[[Settings], float | None] | None = None
    """the loss where policy and reference are the same; None where it depends on the data"""
    uses_reference: bool = True
    rated: bool = False
    """it is on rated replies, not on pairs: TRL's KTO trainer, and ``function`` is its ``loss_type``"""
    head: bool = False
    """it trains a head that gives a number, a reward model: TRL's reward trainer, and ``function`` has no meaning"""
    trl_name: str | None = None
    """TRL's ``loss_type`` for the same value, where its stable DPO trainer has it"""
    paper: str = ""
    """arXiv number"""

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, _, attribute = self.function.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def complete(self, method: str, given: Settings) -> dict[str, Value]:
        """``given`` with defaults; `InputError` names a parameter that is unknown, missing or out of range."""
        for name in given:
            if name not in self.parameters:
                hint = nearest(name, self.parameters) or f"; it has {', '.join(self.parameters)}."
                raise InputError(f"loss: method {method} has no parameter {name!r}{hint}")
        found: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name, parameter.default)
            if value is None:
                raise InputError(f"loss: method {method} needs {name!r}.")
            wrong = parameter.fault(value)
            if wrong is not None:
                raise InputError(f"loss.{name}: {wrong} was expected, not {value!r}.")
            found[name] = float(value) if not parameter.choices else value
        if found.get("divergence", "alpha_divergence") != "alpha_divergence":
            if "alpha" in given:
                raise InputError(
                    "loss.alpha has an effect only with loss.divergence: alpha_divergence; leave it out."
                )
            found.pop("alpha", None)
        return found


def methods() -> tuple[str, ...]:
    """The names that a recipe's ``method`` may have."""
    return (SFT, *names("loss"))


def loss_spec(method: str) -> LossSpec:
    """The registered loss of a preference method."""
    return lookup("loss", method)


BETA: Final = Parameter(above=0)
_FLIPPED: Final = Parameter(default=0.0, at_least=0, below=0.5)
_LINK: Final = {
    "divergence": Parameter(
        default="reverse_kl",
        choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    ),
    "alpha": Parameter(default=1.0),
}


def ln2(_: Settings) -> float:
    """The logistic loss at 0."""
    return math.log(2)


def _constant(value: float) -> Callable[[Settings], float]:
    return lambda _: value


def _ipo(s: Settings) -> float:
    return (1 / (2 * float(s["beta"]))) ** 2


def _kto(s: Settings) -> float | None:
    """Half the weight, where both kinds of replies have the same; else it depends on the batch."""
    won, lost = float(s["desirable_weight"]), float(s["undesirable_weight"])
    return won / 2 if won == lost else None


def _exo(s: Settings) -> float:
    eps = float(s["label_smoothing"])
    return -math.log(2) - 0.5 * math.log(eps * (1 - eps))


_HERE: Final = "alignboard.training.losses"
_B: Final = {"beta": BETA}
_EXO_FLIPPED: Final = Parameter(default=1e-3, above=0, below=0.5)

_BUILT_IN: Final[Mapping[str, LossSpec]] = {
    "dpo": LossSpec(
        f"{_HERE}:dpo",
        "DPO, cDPO, f-DPO",
        _B | {"label_smoothing": _FLIPPED} | _LINK,
        ln2,
        trl_name="sigmoid",
        paper="2305.18290",
    ),
    "robust-dpo": LossSpec(
        f"{_HERE}:robust_dpo",
        "Robust DPO",
        _B | {"label_smoothing": Parameter(above=0, below=0.5)} | _LINK,
        ln2,
        trl_name="robust",
        paper="2403.00409",
    ),
    "ipo": LossSpec(
        f"{_HERE}:ipo", "IPO, averaged over tokens", _B, _ipo, trl_name="ipo", paper="2310.12036"
    ),
    "ipo-sum": LossSpec(f"{_HERE}:ipo_sum", "IPO as in the paper", _B, _ipo, paper="2310.12036"),
    "hinge": LossSpec(
        f"{_HERE}:hinge",
        "Hinge (SLiC, RSO)",
        _B | _LINK,
        _constant(1.0),
        trl_name="hinge",
        paper="2309.06657",
    ),
    "gpo-exponential": LossSpec(
        f"{_HERE}:gpo_exponential", "GPO, exponential", _B, _constant(1.0), paper="2402.05749"
    ),
    "gpo-truncated": LossSpec(
        f"{_HERE}:gpo_truncated", "GPO, truncated quadratic", _B, _constant(1.0), paper="2402.05749"
    ),
    "gpo-savage": LossSpec(
        f"{_HERE}:gpo_savage", "GPO, Savage", _B, _constant(0.25), paper="2402.05749"
    ),
    "gpo-squared": LossSpec(
        f"{_HERE}:gpo_squared", "GPO, squared", _B, _constant(1.0), paper="2402.05749"
    ),
    "dpo-norm": LossSpec(
        f"{_HERE}:dpo_norm",
        "DPO, length-normalised (Tulu 3)",
        _B,
        ln2,
        trl_name="sigmoid_norm",
        paper="2411.15124",
    ),
    "r-dpo": LossSpec(
        f"{_HERE}:r_dpo",
        "R-DPO, length penalty",
        _B | {"length_penalty": Parameter(at_least=0)},
        paper="2403.19159",
    ),
    "simpo": LossSpec(
        f"{_HERE}:simpo",
        "SimPO",
        _B | {"gamma": Parameter(at_least=0), "label_smoothing": _FLIPPED},
        uses_reference=False,
        paper="2405.14734",
    ),
    "cpo": LossSpec(
        f"{_HERE}:cpo",
        "CPO",
        _B | {"nll_weight": Parameter(default=1.0, at_least=0)},
        uses_reference=False,
        paper="2401.08417",
    ),
    "orpo": LossSpec(f"{_HERE}:orpo", "ORPO", _B, uses_reference=False, paper="2403.07691"),
    "kto": LossSpec(
        "kto",
        "KTO, rated replies",
        _B
        | {
            "desirable_weight": Parameter(default=1.0, at_least=0),
            "undesirable_weight": Parameter(default=1.0, at_least=0),
        },
        _kto,
        rated=True,
        paper="2402.01306",
    ),
    "exo": LossSpec(
        f"{_HERE}:exo",
        "EXO, pairs",
        _B | {"label_smoothing": _EXO_FLIPPED} | _LINK,
        _exo,
        trl_name="exo_pair",
        paper="2402.00856",
    ),
    "nca": LossSpec(
        f"{_HERE}:nca",
        "NCA, pairs",
        _B,
        _constant(2 * math.log(2)),
        trl_name="nca_pair",
        paper="2402.05369",
    ),
    "sppo": LossSpec(
        f"{_HERE}:sppo",
        "SPPO, hard labels",
        _B,
        lambda s: 0.5 / float(s["beta"]) ** 2,
        trl_name="sppo_hard",
        paper="2405.00675",
    ),
    "apo-zero": LossSpec(
        f"{_HERE}:apo_zero",
        "APO-zero (anchored)",
        _B,
        _constant(1.0),
        trl_name="apo_zero",
        paper="2408.06266",
    ),
    "apo-down": LossSpec(
        f"{_HERE}:apo_down",
        "APO-down (anchored)",
        _B,
        _constant(1.0),
        trl_name="apo_down",
        paper="2408.06266",
    ),
    "bco": LossSpec(
        f"{_HERE}:bco",
        "BCO, pairs without shift",
        _B,
        _constant(2 * math.log(2)),
        trl_name="bco_pair",
        paper="2404.04656",
    ),
    "reward": LossSpec(
        "",
        "Reward model (Bradley-Terry)",
        {"center": Parameter(default=0.0, at_least=0)},
        uses_reference=False,
        head=True,
        paper="2203.02155",
    ),
    "discopop": LossSpec(
        f"{_HERE}:discopop",
        "DiscoPOP",
        _B | {"tau": Parameter(default=0.05, above=0)} | _LINK,
        _constant(0.5 * math.log(2) + 0.5),
        trl_name="discopop",
        paper="2406.08414",
    ),
}
for _name, _spec in _BUILT_IN.items():
    register("loss", _name, _spec)


def methods_table() -> str:
    """The preference methods as the markdown table of docs/training.md."""
    lines = ["| method | loss | parameters | reference | paper |", "|---|---|---|---|---|"]
    for name in names("loss"):
        spec = loss_spec(name)
        parameters = ", ".join(
            key if one.default is None else f"{key} = {one.default}"
            for key, one in spec.parameters.items()
        )
        reference = "yes" if spec.uses_reference else "no"
        lines.append(f"| {name} | {spec.title} | {parameters} | {reference} | {spec.paper} |")
    return "\n".join(lines)
