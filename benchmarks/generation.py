"""Generation: `generate` one prompt at a time, lm-eval's HFLM and our local engine on the same requests, side by side.

Run:  python benchmarks/generation.py [--small] [--threads 1] [--json FILE]
Real weights:  python benchmarks/generation.py --real [--tokens 24]; SmolLM2-135M-Instruct in float32, 40 real
instructions in its chat template, answers of one length (its end token ends nothing), the same tokens from all.
On CUDA:  the same; 7B-shaped models with random weights (bf16), our engine (it masks rows, so SDPA) and transformers'
continuous batching with SDPA and, where flash-attn is installed, flash attention, against the floor of the bandwidth.

The model is a Llama of 42M random weights, the prompts are random words. How long an answer is cannot be left to
random weights: lengths are drawn from a log-normal distribution and forced. For transformers and lm-eval a logits
processor forbids the end token until a row has its length and then forces it (so that, as with a real model, rows of a
batch end at different times, and HFLM sees one set of arguments); for ours every prompt has its own limit. Every
method runs in a process of its own: peak memory is that process's. Float32 and greedy, so tokens must be the same.

On a machine that is shared, read the CPU column: with one thread it does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from accelerator import SHAPES, bandwidth_of, busy, most_time, name_of, seconds_of

VOCABULARY = 16_000
ACCELERATOR_VOCABULARY = 32_000
END = 2
KEY = 6
"""the last tokens of a prompt, by which the processor knows it"""


@dataclass(frozen=True)
class Request:
    """One prompt and the number of tokens of its answer, the end token included."""

    ids: list[int]
    length: int


def requests(n: int, mean_answer: int, vocabulary: int = VOCABULARY) -> list[Request]:
    """Prompts of about 50 tokens and answers of about ``mean_answer``, both with long tails."""
    rng = random.Random("generation")

    def draw(median: float, sigma: float, most: int) -> int:
        return min(most, max(KEY, round(rng.lognormvariate(math.log(median), sigma))))

    return [
        Request(
            [rng.randrange(3, vocabulary) for _ in range(draw(50, 0.6, 400))],
            draw(mean_answer / math.exp(0.5 * 0.7**2), 0.7, 6 * mean_answer),
        )
        for _ in range(n)
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="40 prompts and short answers")
    parser.add_argument("--real", action="store_true", help="SmolLM2 in place of random weights")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer, with --real")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", choices=METHODS | REAL, help="methods, as the table names them"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/generation.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.real:
        asked = real_requests(arguments.tokens)
    else:
        asked = requests(*(40, 30) if arguments.small else (200, 60))
    if arguments.worker:
        print(json.dumps((REAL if arguments.real else METHODS)[arguments.worker](asked)))
        return
    if arguments.real:
        measured = side_by_side(arguments, asked)
    elif torch.cuda.is_available():
        asked = requests(*(256, 60) if arguments.small else (1024, 300), ACCELERATOR_VOCABULARY)
        measured = {"cuda": list(on_accelerator(asked, SHAPES, "cuda"))}
    else:
        measured = side_by_side(arguments, asked)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


# CPU.


def side_by_side(arguments: argparse.Namespace, asked: list[Request]) -> dict:
    """Every method in its process; prints as it goes."""
    tokens = sum(one.length for one in asked)
    print(
        f"{len(asked)} prompts of {sum(len(one.ids) for one in asked)} tokens, answers of {tokens} tokens, "
        f"{arguments.threads} thread(s)\n"
        f"{'':34s} {'wall':>8s} {'CPU':>8s} {'tok/s':>8s} {'tok/CPU-s':>10s} {'CPU ratio':>10s} {'peak':>9s}"
    )
    found: dict[str, dict] = {}
    for method in arguments.only or (REAL if arguments.real else METHODS):
        command = [sys.executable, __file__, "--worker", method]
        command += ["--threads", str(arguments.threads), *["--small"] * arguments.small]
        command += [*["--real"] * arguments.real, "--tokens", str(arguments.tokens)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        found[method] = row | {"tokens_per_s": tokens / row["wall_s"]}
        first = next(iter(found.values()))
        ratio = first["cpu_s"] / row["cpu_s"]
        print(
            f"{method:34s} {row['wall_s']:6.1f} s {row['cpu_s']:6.1f} s {tokens / row['wall_s']:8.1f} "
            f"{tokens / row['cpu_s']:10.1f} {ratio:9.2f}x {row['peak_mb']:6.0f} MB",
            flush=True,
        )
        same = row["digest"] == first["digest"]
        if not same:
            print(f"{'':34s} other tokens than {next(iter(found))}")
    return {"prompts": len(asked), "tokens": tokens, "methods": found} | _ratios(found)


def _ratios(found: dict[str, dict]) -> dict:
    """Ours against one at a time and against the best HFLM, in CPU and wall time."""
    if ONE not in found or OURS not in found:
        return {}
    best = min((row["cpu_s"] for name, row in found.items() if "HFLM" in name), default=None)
    ours = found[OURS]["cpu_s"]
    ratios = {
        "over_one": found[ONE]["cpu_s"] / ours,
        "over_one_wall": found[ONE]["wall_s"] / found[OURS]["wall_s"],
    } | ({} if best is None else {"over_hflm": best / ours})
    print("  ".join(f"{name} {value:.2f}x" for name, value in ratios.items()))
    return ratios


def build_model(**changes: Any) -> Any:
    """A Llama with random weights that never says the end token by itself."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": END,
    } | changes
    config = LlamaConfig(**sizes)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model = model.float().eval()
    with torch.no_grad():
        model.lm_head.weight[END] = 0.0  # its logit is 0: some other of 16,000 is always larger
    return model


