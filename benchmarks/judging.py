"""Judging by one token: a plain loop over prompts and our local judge on the same prompts, side by side.

Run:  python benchmarks/judging.py [--small] [--threads 1] [--json FILE]
On CUDA:  the same; 7B shapes with random weights (bf16) against the floor of the measured matrix rate.

Prompts have the lengths of AlpacaEval 2's (mean 927 tokens, p50 928, p90 1343, p99 1999) and its parts: 145 tokens that
all begin with, instruction, two outputs, 107 tokens at the end; both orders of every pair. Words are random, and one
word is one token. The plain loop is `model(input_ids)` for one prompt at a time, of which the last place is read.

How much is saved depends on two shares. Logits of all places cost the vocabulary's share of the parameters, which is
24 % of the matrices here and 2 % of a 7B model's. The head is 16 % of the tokens here, and more where several models
are compared with one baseline, whose output prompts then share, too (`--models 4`).

Every method runs in a process of its own: peak memory is that process's. On a machine that is shared, read the CPU
column: with one thread it depends on what else runs by caches and memory only, and the fastest of several runs less.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerator import SHAPES, TINY, matrix_rate, most_time, name_of, seconds_of

VOCABULARY = 16_000
HEAD, MIDDLE, TAIL = 145, 9, 107
QUANTILES = ((0.0, 300), (0.1, 430), (0.5, 928), (0.9, 1343), (0.99, 1999), (1.0, 3000))
"""(share, tokens) of AlpacaEval 2's prompts; the ends and the tenth are such that the mean is theirs, 927"""


@dataclass(frozen=True)
class Parts:
    """The words of one question, as token ids."""

    instruction: list[int]
    first: list[int]
    second: list[int]


