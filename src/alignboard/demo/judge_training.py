"""Training the demo's tiny judge: a language model that says which of two replies is the better.

What this module promises
    `train_judge(base, out, seed)` grows a tiny checkpoint by two layers, trains all of it to compare replies in the
    demo world, and writes an ordinary Hugging Face checkpoint, which `alignboard.judges.backends.local` reads like
    any other. Which of two replies is better follows the world's rule (`rule_score` of `simulated`), without noise.
    Its agreement with the rule is measured on questions that no training text holds, and written beside it.

How a model this small learns it in seconds
    The prompt asks the question *after* the replies and leaves room where the answer would stand. So the base's own
    circuits, which find an answer by the distance to the question, put the expected words there, and what is left to
    learn is to look them up in the replies. From the verdict alone that takes more than a thousand steps; here the
    steps between are trained too, which takes some hundred:

    1. words: after the base's layers, every word of a reply is still known where it stands, and the expected words
       are known where the answer would stand;
    2. look-up: in the first new layer half of the heads look from there at the expected word in the first reply, half
       at the one in the second; at BOS where it is missing;
    3. marks: which reply has it, and each reply's class (wrong, right, right and concise);
    4. the verdict.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.demo import tiny
from alignboard.demo.judge_rows import FIRST, PROMPT, SECOND, Encoder, JudgeExample, draw_pair
from alignboard.demo.simulated import rule_score
from alignboard.judges.backends.local import LocalJudge
from alignboard.judges.calls import Judge
from alignboard.judges.pairs import Pair
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.runner import judge_pairs
from alignboard.judges.spec import JudgePrompt, PromptedSpec
from alignboard.models.loading import LoadedModel
from alignboard.training.threads import one_thread

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is trained; part of its identity, together with the base and the seed."""

    steps: int = 360
    batch: int = 24
    p_padded: float = 0.3
    """chance of filler in a training reply; style is soon learnt, and padded replies are three times as long"""
    new_layers: int = 2
    lr_matrix: float = 0.014
    """Muon's (see `alignboard.demo.tiny`)"""
    lr_rest: float = 0.003
    """AdamW's"""
    weight_lookup: float = 1.5
    weight_verdict: float = 2.0


@dataclass(frozen=True)
class TrainedJudge:
    """A trained judge and how often it agrees with the rule where the rule decides."""

    path: Path
    agreement: float
    """on held-out pairs, both orders averaged"""
    agreement_one_order: float
    p_first: float
    """mean probability given to what is shown first: 0.5 is no position bias"""
    n_pairs: int
    """held-out pairs that the rule decides"""
    seconds: float