def real_model() -> Any:
    """SmolLM2-135M-Instruct; none of its tokens ends an answer."""
    from msgspec.structs import replace as changed

    from alignboard.models.asked import load_spec
    from alignboard.models.registry import load_model

    loaded, _ = load_spec(changed(load_model("smollm2"), dtype="float32"))
    loaded.model.generation_config.eos_token_id = None
    return loaded.model


def real_requests(length: int) -> list[Request]:
    """40 instructions of LLaMA-Factory's example data in the model's template."""
    from alignboard.fetch.packages import packaged_path
    from alignboard.models.gguf.file import read_header
    from alignboard.models.gguf.tokenizer import build_tokenizer as tokenizer_of
    from alignboard.models.registry import load_model

    entry = load_model("smollm2")
    file = packaged_path(entry.base) / (entry.gguf_file or "")
    tokenizer: Any = tokenizer_of(read_header(file))
    rows = json.loads(packaged_path("package:llamafactory/alpaca_en_demo.json").read_text())
    found = []
    for row in rows[:40]:
        text = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        turns = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        found.append(Request(ids, length))
    return found


def batches_of(size: int) -> Callable[[list[Request]], dict]:
    """`generate` of transformers, ``size`` prompts at a time, padded on the left."""

    def measure(asked: list[Request]) -> dict:
        import torch

        model = real_model()
        model.generation_config.pad_token_id = 0

        def run() -> list[list[int]]:
            said = []
            for start in range(0, len(asked), size):
                part = asked[start : start + size]
                longest = max(len(one.ids) for one in part)
                pads = [longest - len(one.ids) for one in part]
                ids = [[0] * pad + one.ids for pad, one in zip(pads, part, strict=True)]
                seen = [[0] * pad + [1] * (longest - pad) for pad in pads]
                with torch.inference_mode():
                    whole = model.generate(
                        input_ids=torch.tensor(ids),
                        attention_mask=torch.tensor(seen),
                        max_new_tokens=part[0].length,
                        do_sample=False,
                    )
                said += whole[:, longest:-1].tolist()
            return said

        return timed(run)

    return measure


def build_tokenizer() -> Any:
    """One word per id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(zip(("pad_token", "bos_token", "eos_token"), words[:3], strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def force_lengths(model: Any, asked: list[Request]) -> None:
    """Let ``model.generate`` end every row at its length."""
    wanted = {tuple(one.ids[-KEY:]): one.length for one in asked}
    generate = model.generate

    class Ends:
        def __init__(self) -> None:
            self.lengths: list[int] | None = None

        def __call__(self, ids: Any, scores: Any) -> Any:
            if self.lengths is None:
                self.start = ids.shape[1]
                self.lengths = [wanted[tuple(row)] for row in ids[:, -KEY:].tolist()]
            scores[:, END] = -math.inf
            for row, length in enumerate(self.lengths):
                if ids.shape[1] - self.start == length - 1:
                    scores[row, END] = math.inf
            return scores

    model.generate = lambda *args, **kwargs: generate(*args, logits_processor=[Ends()], **kwargs)


def timed(run: Callable[[], list[list[int]]]) -> dict:
    """Seconds, peak memory and the digest of all tokens but the end tokens."""
    cpu, start = time.process_time(), time.perf_counter()
    said = run()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "digest": digest}


def one_at_a_time(asked: list[Request]) -> dict:
    """`generate` of transformers."""
    import torch

    model = build_model()
    force_lengths(model, asked)

    def run() -> list[list[int]]:
        said = []
        for one in asked:
            ids = torch.tensor([one.ids])
            with torch.inference_mode():
                whole = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=1024,
                    do_sample=False,
                )
            said.append(whole[0, len(one.ids) : -1].tolist())
        return said

    return timed(run)


def hflm(batch_size: int) -> Callable[[list[Request]], dict]:
    """lm-eval's HFLM on the same requests, as text."""

    def measure(asked: list[Request]) -> dict:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        model, tokenizer = build_model(), build_tokenizer()
        force_lengths(model, asked)
        make: Any = HFLM
        lm = make(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=2048)
        arguments = {"until": ["<eos>"], "max_gen_toks": 1024, "do_sample": False}
        instances = [
            Instance("generate_until", {}, (tokenizer.decode(one.ids), dict(arguments)), number)
            for number, one in enumerate(asked)
        ]

        def run() -> list[list[int]]:
            texts = lm.generate_until(instances, disable_tqdm=True)
            return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

        return timed(run)

    return measure


