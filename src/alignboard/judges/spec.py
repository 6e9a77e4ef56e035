"""What a judge declares: ``evaluate/judges/<name>.yaml``, validated.

A judge is one of seven kinds. ``prompted`` is a language model that is given a prompt, here or behind an endpoint;
``reward`` is a model with a scalar head, ``pair-ranker`` an encoder that compares two outputs; ``simulated`` is a rule
with noise, ``program`` a command of the user's, ``reference`` likeness to a reference response; ``jury`` combines other
judges. All of them answer the same question,
and their verdicts are the same rows.

A kind is a subclass of `JudgeSpec` and one registration, here or in another package:
``register("judge", "mine", "my_package.judge:MySpec")``, whose `JudgeSpec.open` gives the backend.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from alignboard.errors import InputError, require_within
from alignboard.judges.opening import Opening
from alignboard.judges.pairs import Backend, Judged
from alignboard.judges.parsing.probability_forms import NumbersRule
from alignboard.judges.parsing.reply_forms import ReplyForm
from alignboard.judges.rows import Message
from alignboard.models.sources import asked_as, weights_identity
from alignboard.models.spec import EndpointOptions, ModelSpec
from alignboard.registry import register
from alignboard.stats.logistic import expit

Order = Literal["coin", "both", "adaptive", "given"]
"""coin: one order per instruction, drawn as AlpacaEval does; both: both; adaptive: the second where it can matter, and
a random share of the others; given: always the baseline first"""
Engine = Literal["openai", "local"]
Part: TypeAlias = "tuple[JudgeSpec, list[int]]"
"""a judge, and the indices of the pairs that it judges"""


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


class JudgeSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind"):
    """What every kind of judge declares, and what the rest of the house asks of it."""

    name: str
    title: str

    opener: ClassVar[str] = ""
    """``module:function`` from (declaration, `Opening`) to the backend; a kind may override `open` in its place"""
    checker: ClassVar[str] = ""
    """``module:function`` of the same arguments that raises for what the opener would meet; nothing is loaded"""
    sees_second_turns: ClassVar[bool] = False
    """whether more than the first answer of a conversation is shown, for kinds without a prompt"""
    order_fixed: ClassVar[str | None] = None
    """what the judge is called, if it has no order that could be changed"""

    @property
    def kind(self) -> str:
        """The name under which the kind is registered."""
        return str(self.__struct_config__.tag)

    @property
    def shown_order(self) -> Order:
        """How often and in which order pairs are shown; without meaning where outputs are rated one by one."""
        return getattr(self, "order", "given")

    @property
    def reply_form(self) -> ReplyForm:
        """How replies are read."""
        return getattr(self, "verdict", NumbersRule())

    @property
    def is_rating(self) -> bool:
        """Whether outputs are rated one by one."""
        return getattr(self, "rates", False)

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest rating; None where ratings have no bounds."""
        return self.reply_form.scale

    @property
    def prompted(self) -> PromptedSpec | None:
        """The declaration of a language model that is given a prompt; None for other kinds."""
        return None

    @property
    def hosted(self) -> bool:
        """Whether it is asked at an endpoint."""
        return False

    @property
    def program(self) -> str | None:
        """The command that is run on this machine, where there is one."""
        return None

    @property
    def needs_weights(self) -> bool:
        """Whether a model is loaded before the backend can name itself."""
        return False

    @property
    def jurors(self) -> tuple[str, ...]:
        """The judges whose verdicts it combines, by name."""
        return ()

    @property
    def order_name(self) -> str:
        """What a summary calls the order."""
        return self.shown_order

    def choose(self, instruction: str) -> JudgeSpec:  # noqa: ARG002 - a pool draws by it
        """The judge under whose name the verdict on ``instruction`` is requested."""
        return self

    def parts(
        self,
        instructions: Sequence[str],  # noqa: ARG002 - a jury and a pool divide them
        load: Callable[[str], JudgeSpec],  # noqa: ARG002 - a jury loads its jurors
    ) -> list[Part]:
        """The judges that judge in its place, each with the indices of its instructions; none: it judges itself."""
        return []

    def combine(self, parts: Sequence[Part], judged: Sequence[Sequence[Judged]]) -> list[Judged]:
        """The verdicts on all instructions, in their order, from those of every part."""
        raise NotImplementedError(f"a {self.kind} judge has no parts")

    def preferred(self, first: float, second: float) -> float:
        """The preference that two ratings mean: 1 = the first, 2 = the second, 1.5 = a draw."""
        difference = second - first
        if abs(difference) <= getattr(self, "tie_within", 0.0):
            return 1.5
        return 2.0 if difference > 0 else 1.0

    def check(self, path: Path) -> None:
        """Raise `InputError`, naming ``path`` and the field, for what the schema allows and no judge can mean."""

    def model_entry(self, workspace: Path | None) -> ModelSpec | None:
        """The registry entry of the model that it loads; None where it loads none."""
        if not self.needs_weights or not hasattr(self, "model"):
            return None
        return _named("alignboard.judges.backends.opened:entry_of")(self, workspace)

    def sources(self, workspace: Path) -> dict[str, Any]:
        """What its verdicts follow from besides the declaration, by content; parameters of the jobs that it judges."""
        entry = self.model_entry(workspace)
        if entry is None:
            return {}
        return {**weights_identity(entry, workspace), "asked_as": asked_as(entry)}

    def open(self, opening: Opening) -> Backend:
        """The backend that answers the judge's calls."""
        return _named(self.opener)(self, opening)

    def require_ready(self, opening: Opening) -> None:
        """Raise `InputError` for what `open` would meet, as far as settings and small files tell."""
        if self.checker:
            _named(self.checker)(self, opening)