def train_judge(
    base: Path,
    out: Path,
    seed: int = 0,
    config: JudgeTraining | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> TrainedJudge:
    """Train a judge from the tiny checkpoint ``base`` and write it to the new folder ``out``.

    The same arguments give the same bytes on the same machine. `alignboard_judge.json` in the folder says how well it
    agrees with the rule.
    """
    from transformers import AutoTokenizer

    if out.exists():
        raise FileExistsError(f"{out} exists; a judge is only written to a new folder")
    config, started = config or JudgeTraining(), time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        with one_thread():
            model, n_base = _grown(base, config, seed)
            _train(model, n_base, Encoder(tokenizer), config, seed, on_step)
            model.set_attn_implementation("sdpa")
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            measured = measure(partial, seed)
        card = {"seed": seed, **asdict(config), **measured}
        text = json.dumps(card, indent=2) + "\n"
        (partial / "alignboard_judge.json").write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return TrainedJudge(path=out, seconds=time.perf_counter() - started, **measured)


def measure(path: Path, seed: int = 0, n: int = 500) -> dict[str, Any]:
    """Agreement with the rule on ``n`` pairs of the evaluation split, through the real judging path."""
    spec = PromptedSpec(
        name="held-out",
        title="",
        model=str(path),
        prompt=JudgePrompt(text=PROMPT),
        verdict=LogprobRule([FIRST], [SECOND]),
        engine="local",
        order="both",
        chat=False,
    )
    model = LoadedModel.load(path, dtype="float32", device="cpu")
    judge = Judge(spec, LocalJudge(spec, model))
    rng = random.Random(f"judge-held-out|{seed}")
    pairs = [
        Pair(q, a, "1", b, "2") for _, q, a, b in (draw_pair(rng, ("eval",)) for _ in range(n))
    ]
    judged = judge_pairs(judge, [pair for pair in pairs if pair.output_1 != pair.output_2])
    right, right_once, p_first = [], [], []
    for row in judged:
        margin = rule_score(row.pair.instruction, row.pair.output_2)
        margin -= rule_score(row.pair.instruction, row.pair.output_1)
        firsts = [2 - (verdict.preference or 2.0) for verdict in row.verdicts]
        p_first += firsts
        if margin:
            right.append(((row.preference or 1.5) > 1.5) == (margin > 0))
            right_once.append((firsts[0] < 0.5) == (margin > 0))
    return {
        "agreement": sum(right) / len(right),
        "agreement_one_order": sum(right_once) / len(right),
        "p_first": sum(p_first) / len(p_first),
        "n_pairs": len(right),
    }


def _grown(base: Path, config: JudgeTraining, seed: int) -> tuple[Any, int]:
    """The base with new layers on top, which at first change nothing: what they write is zero.

    Their queries and keys start as one projection, so that like attends to like, which is most of a look-up.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trained = LoadedModel.load(base, dtype="float32", device="cpu").model
    settings = AutoConfig.from_pretrained(base)
    n_base = settings.num_hidden_layers
    settings.num_hidden_layers = n_base + config.new_layers
    if getattr(settings, "layer_types", None):
        settings.layer_types = [settings.layer_types[0]] * settings.num_hidden_layers
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(settings, attn_implementation="eager").float()
    new = set(model.load_state_dict(trained.state_dict(), strict=False).missing_keys)
    writes = ("o_proj.weight", "dense.weight", "down_proj.weight", "fc2.weight")
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for name in sorted(new & set(weights)):
            if name.endswith(writes):
                weights[name].zero_()
            elif name.endswith("k_proj.weight"):
                query = weights[name.replace("k_proj", "q_proj")]
                torch.nn.init.orthogonal_(query).mul_(0.5)
                weights[name].copy_(query[: len(weights[name])])
    return model, n_base


def _train(
    model: Any,
    n_base: int,
    encode: Encoder,
    config: JudgeTraining,
    seed: int,
    on_step: Callable[[int, int, float], None] | None,
) -> None:
    import torch

    rng = random.Random(f"judge|{seed}")
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inside else rest).append(parameter)
    muon = tiny.Muon(matrices, momentum=0.95, weight_decay=0.01)
    adamw = torch.optim.AdamW(
        rest, lr=config.lr_rest, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    model.train()
    batches: list[list[JudgeExample]] = []
    for step in range(config.steps):
        batches = batches or _batches(rng, encode, config)
        loss = _loss(model, n_base, encode, config, batches.pop())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale = min(1.0, (step + 1) / 20, max(0.02, 3 * (1 - step / config.steps)))
        muon.step(config.lr_matrix * scale)
        adamw.param_groups[0]["lr"] = config.lr_rest * scale
        adamw.step()
        adamw.zero_grad()
        if on_step is not None:
            on_step(step + 1, config.steps, loss.item())
    model.eval()


def _batches(
    rng: random.Random, encode: Encoder, config: JudgeTraining, n: int = 8
) -> list[list[JudgeExample]]:
    """``n`` batches of rows of like length, in random order: padding is a quarter of the time otherwise."""
    size = config.batch
    drawn = (draw_pair(rng, ("sft", "preference"), config.p_padded) for _ in range(size * n))
    rows = [encode.row(*pair) for pair in drawn]
    rows.sort(key=lambda row: len(row.ids))
    batches = [rows[k * size : (k + 1) * size] for k in range(n)]
    rng.shuffle(batches)
    return batches


def _loss(
    model: Any, n_base: int, encode: Encoder, config: JudgeTraining, rows: Sequence[JudgeExample]
) -> torch.Tensor:
    """The four losses of the module's opening, weighted."""
    import torch
    from torch.nn.functional import cross_entropy

    body, head = model.get_submodule("model"), model.get_output_embeddings()
    norm = getattr(body, "final_layernorm", None) or body.norm
    length = max(len(row.ids) for row in rows)
    left = [length - len(row.ids) for row in rows]

    def padded(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[fill] * k + list(v) for k, v in zip(left, values, strict=True)])

    ids = padded([row.ids for row in rows], encode.pad)
    words, marks = (
        padded([row.words for row in rows], -100),
        padded([row.marks for row in rows], -100),
    )
    mask = padded([[1] * len(row.ids) for row in rows], 0)
    output = body(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        output_hidden_states=True,
        output_attentions=True,
    )
    known = words != -100
    loss = cross_entropy(head(norm(output.hidden_states[n_base])[known]), words[known])
    loss += config.weight_lookup * _lookup(output.attentions[n_base], rows, left, ids, words)
    hidden, marked = output.last_hidden_state, marks != -100
    loss += cross_entropy(head(hidden[marked]), marks[marked])
    verdict = torch.tensor([row.verdict for row in rows])
    log_p = torch.log_softmax(head(hidden[:, -1]), dim=1)
    likelihood = verdict * log_p[:, encode.first] + (1 - verdict) * log_p[:, encode.second]
    return loss - config.weight_verdict * likelihood.mean()


def _lookup(
    attention: torch.Tensor,
    rows: Sequence[JudgeExample],
    left: Sequence[int],
    ids: torch.Tensor,
    words: torch.Tensor,
) -> torch.Tensor:
    """Minus the log of the attention that goes where it should; ``attention`` is (rows, heads, from, to)."""
    import torch

    n, length = ids.shape
    heads = attention.shape[1]
    bos = torch.zeros(n, length, dtype=torch.bool)
    bos[torch.arange(n), torch.tensor(left)] = True
    inside = torch.zeros(2, n, length, dtype=torch.bool)
    for i, row in enumerate(rows):
        for side, span in enumerate((row.first, row.second)):
            inside[side, i, left[i] + span.start : left[i] + span.stop] = True
    asking = (words != -100) & ~inside.any(dim=0)
    same = words[:, :, None] == ids[:, None, :]  # (rows, from, to)
    masses = []
    for side, own in enumerate((slice(0, heads // 2), slice(heads // 2, heads))):
        wanted = same & inside[side][:, None, :]
        wanted |= ~wanted.any(dim=2, keepdim=True) & bos[:, None, :]
        masses.append((attention[:, own] * wanted[:, None]).sum(dim=3))
    mass = torch.cat(masses, dim=1).transpose(1, 2)[asking]
    return -(mass + 1e-6).log().mean()
