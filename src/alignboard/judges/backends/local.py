"""A language model in memory as judge: one forward pass per prompt where one token is the verdict, else its reply.

What this module promises
    A reply depends on the prompt and the model alone, to the last bit (`alignboard.judges.backends.forward` says how);
    a sampled one on which sample it is, too. So a run that was interrupted goes on with the numbers it would have had.
    The probability of the verdict tokens is exact: every token that spells a verdict is in the reply, however unlikely.
    Whatever a message holds is text: it cannot spell a special token. BOS is there once.
What it never does
    Truncate a prompt; leave a prompt that is too long, or a model whose numbers are not finite, without a reason.

References: AlpacaEval ``weighted_alpaca_eval_gpt4_turbo`` (the verdict is one token's probability); Dubois et al. 2024,
arXiv 2404.04475.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Final, TypeVar

from alignboard.engines.generate import SAMPLER, library_versions
from alignboard.engines.local.batch import RunningSequence
from alignboard.engines.local.ending import Ending
from alignboard.engines.local.engine import LocalEngine
from alignboard.engines.rows import Decoding, Prompt
from alignboard.errors import InputError
from alignboard.judges.backends.forward import Text, reader_for, whole_logits
from alignboard.judges.backends.vocabulary import Vocabulary
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.rows import Call, FailedCall, Message, Reply, Token
from alignboard.judges.spec import PromptedSpec
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import (
    bos_fault,
    conversation_text,
    defused,
    encode,
    opens_reasoning,
    stop_token_ids,
)
from alignboard.models.spec import ModelSpec

_LEAST_PART: Final = 64
"""tokens; a shorter part costs a pass of its own as much as it saves"""
_LEAST_TEXT: Final = 8
"""characters; a shorter text is found in the wrong places"""
_NOT_FINITE: Final = "the judge's logits are not finite"
T = TypeVar("T")


class LocalJudge:
    """The judge that ``spec`` declares, on a loaded model; ``adapter`` is the name of one of its adapters."""

    def __init__(
        self,
        spec: PromptedSpec,
        model: LoadedModel,
        *,
        adapter: str | None = None,
        entry: ModelSpec | None = None,
        rows: int | None = None,
        reuse: bool = True,
    ) -> None:
        """``entry`` says where replies end and how long prompts may be, where the model has one.

        ``rows`` is the most of a batch and ``reuse`` says whether what prompts begin with alike is read once; both are
        part of the arithmetic, and None leaves the first to model and device.
        """
        self.spec, self._model, self._adapter = spec, model, adapter
        self._require_possible()
        rule = spec.verdict if isinstance(spec.verdict, LogprobRule) else None
        self._one_token = rule is not None and rule.position == "first" and spec.prompt.batch == 1
        self._vocabulary = Vocabulary(model)
        self._verdicts = None if rule is None else self._vocabulary.verdicts(spec, rule)
        self._reader = reader_for(model, rows, reuse=reuse)
        self._decoding = self._decoding_of(entry)
        own = entry.context if entry is not None else None
        self._context = model.context if own is None else min(own, model.context)
        self._n_tokens = lru_cache(maxsize=256)(self._count)
        self._require_response_first()
        self.identity = self._identity()
        """all that determines a reply except its prompt: weights, adapter, template, arithmetic, what is read off"""

    def _require_possible(self) -> None:
        """Options that a local model cannot follow are refused, not ignored."""
        spec = self.spec
        asked = {"tool": spec.tool is not None, "json_schema": spec.json_schema is not None}
        asked |= {f"endpoint.extra.{key}": True for key in spec.endpoint.extra if key != "stop"}
        wrong = [name for name, given in asked.items() if given]
        if wrong:
            raise InputError(
                f"Judge {spec.name}: {wrong[0]} is for endpoints; a local judge cannot be held to it."
            )

    def _require_response_first(self) -> None:
        """Refuse a judge whose first token would be a thought: its template has opened a block of reasoning."""
        if not (self._one_token and self.spec.chat):
            return
        if opens_reasoning(self._model.tokenizer, self.ids([Message("user", "?")])):
            raise InputError(
                f"Judge {self.spec.name} reads its verdict off the first token, and the chat template of "
                f"{self._model.path} opens a block of reasoning there; switch that off in the model's entry (prompt: "
                "{variables: {enable_thinking: false}}), or say verdict: {position: last}."
            )

    def _decoding_of(self, entry: ModelSpec | None) -> Decoding:
        sampling, stops, tokens = self.spec.sampling, self.spec.endpoint.extra.get("stop", []), ()
        stops = [stops] if isinstance(stops, str) else list(stops)
        if entry is not None:
            stops += entry.stop
            named, source = entry.stop_tokens, entry.name
            tokens = sorted(stop_token_ids(self._model.tokenizer, named, source=source))
        return Decoding(
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            top_p=sampling.top_p,
            stop=tuple(stops),
            stop_tokens=tuple(tokens),
        )

    def _identity(self) -> dict[str, Any]:
        model = self._model
        with self._using():
            content: dict[str, Any] = {
                "scheme": "local-judge-1",
                "weights": model.fingerprint,
                "adapter": model.adapter_fingerprint,
                "template": model.template_hash if self.spec.chat else None,
                "dtype": model.dtype,
                "quantization": model.quantization,
                "attention": model.attention,
                "device": model.model.device.type,
                "libraries": library_versions("torch", "transformers", "peft"),
                "verdicts": self._verdicts,
                "top": self.spec.sampling.top_logprobs,
            }
            if self._one_token:
                return content | {"forward": self._reader.scheme}
            end = sorted(model.end_tokens | set(self._decoding.stop_tokens))
            if self._decoding.temperature > 0:
                content["sampler"] = SAMPLER
            content |= model.own_decoding.identity()
            return content | {"end": end, "decoding": self._decoding.identity()}

    # Prompts.

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a prompt; raises `InputError` where the model has no such turns."""
        with self._using():
            return self._encoded(self._rendered(messages), n_turns=len(messages))

    def _rendered(self, messages: Sequence[Message]) -> str:
        tokenizer, template = self._model.tokenizer, self._template()
        turns = [(one.role, defused(tokenizer, one.content, template)) for one in messages]
        if self.spec.chat:
            source = f"Judge {self.spec.name} on {self._model.path}"
            return conversation_text(
                tokenizer, template, turns, source=source, generation_prompt=True
            )
        if len(turns) != 1:
            raise InputError(
                f"Judge {self.spec.name} is given plain text (chat: false), which is one message, not {len(turns)}."
            )
        return turns[0][1]

    def _template(self) -> str:
        return self._model.chat_template if self.spec.chat else ""

    def _encoded(self, rendered: str, n_turns: int) -> list[int]:
        ids = encode(self._model.tokenizer, rendered, "auto")
        # A template may begin every exchange with BOS (Llama 2's does): only the beginning is judged then.
        judged = ids[:2] if n_turns > 2 else ids
        fault = bos_fault(self._model.tokenizer, judged, "auto")
        if fault is not None:
            raise InputError(f"Judge {self.spec.name} on {self._model.path}: {fault}")
        return ids

    def _text(self, call: Call) -> Text:
        rendered = self._rendered(call.messages)
        ids = self._encoded(rendered, len(call.messages))
        if not self._one_token or not self._reader.n_cuts:
            return Text(tuple(ids))
        cuts: list[int] = []
        for offset in self._offsets(rendered, call):
            # What ends a part may be read together with what follows it.
            cut = self._n_tokens(rendered[:offset]) - 1
            if len(ids) - 1 > cut >= (cuts[-1] if cuts else 0) + _LEAST_PART:
                cuts.append(cut)
            if len(cuts) == self._reader.n_cuts:
                break
        return Text(tuple(ids), tuple(cuts))

    def _count(self, text: str) -> int:
        return len(encode(self._model.tokenizer, text, "auto"))

    def _offsets(self, rendered: str, call: Call) -> list[int]:
        """Where prompts that share something part: where the first text of the question begins, where all but the last
        end. What is in front of the first is the judge's own, and the same in every prompt.
        """
        found = []
        for question in call.questions[:1]:
            shown = (question.instruction, question.first, question.second or "")
            for text in shown:
                needle = defused(self._model.tokenizer, text, self._template())
                # As it is, or as hardened prompts write it.
                for spelt in (needle, json.dumps(needle)[1:-1]):
                    start = rendered.find(spelt) if len(spelt) >= _LEAST_TEXT else -1
                    if start >= 0:
                        found.append((start, start + len(spelt)))
                        break
        ends = sorted(end for _, end in found)
        return [min(found)[0], *ends[:-1]] if found else []

    # Asking.

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """The reply to every call, or why there is none, as they come; the same prompt is read once."""
        groups: dict[tuple[Text, int], list[Call]] = {}
        sampled = not self._one_token and self._decoding.temperature > 0
        for call in calls:
            with self._using():
                text = self._text(call)
            needed = len(text.ids) if self._one_token else len(text.ids) + 1
            if needed > self._context:
                reason = f"the prompt has {len(text.ids)} tokens, the judge takes {self._context}"
                yield call, FailedCall(call.key, reason)
            else:
                groups.setdefault((text, call.sample if sampled else 0), []).append(call)
        ask = self._first_tokens if self._one_token else self._replies
        texts, groups_of = [text for text, _ in groups], list(groups.values())
        for index, reply in self._each(ask(texts, groups_of)):
            for call in groups_of[index]:
                yield call, FailedCall(call.key, _NOT_FINITE) if reply is None else reply

    def _first_tokens(
        self, texts: Sequence[Text], _: Sequence[Sequence[Call]]
    ) -> Iterator[tuple[int, Reply | None]]:
        n_top, verdicts = self.spec.sampling.top_logprobs, self._verdicts or []
        for indices, logits in self._reader.read(texts):
            tokens = self._vocabulary.tokens_at(logits, verdicts, n_top)
            for index, token in zip(indices, tokens, strict=True):
                n_prompt = len(texts[index].ids)
                yield (
                    index,
                    token and Reply(token.token, (token,), n_prompt=n_prompt, n_answer=1),
                )

    def _replies(
        self, texts: Sequence[Text], groups: Sequence[Sequence[Call]]
    ) -> Iterator[tuple[int, Reply | None]]:
        indices = {group[0].key: index for index, group in enumerate(groups)}
        tokenizer = self._model.tokenizer
        asked = [
            Prompt(
                group[0].key,
                text.ids,
                group[0].key,
                opens_reasoning=opens_reasoning(tokenizer, text.ids),
                sample=group[0].sample,
            )
            for text, group in zip(texts, groups, strict=True)
        ]
        engine = _Engine(self._model)
        for answer in engine.answers(asked, self._decoding):
            index = indices[answer.key]
            ids, generated = texts[index].ids, engine.generated.pop(answer.key)
            tokens = () if self._verdicts is None else self._scored(ids, generated)
            yield (
                index,
                None
                if None in tokens
                else Reply(
                    answer.output,
                    tuple(token for token in tokens if token is not None),
                    reasoning=answer.reasoning,
                    finish=answer.finish,
                    n_prompt=len(ids),
                    n_answer=answer.n_tokens,
                ),
            )

    def _scored(self, ids: Sequence[int], generated: Sequence[int]) -> Sequence[Token | None]:
        """What was said, token by token, by one pass over prompt and reply; without the token that ended it."""
        ends = self._model.end_tokens | set(self._decoding.stop_tokens)
        shown = generated[:-1] if generated[-1] in ends else generated
        if not shown:
            return ()
        logits = whole_logits(self._model, [*ids, *shown[:-1]], len(shown))
        n_top = self.spec.sampling.top_logprobs
        return self._vocabulary.tokens_at(logits[0], self._verdicts or [], n_top, shown)

    def _using(self) -> AbstractContextManager[Any]:
        same = self._model.active == self._adapter
        return nullcontext() if same else self._model.using(self._adapter)

    def _each(self, found: Iterator[T]) -> Iterator[T]:
        """The adapter is in use while ``found`` computes, and not while the caller has what it found."""
        while True:
            with self._using():
                one = next(found, None)
            if one is None:
                return
            yield one


class _Engine(LocalEngine):
    """The engine, which also tells of which tokens an answer consists."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.generated: dict[str, list[int]] = {}

    def ended(
        self, asked: Sequence[Prompt], decoding: Decoding, ending: Ending
    ) -> Iterator[RunningSequence]:
        """See `LocalEngine`."""
        for row in super().ended(asked, decoding, ending):
            self.generated[row.prompt.key] = row.generated
            yield row
