"""What a judge declares: ``evaluate/judges/<name>.yaml``, validated.

A judge is one of six kinds. ``prompted`` is a language model that is given a prompt, here or behind an endpoint;
``reward`` is a model with a scalar head, ``pair-ranker`` an encoder that compares two outputs; ``simulated`` is a rule
with noise, ``program`` a command of the user's; ``jury`` combines other judges. All of them answer the same question,
and their verdicts are the same rows.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from alignboard.judges.parsing.verdicts import NumbersRule, VerdictRule
from alignboard.judges.rows import Message
from alignboard.models.spec import EndpointOptions

Order = Literal["coin", "both", "adaptive", "given"]
"""coin: one order per instruction, drawn as AlpacaEval does; both: both; adaptive: the second where it can matter, and
a random share of the others; given: always the baseline first"""
Engine = Literal["openai", "local"]


class JudgePrompt(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is shown: one of ``messages``, ``text`` and ``file``.

    Slots: ``{instruction}``, ``{first}`` and ``{second}`` (AlpacaEval's ``{output_1}`` and ``{output_2}`` mean the
    same), and the names of a question's fields.
    """

    messages: list[Message] = []
    text: str | None = None
    """a prompt without turns, or with ChatML's marks"""
    file: str | None = None
    """a text inside an installed package: ``alpaca_eval:evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt``"""
    chatml: bool = False
    """whether ``text`` or the file is ChatML, which is split into messages"""
    jinja: bool = False
    """whether the contents are Jinja templates, in place of slots"""
    batch: int = 1
    """how many pairs one prompt shows; slots that are there so often are filled in order"""


class Sampling(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a judge's reply is drawn."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_logprobs: int = 0
    """how many likeliest tokens are asked for at each place; a logprob verdict needs them"""
    samples: int = 1
    """how many replies to every prompt, of which the mean is taken; for endpoints that give no log-probabilities"""


class PromptedSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="prompted"
):
    """A language model that is given a prompt."""

    name: str
    title: str
    model: str
    """what the endpoint calls it, or what is loaded: an entry of the registry, a folder, an id on the hub"""
    prompt: JudgePrompt
    verdict: VerdictRule
    engine: Engine = "openai"
    rates: bool = False
    """whether outputs are rated one by one (``{first}`` only) and the ratings compared"""
    tie_within: float = 0.0
    """of ratings: the largest difference that is a draw"""
    order: Order = "both"
    chat: bool = True
    """of a local model: whether the prompt goes through its chat template"""
    sampling: Sampling = Sampling()
    tool: dict[str, Any] | None = None
    """the function that the judge must call, in OpenAI's format"""
    json_schema: dict[str, Any] | None = None
    base_url: str | None = None
    """of an endpoint that is not OpenAI's"""
    api_key_env: str | None = "OPENAI_API_KEY"
    endpoint: EndpointOptions = EndpointOptions()
    """how requests are written, where the server wants them otherwise than most"""
    adapter: str | None = None
    """of a local model"""
    hardened: bool = False
    unsupported: str | None = None
    """why it cannot be asked here, if it cannot"""
    retired: str | None = None
    """why its own endpoint no longer answers; another ``base_url`` or ``model`` may"""
    source: str | None = None
    """where the prompt and the settings come from"""


class RewardSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="reward"
):
    """A reward model: a scalar for one output; position plays no part."""

    name: str
    title: str
    model: str
    tie_within: float = 0.0
    adapter: str | None = None
    unsupported: str | None = None
    source: str | None = None


class PairRankerSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="pair-ranker"
):
    """An encoder that reads instruction and both outputs and gives a logit for each, as PairRM does."""

    name: str
    title: str
    model: str
    order: Order = "both"
    source_tokens: int = 1224
    candidate_tokens: int = 412
    unsupported: str | None = None
    source: str | None = None


class SimulatedSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="simulated"
):
    """The simulated annotator: a scoring rule of the demo world, label noise and position bias. No model."""

    name: str
    title: str
    order: Order = "coin"
    seed: int = 0
    label_noise: float = 0.217
    position_bias: float = 0.05


class ProgramSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="program"
):
    """A command of the user's that reads questions and writes replies, a line of JSON each."""

    name: str
    title: str
    command: list[str]
    version: str
    """the author's word for what the program says: another version is another judge"""
    verdict: VerdictRule = NumbersRule()
    rates: bool = False
    tie_within: float = 0.0
    order: Order = "both"


class JurySpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="jury"
):
    """Several judges as one."""

    name: str
    title: str
    judges: list[str]
    rule: Literal["majority", "mean", "agreement"] = "mean"
    """majority of the verdicts; their mean; their mean weighted by how far each agrees with the others"""


BackendSpec = PromptedSpec | RewardSpec | PairRankerSpec | SimulatedSpec | ProgramSpec
JudgeSpec = BackendSpec | JurySpec


def verdict_rule(spec: JudgeSpec) -> VerdictRule:
    """How replies are read."""
    return spec.verdict if isinstance(spec, PromptedSpec | ProgramSpec) else NumbersRule()


def order_of(spec: JudgeSpec) -> Order:
    """How often and in which order pairs are shown; of judges that rate outputs one by one it plays no part."""
    return (
        spec.order if isinstance(spec, PromptedSpec | PairRankerSpec | SimulatedSpec) else "given"
    )


def rates(spec: JudgeSpec) -> bool:
    """Whether outputs are rated one by one."""
    return isinstance(spec, RewardSpec) or (
        isinstance(spec, PromptedSpec | ProgramSpec) and spec.rates
    )
