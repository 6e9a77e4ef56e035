"""lm-eval's model class of what is in memory: each context read once, each result committed as it comes.

Only the passes are ours (`alignboard.benchmarks.sharing`); lm-eval's are used where a model does not take ours, or
where the two differ on the first requests. Heavy: imports torch, transformers and lm-eval.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from alignboard.benchmarks.journaled import JournaledLM, Tokens, short
from alignboard.benchmarks.request_rows import RequestRows
from alignboard.benchmarks.scoring import Scorer, can_share
from alignboard.benchmarks.sharing import ScoredText
from alignboard.engines.generate import library_versions, model_identity
from alignboard.engines.local.ending import Ending
from alignboard.engines.local.engine import LocalEngine, masked_attention
from alignboard.engines.rows import Decoding, Prompt
from alignboard.models.ends import ends_of
from alignboard.models.loading import LoadedModel
from alignboard.models.own_decoding import OwnDecoding

_BUDGET: Final = {"cuda": 4096}
"""tokens of a pass, by type of device"""
_BUDGET_ELSEWHERE: Final = 512
_TRIED: Final = 2
"""requests on which our passes are held against lm-eval's"""
_TRIED_MODELS: Final[WeakKeyDictionary[Any, str | None]] = WeakKeyDictionary()
"""by model: what the trial of our passes found"""
_GREEDY: Final = frozenset(
    {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k", "min_p"}
)
"""generation arguments that our engine takes, or that do nothing to greedy decoding"""
_BATCH_SIZE: Final = 32
"""of lm-eval's own passes, halved where it does not fit into memory"""


class ContextOnce(JournaledLM):
    """A loaded model, with the adapter in use."""

    def __init__(self, model: LoadedModel, batch_size: int, rows: RequestRows) -> None:
        super().__init__(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=batch_size,
            max_length=model.context,
        )
        self._loaded, self._rows = model, rows
        self._budget = _BUDGET.get(model.model.device.type, _BUDGET_ELSEWHERE)
        self.own_passes: str | None = None if can_share(model.model) else "the model's architecture"
        """why lm-eval's own passes are used; None where they are not"""
        self.own_generation: str | None = None
        """why lm-eval's own loop generated; None where it did not"""

    def stamp(self) -> dict[str, Any]:
        """See `JournaledLM`."""
        passes = "context-once" if self.own_passes is None else f"lm-eval ({self.own_passes})"
        found = super().stamp() | {"passes": passes}
        if self.own_generation is not None:
            found["generations"] = f"lm-eval ({self.own_generation})"
        return found

    def get_model_info(self) -> dict[str, Any]:
        """See lm-eval's; adapters beside the one in use, which others in this process asked, are not counted."""
        found, others = super().get_model_info(), set(self._loaded.adapters) - {self._loaded.active}
        beside = sum(
            weight.numel()
            for name, weight in self._loaded.model.named_parameters()
            if not others.isdisjoint(name.split("."))
        )
        return found | {"model_num_parameters": found["model_num_parameters"] - beside}

    def _shrink(self, error: RuntimeError) -> None:
        """Halve what runs at a time."""
        if not should_reduce_batch_size(error) or (
            self.batch_size_per_gpu == 1 and self._budget <= 1
        ):
            raise error
        self.batch_size_per_gpu = max(1, int(self.batch_size_per_gpu) // 2)
        self._budget = max(1, self._budget // 2)
        clear_device_cache(garbage_collection=True)

    def _continue(self, requests: list[Any]) -> None:
        """See `JournaledLM`; greedy ones by our engine, whose rows end each for itself."""
        groups: dict[str, list[Any]] = {}
        for one in requests:
            groups.setdefault(json.dumps(one.args[1], sort_keys=True), []).append(one)
        for some in groups.values():
            given = normalize_gen_kwargs(some[0].args[1], self.max_gen_toks)
            why = not_greedy(given) or changes_greedy(self._loaded.own_decoding)
            if why is None:
                self._continue_greedily(some, given)
            else:
                self.own_generation = why
                super()._continue(some)

    def _model_generate(self, *given: Any, **options: Any) -> Any:
        """See lm-eval's, which gives `generate` no tokenizer; stop strings of the model's own need one."""
        if self._loaded.own_decoding.stop:
            options["tokenizer"] = self.tokenizer
        return super()._model_generate(*given, **options)

    def _continue_greedily(self, requests: list[Any], given: Any) -> None:
        model, limit = self._loaded, given["max_gen_toks"]
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(list(given["until"]), eos=eos)
        prompts = [
            Prompt(context, tuple(self._batch_ids(context, self.max_length - limit)), str(number))
            for number, (context, _) in enumerate(one.args for one in requests)
        ]
        decoding = Decoding(limit, stop=tuple(filter(None, stops)))
        # What the training of an adapter taught to end a reply, lm-eval does not know.
        ends = ends_of(model.tokenizer, model.model.generation_config.eos_token_id)
        ending = Ending(model, decoding, frozenset(ends))
        stops = [*stops, *ending.stops]
        for row in LocalEngine(model).ended(prompts, decoding, ending):
            text = postprocess_generated_text(self.tok_decode(row.generated), stops, None)
            self.cache_hook.add_partial("generate_until", requests[int(row.prompt.key)].args, text)

    def _batch_ids(self, context: str, room: int) -> list[int]:
        """The tokens of a context as lm-eval's batches have them, the last ``room``."""
        ids, _ = self.tok_batch_encode(
            [context], left_truncate_len=room, truncation=self.truncation
        )
        return ids[0].tolist()

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokens], **how: Any
    ) -> list[tuple[float, bool]]:
        """See lm-eval's."""
        self._note_cuts(requests)
        self._try_passes(requests)
        self._try_adapter(requests)
        if self.own_passes is not None:
            return super()._loglikelihood_tokens(requests, **how)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for index, logprob, is_greedy in self._scores(requests):
            found[index] = (logprob, is_greedy)
            texts = requests[index][0]
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, found[index])
        return found

    def _scores(self, requests: Sequence[Tokens]) -> Iterator[tuple[int, float, bool]]:
        texts = []
        for request in requests:
            read, continuation = self._read(request)
            texts.append(ScoredText(tuple(read[:-1]), tuple(continuation)))
        with masked_attention(self._loaded):
            yield from Scorer(self._loaded.model, self._budget).scores(texts)

    def _try_passes(self, requests: Sequence[Tokens]) -> None:
        """Hold our passes against lm-eval's on a few short texts, once a model: it may not heed our masks."""
        model = self._loaded.model
        if self.own_passes is None and model not in _TRIED_MODELS:
            _TRIED_MODELS[model] = self._difference(short(requests)[:_TRIED])
        self.own_passes = self.own_passes or _TRIED_MODELS.get(model)

    def _difference(self, some: Sequence[Tokens]) -> str | None:
        """The first log-probability that differs between our passes and lm-eval's; None where all are alike."""
        ours = {index: logprob for index, logprob, _ in self._scores(some)}
        theirs = super()._loglikelihood_tokens(some, disable_tqdm=True)
        exact = self._loaded.dtype == "float32" and self._loaded.quantization is None
        for index, (logprob, _) in enumerate(theirs):
            allowed = (1e-4 if exact else 0.1) * (1 + abs(logprob))
            if not abs(ours[index] - logprob) <= allowed:
                return f"log-probabilities of {ours[index]:.5g} and {logprob:.5g}"
        return None

    def _moved(self, some: Sequence[Tokens]) -> float | None:
        """See `JournaledLM`."""
        model = self._loaded
        if model.active is None or model.sole is not None:
            return None
        ask = super()._loglikelihood_tokens
        with_adapter = ask(some, disable_tqdm=True)
        with model.using(None):
            without = ask(some, disable_tqdm=True)
        moved = (abs(a[0] - b[0]) for a, b in zip(with_adapter, without, strict=True))
        return max(moved, default=None)