def ours(slots: int | None) -> Callable[[list[Request]], dict]:
    """Our local engine."""

    def measure(asked: list[Request]) -> dict:
        model = build_model()
        return timed(lambda: answers(model, asked, slots))

    return measure


def answers(model: Any, asked: list[Request], slots: int | None) -> list[list[int]]:
    """The tokens of every answer but the last, in order."""
    from alignboard.engines.local.engine import LocalEngine
    from alignboard.engines.rows import Decoding, Prompt
    from alignboard.models.own_decoding import OwnDecoding

    model.generation_config.eos_token_id = None
    said: dict[str, list[int]] = {}
    decode = SimpleNamespace(
        decode=lambda ids, **_: " ".join(map(str, ids)),
        eos_token_id=None,
        all_special_ids=[],
        all_special_tokens=[],
        chat_template=None,
        get_added_vocab=dict,
    )
    loaded: Any = SimpleNamespace(
        model=model,
        tokenizer=decode,
        context=2304,
        path="random weights",
        adapters={},
        end_tokens=frozenset(),
        own_decoding=OwnDecoding(),
    )
    prompts = [
        Prompt("", tuple(one.ids), f"{number:016x}", max_new_tokens=one.length)
        for number, one in enumerate(asked)
    ]
    for answer in LocalEngine(loaded, slots=slots).answers(prompts, Decoding(1024)):
        said[answer.key] = [int(token) for token in answer.output.split()][:-1]
    return [said[prompt.key] for prompt in prompts]


def continuous(rows: int) -> Callable[[list[Request]], dict]:
    """transformers' own continuous batching."""

    def measure(asked: list[Request]) -> dict:
        model = build_model()
        return timed(lambda: paged(model, asked, **pages(asked, rows)))

    return measure


def pages(asked: list[Request], rows: int) -> dict[str, int]:
    """What ``rows`` of the longest rows need: left to itself, transformers takes most of a CPU's memory."""
    longest = sum(sorted(len(one.ids) + one.length for one in asked)[-rows:])
    return {
        "page_size": 32,
        "num_blocks": longest // 32 + 2 * rows,
        "max_batch_tokens": 512,
        "max_requests_per_batch": rows,
    }