def questions(n: int, models: int = 1, vocabulary: int = VOCABULARY) -> list[Parts]:
    """Both orders of ``n`` instructions with a baseline's output and that of each of ``models``."""
    rng = random.Random("judging")

    def words(k: int) -> list[int]:
        return [rng.randrange(VERDICTS[-1] + 1, vocabulary) for _ in range(k)]

    found = []
    for number in range(n):
        rest = length((number + 0.5) / n) - HEAD - MIDDLE - TAIL - 1
        k = min(max(4, round(rng.lognormvariate(math.log(35), 0.8))), rest // 2)
        share = rng.uniform(0.3, 0.7)
        instruction, baseline = words(k), words(max(2, round(share * (rest - k))))
        for _ in range(models):
            other = words(max(2, rest - k - len(baseline)))
            found.append(Parts(instruction, baseline, other))
            found.append(Parts(instruction, other, baseline))
    return found


def length(share: float) -> int:
    """The quantile of the lengths of prompts, between known ones by a straight line."""
    place = max(1, bisect_left(QUANTILES, (share,)))
    (low, short), (high, long) = QUANTILES[place - 1 : place + 1]
    return round(short + (share - low) / (high - low) * (long - short))


HEAD_IDS = list(range(5, 5 + HEAD))
MIDDLE_IDS = list(range(5 + HEAD, 5 + HEAD + MIDDLE))
TAIL_IDS = list(range(5 + HEAD + MIDDLE, 5 + HEAD + MIDDLE + TAIL))
VERDICTS = (3, 4)


def prompt_ids(asked: Parts) -> list[int]:
    """The tokens of a prompt, BOS first."""
    shown = [*asked.first, *MIDDLE_IDS, *asked.second, *TAIL_IDS]
    return [1, *HEAD_IDS, *asked.instruction, *shown]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="8 instructions in place of 24")
    parser.add_argument("--models", type=int, default=1, help="how many are compared with one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2, help="runs in turns; the fastest counts")
    parser.add_argument("--only", nargs="+", help="methods, as the table names them")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--shape", choices=("full", "tiny"), default="full")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/judging.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    sizes = TINY if arguments.shape == "tiny" else {}
    asked = questions(8 if arguments.small else 24, arguments.models)
    if arguments.worker:
        print(json.dumps(METHODS[arguments.worker](asked, sizes)))
        return
    cuda = torch.cuda.is_available() if arguments.device == "auto" else arguments.device == "cuda"
    if cuda:
        asked = questions(64 if arguments.small else 402, arguments.models)
        shapes = {"tiny": TINY} if sizes else SHAPES
        measured = {"cuda": list(on_accelerator(asked, shapes, "cuda"))}
    else:
        measured = side_by_side(arguments, asked)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


# CPU.


def side_by_side(arguments: argparse.Namespace, asked: Sequence[Parts]) -> dict:
    """Every method in its process, in turns; prints a table."""
    lengths = sorted(len(prompt_ids(one)) for one in asked)
    print(
        f"{len(lengths)} prompts of {sum(lengths)} tokens (mean {sum(lengths) / len(lengths):.0f}, "
        f"median {lengths[len(lengths) // 2]}, longest {lengths[-1]}), {arguments.threads} thread(s), "
        f"the fastest of {arguments.repeats}\n"
        f"{'':34s} {'wall':>8s} {'CPU':>8s} {'prompts/CPU-s':>14s} {'CPU ratio':>10s} {'max |dP|':>9s} "
        f"{'|d log P|':>9s} {'peak':>9s}"
    )
    found: dict[str, dict] = {}
    for _ in range(arguments.repeats):
        for method in arguments.only or METHODS:
            row = in_process(arguments, method)
            if method not in found or row["cpu_s"] < found[method]["cpu_s"]:
                found[method] = row
    first = next(iter(found.values()))
    for method, row in found.items():
        row["ratio"] = first["cpu_s"] / row["cpu_s"]
        row["max_dp"] = difference(first["p"], row["p"])
        row["max_dlogp"] = difference(logarithms(first["p"]), logarithms(row["p"]))
        print(
            f"{method:34s} {row['wall_s']:6.1f} s {row['cpu_s']:6.1f} s {len(lengths) / row['cpu_s']:14.2f} "
            f"{row['ratio']:9.2f}x {row['max_dp']:9.1e} {row['max_dlogp']:9.1e} {row['peak_mb']:6.0f} MB"
        )
    for row in found.values():
        del row["p"]
    return {"prompts": len(lengths), "tokens": sum(lengths), "methods": found}


def in_process(arguments: argparse.Namespace, method: str) -> dict:
    """What a method measured in a process of its own."""
    command = [sys.executable, __file__, "--worker", method, "--shape", arguments.shape]
    command += ["--threads", str(arguments.threads), "--models", str(arguments.models)]
    command += ["--small"] * arguments.small
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def difference(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference between two sets of numbers for the same prompts."""
    return max(
        abs(a - b) for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True)
    )


def logarithms(p: Sequence[Sequence[float]]) -> list[list[float]]:
    """Random weights spread the probability over the vocabulary; on this scale a difference shows."""
    return [[math.log(one) for one in row] for row in p]


def build_model(sizes: dict[str, Any], dtype: str = "float32", device: str = "cpu") -> Any:
    """A Llama with random weights; 42M parameters where ``sizes`` are empty."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | sizes
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            LlamaConfig(**settings), dtype=getattr(torch, dtype), **_attention(device, dtype)
        )
    return model.eval().requires_grad_(requires_grad=False)


def _attention(device: str, dtype: str) -> dict[str, str]:
    """What our loader would choose: flash attention 2 where it can be had."""
    from transformers import LlamaForCausalLM

    from alignboard.models.arithmetic import Arithmetic, choose_attention

    chosen = choose_attention(Arithmetic(dtype=dtype, device=device), LlamaForCausalLM)
    return {"attn_implementation": chosen or "sdpa"}


def build_judge(model: Any, *, reuse: bool = True, rows: int | None = None) -> Any:
    """Our judge on ``model``, with a tokenizer of one word per id."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from alignboard.judges.backends.local import LocalJudge
    from alignboard.judges.parsing.probability_forms import LogprobRule
    from alignboard.judges.spec import JudgePrompt, PromptedSpec
    from alignboard.models.loading import LoadedModel

    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    words = [*special.values(), *(f"w{i}" for i in range(3, VOCABULARY))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **special)
    loaded = LoadedModel(
        path=Path("random weights"),
        fingerprint="random",
        model=model,
        tokenizer=tokenizer,
        base_chat_template=None,
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=None,
        attention=str(model.config._attn_implementation),  # noqa: SLF001 - there is no public name
    )
    first, second = (f"w{token}" for token in VERDICTS)
    spec = PromptedSpec(
        "benchmark",
        "",
        "random weights",
        JudgePrompt(text=_text()),
        LogprobRule([first], [second]),
        engine="local",
        chat=False,
    )
    return LocalJudge(spec, loaded, reuse=reuse, rows=rows)


def _text() -> str:
    head, middle, tail = map(spelled, (HEAD_IDS, MIDDLE_IDS, TAIL_IDS))
    return f"{head} {{instruction}} {{first}} {middle} {{second}} {tail}"


def spelled(ids: Sequence[int]) -> str:
    """The text of some tokens."""
    return " ".join(f"w{token}" for token in ids)


def build_calls(judge: Any, asked: Sequence[Parts]) -> list[Any]:
    """What the judge is asked; the prompts are those of `prompt_ids`."""
    from alignboard.judges.prompting.prompts import render
    from alignboard.judges.rows import Call, Question

    calls = []
    for number, one in enumerate(asked):
        question = Question(spelled(one.instruction), spelled(one.first), spelled(one.second))
        messages = render(judge.spec.prompt, [question])
        calls.append(Call(f"{number:016x}", (question,), messages))
    assert judge.ids(calls[0].messages) == prompt_ids(asked[0])
    return calls


def probabilities(judge: Any, calls: Sequence[Any]) -> list[list[float]]:
    """Those of the two verdict tokens, in the order of ``calls``."""
    found = {}
    for call, said in judge.ask(calls):
        top = dict(said.tokens[0].top)
        found[call.key] = [math.exp(top[f"w{token}"]) for token in VERDICTS]
    return [found[call.key] for call in calls]


def plain(keep: int | None) -> Callable[[Sequence[Parts], dict[str, Any]], dict]:
    """One prompt at a time, as transformers' documentation does it; ``keep`` places of the logits."""

    def measure(asked: Sequence[Parts], sizes: dict[str, Any]) -> dict:
        import torch

        model = build_model(sizes)
        options = {} if keep is None else {"logits_to_keep": keep}

        def run() -> list[list[float]]:
            found = []
            for one in asked:
                with torch.inference_mode():
                    logits = model(input_ids=torch.tensor([prompt_ids(one)]), **options).logits
                p = torch.softmax(logits[0, -1].double(), dim=0)
                found.append(p[list(VERDICTS)].tolist())
            return found

        return timed(run)

    return measure


def ours(**settings: Any) -> Callable[[Sequence[Parts], dict[str, Any]], dict]:
    """Our judge, from texts to replies."""

    def measure(asked: Sequence[Parts], sizes: dict[str, Any]) -> dict:
        judge = build_judge(build_model(sizes), **settings)
        calls = build_calls(judge, asked)
        return timed(lambda: probabilities(judge, calls))

    return measure


def timed(run: Callable[[], list[list[float]]]) -> dict:
    """Seconds, peak memory, and what was computed."""
    cpu, start = time.process_time(), time.perf_counter()
    p = run()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "p": p}