def not_greedy(given: Mapping[str, Any]) -> str | None:
    """What of lm-eval's generation arguments our engine does not do; None where it is greedy."""
    if given["do_sample"]:
        return "sampling"
    return next((f"{name} of the task" for name in given if name not in _GREEDY), None)


def changes_greedy(own: OwnDecoding) -> str | None:
    """What a model's generation configuration does that only lm-eval's loop follows; None where there is nothing."""
    return next((f"{name} of the model's generation configuration" for name in own.otherwise), None)


@dataclass(frozen=True)
class BenchmarkedModel:
    """A loaded model, with the adapter in use."""

    model: LoadedModel

    @property
    def template_hash(self) -> str:
        """See `alignboard.benchmarks.run.Subject`."""
        return self.model.template_hash

    def lm(self, rows: RequestRows) -> ContextOnce:
        """See `alignboard.benchmarks.run.Subject`."""
        return ContextOnce(self.model, _BATCH_SIZE, rows)

    def identity(self) -> dict[str, Any]:
        """See `alignboard.benchmarks.run.Subject`."""
        own = {"scheme": "benchmark-1", "context": self.model.context}
        return {**model_identity(self.model), **own}

    def arguments(self) -> dict[str, str]:
        """See `alignboard.benchmarks.run.Subject`."""
        model = self.model
        found = {"pretrained": str(model.path), "dtype": model.dtype}
        if model.active is not None:
            found["peft"] = str(model.adapters[model.active].path)
        return found

    def provenance(self) -> dict[str, Any]:
        """Digests of weights and adapter, and how they are held."""
        model = self.model
        embedding: Any = model.model.get_input_embeddings()
        return {
            "weights_sha256": model.fingerprint,
            "adapter_sha256": model.adapter_fingerprint,
            "dtype": model.dtype,
            "quantization": model.quantization,
            "embedding_rows": int(embedding.weight.shape[0]),
            "libraries": library_versions("lm_eval", "torch", "transformers", "peft"),
        }