def paged(model: Any, asked: list[Request], **settings: Any) -> list[list[int]]:
    """The tokens of every answer but the last, in order, by transformers' own continuous batching."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    generation = GenerationConfig(eos_token_id=-1, do_sample=False, max_new_tokens=1024)
    config = ContinuousBatchingConfig(allow_block_sharing=False, **settings)
    said: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(
        generation_config=generation, continuous_batching_config=config
    ) as manager:
        for number, one in enumerate(asked):
            manager.add_request(one.ids, str(number), max_new_tokens=one.length)
        while len(said) < len(asked):
            result = manager.get_result(timeout=1)
            if result is not None:
                said[result.request_id] = list(result.generated_tokens)[:-1]
    return [said[str(number)] for number in range(len(asked))]


ONE, OURS = "generate, one at a time", "ours"
METHODS: dict[str, Callable[[list[Request]], dict]] = {
    ONE: one_at_a_time,
    "lm-eval HFLM, batch 16": hflm(16),
    "lm-eval HFLM, batch 64": hflm(64),
    "transformers continuous, 32 rows": continuous(32),
    "transformers continuous, 64 rows": continuous(64),
    "ours, 16 rows": ours(16),
    OURS: ours(None),
}


REAL: dict[str, Callable[[list[Request]], dict]] = {
    "transformers, batches of 1": batches_of(1),
    "transformers, batches of 16": batches_of(16),
    "transformers, batches of 40": batches_of(40),
    "transformers continuous, 40 rows": lambda asked: on_real(
        lambda model: paged(model, asked, **pages(asked, 40))
    ),
    OURS: lambda asked: on_real(lambda model: answers(model, asked, None)),
}


def on_real(run: Callable[[Any], list[list[int]]]) -> dict:
    """A method on SmolLM2."""
    model = real_model()
    return timed(lambda: run(model))


# Accelerators.


def on_accelerator(
    asked: list[Request],
    shapes: dict[str, dict[str, Any]],
    device: str,
    batches: Sequence[int] = (1, 16, 64, 256, 512, 1024),
    attentions: Sequence[str] | None = None,
) -> Iterator[dict]:
    """Tokens per second at several batch sizes, and the rate that the memory bandwidth would allow.

    Transformers' continuous batching runs once with each of ``attentions``, by default those of the device.
    """
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available

    if attentions is None:
        flash = device == "cuda" and is_flash_attn_2_available()
        attentions = ("sdpa", "flash_attention_2") if flash else ("sdpa",)

    bandwidth = bandwidth_of(device, 1 << 30 if device == "cuda" else 1 << 20)
    tokens = sum(one.length for one in asked)
    print(
        f"{name_of(device)}, {bandwidth / 1e12:.2f} TB/s; {len(asked)} prompts, answers of {tokens} tokens"
    )
    for shape, sizes in shapes.items():
        model = build_shape(sizes, device)
        answers(model, asked[:8], 8)  # kernels are chosen and memory is taken at the first use
        for rows in batches:
            part = asked if rows >= len(asked) // 16 else asked[: 4 * rows]
            yield against_floor(model, shape, part, device, bandwidth, rows)
        for attention in attentions:
            model.set_attn_implementation(attention)
            yield against_floor(model, shape, asked, device, bandwidth, None)
        del model
        if device == "cuda":
            torch.cuda.empty_cache()


def against_floor(
    model: Any,
    shape: str,
    part: list[Request],
    device: str,
    bandwidth: float,
    rows: int | None,
) -> dict:
    """Our engine with ``rows`` at a time, or (None) transformers' own continuous batching, and the floor's rate.

    A step reads every weight once and the keys and values that its rows hold.
    """

    def run() -> list[list[int]]:
        if rows is not None:
            return answers(model, part, rows)
        return paged(model, part, **({} if device == "cuda" else pages(part, len(part))))

    seconds, peak = seconds_of(run, device)
    batch = min(rows or len(part), len(part))
    rate = sum(one.length for one in part) / seconds
    floor = batch * bandwidth / bytes_of_step(model, part, batch)
    found = {
        "shape": shape,
        "engine": "transformers continuous" if rows is None else "ours",
        "rows": batch,
        "tokens_per_s": rate,
        "floor_tokens_per_s": floor,
        "of_floor": rate / floor,
        "peak_gb": peak,
        "attention": model.config._attn_implementation,  # noqa: SLF001 - there is no public name
    }
    print(
        f"{shape:12s} {found['engine']:24s} {batch:5d} rows: {rate:9.0f} tok/s, floor's rate {floor:9.0f}: "
        f"{rate / floor:5.1%}, peak {peak:.1f} GB, attention {found['attention']}",
        flush=True,
    )
    if rows is not None:
        # A few answers per row, no longer than shows a step: traces of a whole run do not fit in memory.
        short = [replace(one, length=min(one.length, 24)) for one in part[: 2 * batch]]
        found["busy"] = busy(lambda: answers(model, short, rows), device)
        found["most_time"] = most_time(lambda: answers(model, short, rows), device)
        print(f"{'':4s} the device computes {found['busy']:.0%} of the time")
        for operation, share in found["most_time"]:
            print(f"{'':4s} {share:6.1%} {operation}")
    return found


def bytes_of_step(model: Any, part: list[Request], batch: int) -> float:
    """What a step of ``batch`` rows has to read: the weights, and half-grown answers' keys and values."""
    config, size = model.config, next(model.parameters()).element_size()
    of_a_head = config.hidden_size // config.num_attention_heads
    of_a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * of_a_head * size
    held = sum(len(one.ids) + one.length / 2 for one in part) / len(part)
    return sum(p.numel() for p in model.parameters()) * size + batch * held * of_a_token


def build_shape(sizes: dict[str, Any], device: str) -> Any:
    """A shape with random weights, bf16 on a GPU."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(vocab_size=ACCELERATOR_VOCABULARY, max_position_embeddings=4096, **sizes)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=dtype
        )
    return model.eval().requires_grad_(requires_grad=False)


if __name__ == "__main__":
    main()