def _named(target: str) -> Callable[..., Any]:
    """The function called ``module:function``."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


class PromptedSpec(JudgeSpec, frozen=True, tag="prompted"):
    """A language model that is given a prompt."""

    opener: ClassVar[str] = "alignboard.judges.backends.opened:open_prompted"
    checker: ClassVar[str] = "alignboard.judges.backends.opened:check_prompted"

    model: str
    """what the endpoint calls it, or what is loaded: an entry of the registry, a folder, an id on the hub"""
    prompt: JudgePrompt
    verdict: ReplyForm
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

    @property
    def prompted(self) -> PromptedSpec:
        """See `JudgeSpec`."""
        return self

    @property
    def hosted(self) -> bool:
        """See `JudgeSpec`."""
        return self.engine == "openai"

    @property
    def needs_weights(self) -> bool:
        """See `JudgeSpec`."""
        return self.engine == "local"

    def sources(self, workspace: Path) -> dict[str, Any]:
        """See `JudgeSpec`. Of a prompt in an installed package the declaration holds the place alone."""
        found = super().sources(workspace)
        if self.prompt.file is not None:
            turns = _named("alignboard.judges.prompting.prompts:turns")(self.prompt)
            found["prompt"] = msgspec.to_builtins(turns)
        return found


class RewardSpec(JudgeSpec, frozen=True, tag="reward"):
    """A reward model: a scalar for one output; position plays no part."""

    opener: ClassVar[str] = "alignboard.judges.backends.opened:open_reward_model"
    checker: ClassVar[str] = "alignboard.judges.backends.opened:check_weights"
    sees_second_turns: ClassVar[bool] = True
    order_fixed: ClassVar[str | None] = "a reward model"

    @property
    def is_rating(self) -> bool:
        """See `JudgeSpec`."""
        return True

    @property
    def needs_weights(self) -> bool:
        """See `JudgeSpec`."""
        return True

    def preferred(self, first: float, second: float) -> float:
        """The difference is a log-odds (Bradley-Terry, on which reward models are trained)."""
        difference = second - first
        if abs(difference) <= self.tie_within:
            return 1.5
        return 1 + expit(difference)

    model: str
    tie_within: float = 0.0
    adapter: str | None = None
    unsupported: str | None = None
    source: str | None = None


class PairRankerSpec(JudgeSpec, frozen=True, tag="pair-ranker"):
    """An encoder that reads instruction and both outputs and gives a logit for each, as PairRM does."""

    opener: ClassVar[str] = "alignboard.judges.backends.opened:open_ranker"
    checker: ClassVar[str] = "alignboard.judges.backends.opened:check_weights"

    @property
    def needs_weights(self) -> bool:
        """See `JudgeSpec`."""
        return True

    model: str
    order: Order = "both"
    source_tokens: int = 1224
    candidate_tokens: int = 412
    unsupported: str | None = None
    source: str | None = None

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        limits = {
            "source_tokens": (self.source_tokens, 1.0, float("inf")),
            "candidate_tokens": (self.candidate_tokens, 1.0, float("inf")),
        }
        require_within(path, limits)


class ProgramSpec(JudgeSpec, frozen=True, tag="program"):
    """A command of the user's that reads questions and writes replies, a line of JSON each."""

    opener: ClassVar[str] = "alignboard.judges.backends.program:open_program"
    checker: ClassVar[str] = "alignboard.judges.backends.program:check_program"
    sees_second_turns: ClassVar[bool] = True

    command: list[str]
    version: str
    """the author's word for what the program says: another version is another judge"""
    verdict: ReplyForm = NumbersRule()
    rates: bool = False
    tie_within: float = 0.0
    order: Order = "both"

    @property
    def program(self) -> str | None:
        """See `JudgeSpec`."""
        return " ".join(self.command)

    def check(self, path: Path) -> None:
        """See `JudgeSpec`."""
        for field in ("command", "version"):
            if not getattr(self, field):
                raise InputError(f"{path}: {field} is empty.")


for _kind in (PromptedSpec, RewardSpec, PairRankerSpec, ProgramSpec):
    register("judge", str(_kind.__struct_config__.tag), _kind)
register("judge", "reference", "alignboard.judges.backends.reference:ReferenceSpec")
register("judge", "answer-key", "alignboard.judges.backends.answer_key:AnswerKeySpec")
