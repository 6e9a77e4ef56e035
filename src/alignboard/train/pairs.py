"""Preference pairs from a model's own samples: West-of-N.

`west_of_n` is pure: candidates and a score in, pairs out. `sample` and `build_pairs` add the model.

References: Pace et al. 2024, "West-of-N", arXiv 2401.12086: of N samples per prompt the best and the worst under a
scorer make the pair. Differs from the paper: no filter by confidence or likelihood; pairs whose scores are equal are
dropped instead, since a rule's ties say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.train.sections import PairSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignboard.models.loading import LoadedModel

Score = Callable[[str, str], float]
"""(instruction, output) -> how good; higher is better."""
Message = dict[str, str]
PreferenceRow = dict[str, list[Message]]
"""TRL's conversational preference row: prompt, chosen, rejected."""


@dataclass(frozen=True)
class PreferencePair:
    """Two outputs for one instruction, the better first."""

    instruction: str
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float


def west_of_n(
    instructions: Sequence[str], candidates: Sequence[Sequence[str]], score: Score
) -> list[PreferencePair]:
    """The best and the worst candidate per instruction; instructions whose candidates all score the same are dropped.

    Among equals the first sampled wins, so that pairs follow the model's own frequencies.

    >>> west_of_n(["q"], [["long answer", "no", "yes"]], lambda _, output: float(output == "yes"))
    [PreferencePair(instruction='q', chosen='yes', rejected='long answer', score_chosen=1.0, score_rejected=0.0)]
    """
    pairs = []
    for instruction, outputs in zip(instructions, candidates, strict=True):
        scores = [score(instruction, output) for output in outputs]
        best, worst = max(scores), min(scores)
        if best > worst:
            chosen, rejected = outputs[scores.index(best)], outputs[scores.index(worst)]
            pairs.append(PreferencePair(instruction, chosen, rejected, best, worst))
    return pairs


def preference_rows(pairs: Sequence[PreferencePair]) -> list[PreferenceRow]:
    """Pairs as TRL reads them."""
    return [
        {
            "prompt": [{"role": "user", "content": p.instruction}],
            "chosen": [{"role": "assistant", "content": p.chosen}],
            "rejected": [{"role": "assistant", "content": p.rejected}],
        }
        for p in pairs
    ]


@dataclass(frozen=True)
class CandidateSampling:
    """How replies are drawn; all of it determines them."""

    n: int = 1
    temperature: float = 0.0
    """0 is greedy."""
    max_new_tokens: int = 24
    seed: int = 0


GREEDY: Final = CandidateSampling()


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    how: CandidateSampling = GREEDY,
    *,
    batch: int = 512,
) -> list[list[str]]:
    """`how.n` replies per instruction through the tokenizer's chat template.

    Batched by prompt length with left padding; the same arguments give the same replies on the same machine.
    """
    import torch

    prompts: Any = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        for text in instructions
    ]
    # The template writes BOS itself; encoding with special tokens would add a second one.
    encoded: list[list[int]] = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    settings: dict[str, Any] = {"do_sample": False}
    if how.temperature > 0:
        settings = {"do_sample": True, "temperature": how.temperature, "top_k": 0, "top_p": 1.0}
    replies: list[list[str]] = [[] for _ in encoded]
    model.eval()
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        per_batch = max(1, batch // how.n)
        for start in range(0, len(order), per_batch):
            rows = order[start : start + per_batch]
            inputs = tokenizer.pad(
                {"input_ids": [encoded[i] for i in rows]}, return_tensors="pt", padding_side="left"
            ).to(model.device)
            output = model.generate(
                **inputs,
                **settings,
                num_return_sequences=how.n,
                max_new_tokens=how.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(
                output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            for k, text in enumerate(texts):
                replies[rows[k // how.n]].append(text)
    return replies


def load_policy(model_path: str | Path, adapter: str | Path | None = None) -> LoadedModel:
    """The base model with the adapter in use, through the one loader."""
    from alignboard.models.loading import LoadedModel

    loaded = LoadedModel.load(model_path)
    if adapter is not None:
        loaded.add_adapter("policy", adapter)
    return loaded


def build_pairs(
    spec: PairSpec,
    model_path: str | Path,
    adapter: str | Path | None,
    instructions: Sequence[str],
    score: Score,
    seed: int = 0,
) -> list[PreferencePair]:
    """Sample from the policy (base plus adapter) and pair by `score`; uses the first `spec.prompts` instructions."""
    if len(instructions) < spec.prompts:
        raise ValueError(
            f"pairs.prompts asks for {spec.prompts} instructions, {len(instructions)} were given"
        )
    loaded = load_policy(model_path, adapter)
    asked = list(instructions[: spec.prompts])
    how = CandidateSampling(spec.n, spec.temperature, spec.max_new_tokens, seed)
    with loaded.using(None if adapter is None else "policy"):
        candidates = sample(loaded.model, loaded.tokenizer, asked, how)
    return west_of_n(asked, candidates, score)