PLAIN, OURS = "plain loop, all logits", "ours"
METHODS: dict[str, Callable[[Sequence[Parts], dict[str, Any]], dict]] = {
    PLAIN: plain(None),
    "plain loop, last logits": plain(1),
    "ours, nothing shared": ours(reuse=False, rows=1),
    OURS: ours(),
}


# Accelerators.


def on_accelerator(
    asked: Sequence[Parts], shapes: dict[str, dict[str, Any]], device: str
) -> Iterator[dict]:
    """Tokens per second of our judge, and the rate that the matrix products alone would allow."""
    import torch

    dtype = "bfloat16" if device == "cuda" else "float32"
    rate = matrix_rate(device, 8192 if device == "cuda" else 256)
    tokens = sum(len(prompt_ids(one)) for one in asked)
    print(
        f"{name_of(device)}, {rate / 1e12:.2f} TFLOP/s in {dtype}; {len(asked)} prompts of {tokens} tokens"
    )
    for shape, sizes in shapes.items():
        full = {} if shape == "tiny" else {"hidden_size": 4096, "num_hidden_layers": 32}
        full |= {} if shape == "tiny" else {"num_attention_heads": 32, "vocab_size": 32_000}
        model = build_model({**full, **sizes}, dtype, device)
        for reuse in (False, True):
            yield {"shape": shape} | against_floor(model, asked, device, rate, reuse=reuse)
        del model
        if device == "cuda":
            torch.cuda.empty_cache()


def against_floor(
    model: Any, asked: Sequence[Parts], device: str, rate: float, *, reuse: bool
) -> dict:
    """Our judge on ``model``: its tokens per second, those of the floor, and what takes the time; prints it."""
    judge = build_judge(model, reuse=reuse)
    calls = build_calls(judge, asked)
    tokens = sum(len(prompt_ids(one)) for one in asked)
    floor = rate / (2 * matrix_parameters(model))
    probabilities(judge, calls[:16])  # kernels are chosen and memory is taken at first use
    seconds, peak = seconds_of(lambda: probabilities(judge, calls), device)
    found = {
        "head_shared": reuse,
        "attention": judge.identity["attention"],
        "reader": judge.identity["forward"],
        "matrix_tflops": rate / 1e12,
        "tokens_per_s": tokens / seconds,
        "floor_tokens_per_s": floor,
        "of_floor": tokens / seconds / floor,
        "peak_gb": peak,
        "most_time": most_time(lambda: probabilities(judge, calls[:32]), device),
    }
    print(
        f"{matrix_parameters(model) / 1e9:.2f}G parameters, {'head shared' if reuse else 'nothing shared':14s} "
        f"{found['tokens_per_s']:9.0f} tok/s, floor's rate {floor:9.0f}: {found['of_floor']:6.1%}, "
        f"peak {peak:.1f} GB, attention {found['attention']}",
        flush=True,
    )
    for operation, share in found["most_time"]:
        print(f"{'':4s} {share:6.1%} {operation}")
    return found


def matrix_parameters(model: Any) -> int:
    """The parameters that every token meets: not the embedding nor, as one place is read, the vocabulary's."""
    outside = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return sum(one.numel() for one in model.parameters() if id(one) not in outside)


if __name__ == "__main__":
    main()
