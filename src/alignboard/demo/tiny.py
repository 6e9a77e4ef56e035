"""Tiny checkpoints of four architectures, pretrained on the spot on the demo world.

What this module promises
    `build(family, path, seed)` writes an ordinary Hugging Face checkpoint (config.json, model.safetensors,
    tokenizer.json with a chat template, generation_config.json) which `AutoModelForCausalLM` and `AutoTokenizer` load
    like any other. The same seed gives the same bytes on the same machine and libraries: one thread, explicit
    generators, no data-dependent kernels. The folder appears only when it is complete.

The architectures are the published ones (Phi with partial rotary embeddings and a biased head, Mistral with grouped
key-value heads, Gemma with a head dimension of its own and tied embeddings, Llama); only the sizes are small:
90k to 130k parameters.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.demo import world
from alignboard.training.threads import one_thread

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FAMILIES: Final = ("phi", "mistral", "gemma", "llama")
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS: Final = (PAD, BOS, EOS, UNK)

# Zephyr's manner: role tags are plain text, not special tokens; the template writes BOS itself, so its text is encoded
# with add_special_tokens=False, as for the chat models it imitates. The {% generation %} markers are what TRL's
# assistant_only_loss needs.
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "assistant: {% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %} "
    "{% else %}{{ message['role'] }}: {{ message['content'] }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class PretrainConfig:
    """How a tiny base model is pretrained. Part of a checkpoint's identity, together with the family and the seed."""

    steps: int = 550
    batch: int = 32
    n_documents: int = 14_000
    lr_matrix: float = 0.01
    """Muon's, for the weight matrices inside the layers."""
    lr_rest: float = 0.006
    """AdamW's, for embeddings, the head, norms and biases."""
    weight_decay: float = 0.01
    warmup_steps: int = 20
    hidden: int = 64
    layers: int = 2
    intermediate: int = 128
    initializer_range: float = 0.08
    """Four times the usual: at width 64 the usual 0.02 leaves the first attention scores too flat to learn from."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the world's vocabulary (about 190 entries), lower-casing, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_TOKENS, *world.vocabulary()]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    # Joins words by spaces, none before a mark; the clean-up knows all our marks but the colon.
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=True), decoders.Replace(" :", ":")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=256,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(family: str, vocab_size: int, config: PretrainConfig) -> Any:
    """The Hugging Face configuration of a tiny model of `family`."""
    from transformers import GemmaConfig, LlamaConfig, MistralConfig, PhiConfig

    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": config.initializer_range,
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "bos_token_id": SPECIAL_TOKENS.index(BOS),
        "eos_token_id": SPECIAL_TOKENS.index(EOS),
        "dtype": "float32",
    }
    match family:
        case "phi":
            return PhiConfig(**common)
        case "mistral":
            return MistralConfig(**common, num_key_value_heads=2, sliding_window=None)
        case "gemma":
            # As in Gemma-7B: full key-value heads, and a head dimension that is not hidden/heads.
            return GemmaConfig(**common, num_key_value_heads=4, head_dim=32)
        case "llama":
            return LlamaConfig(**common, num_key_value_heads=4)
    raise ValueError(f"unknown tiny family {family!r}; expected one of {', '.join(FAMILIES)}")


class Muon:
    """Momentum orthogonalised by Newton-Schulz, for weight matrices; batched over matrices of one shape, in float32.

    Learns this world in about half the steps AdamW takes. `torch.optim.Muon` iterates in bfloat16, which CPUs emulate
    (three times the whole step's time here), and one matrix at a time.

    References: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon (quintic coefficients, Nesterov form).
    Differs from it: four iterations instead of five, float32.
    """

    def __init__(
        self, params: Sequence[torch.nn.Parameter], momentum: float, weight_decay: float
    ) -> None:
        import torch

        self.momentum, self.weight_decay = momentum, weight_decay
        groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for p in params:
            groups.setdefault((min(p.shape), max(p.shape)), []).append(p)
        self.groups = [(shape, ps, torch.zeros(len(ps), *shape)) for shape, ps in groups.items()]

    def step(self, lr: float) -> None:
        """Update every matrix from its gradient, then clear the gradient."""
        import torch

        with torch.no_grad():
            for (rows, _), params, buffer in self.groups:
                grad = torch.stack(
                    [_wide(p.grad, rows) for p in params if p.grad is not None]
                )  # (k, rows, cols)
                buffer.mul_(self.momentum).add_(grad, alpha=1 - self.momentum)
                x = grad.lerp(buffer, self.momentum)
                x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
                for _ in range(4):
                    a = x @ x.mT
                    b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
                    x = torch.baddbmm(x, b, x, beta=3.4445)
                for p, update in zip(params, x, strict=True):
                    p.mul_(1 - lr * self.weight_decay)
                    p.add_(
                        _wide(update, p.shape[0]),
                        alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5,
                    )
                    p.grad = None


def _wide(matrix: Any, rows: int) -> Any:
    """The matrix, transposed where needed so that it has `rows` rows."""
    return matrix if matrix.shape[0] == rows else matrix.T


def encode_documents(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[tuple[str, str]]
) -> list[tuple[list[int], int]]:
    """(token ids with BOS and EOS, length of the given part) per document."""
    eos = SPECIAL_TOKENS.index(EOS)
    given: Any = tokenizer([d[0] for d in documents])["input_ids"]
    follows: Any = tokenizer([d[1] for d in documents], add_special_tokens=False)["input_ids"]
    return [([*g, *f, eos], len(g)) for g, f in zip(given, follows, strict=True)]


def pretrain(
    model: PreTrainedModel,
    rows: Sequence[tuple[list[int], int]],
    config: PretrainConfig,
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Train all weights by a plain loop; returns the loss of every step.

    The loss is taken on what follows the given part of a document: the words of a question are drawn uniformly, so
    there is nothing to learn from predicting them, only noise in the gradient.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rng = random.Random(f"batches|{seed}")
    matrices, rest = [], []
    for name, p in model.named_parameters():
        inside = p.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inside else rest).append(p)
    muon = Muon(matrices, momentum=0.95, weight_decay=config.weight_decay)
    adamw = torch.optim.AdamW(
        rest, lr=config.lr_rest, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    body: Any = model.get_submodule("model")
    head: Any = model.get_output_embeddings()
    losses = []
    model.train()
    for step in range(config.steps):
        ids, labels = _batch([rows[rng.randrange(len(rows))] for _ in range(config.batch)])
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state  # (batch, length, hidden)
        wanted = labels[:, 1:] != -100
        loss = cross_entropy(head(hidden[:, :-1][wanted]), labels[:, 1:][wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        left = 1 - step / config.steps
        scale = min(1.0, (step + 1) / config.warmup_steps, max(0.02, 1.6 * left))
        muon.step(config.lr_matrix * scale)
        adamw.param_groups[0]["lr"] = config.lr_rest * scale
        adamw.step()
        adamw.zero_grad()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step + 1, config.steps, losses[-1])
    return losses


def _batch(rows: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, both (batch, longest), padded right; labels are -100 on the given part and the padding."""
    import torch

    longest = max(len(ids) for ids, _ in rows)
    pad = SPECIAL_TOKENS.index(PAD)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row, _ in rows])
    labels = torch.tensor([[-100] * n + row[n:] + [-100] * (longest - len(row)) for row, n in rows])
    return ids, labels


def build(
    family: str,
    path: str | Path,
    seed: int = 0,
    config: PretrainConfig | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Pretrain a tiny `family` model from `seed` and write it to the new folder `path`; returns `path`.

    Refuses a folder that exists: a checkpoint is never half replaced. `alignboard_tiny.json` in the folder records
    family, seed, configuration and final loss.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    path, config = Path(path), config or PretrainConfig()
    if path.exists():
        raise FileExistsError(f"{path} exists; a tiny checkpoint is only written to a new folder")
    tokenizer = build_tokenizer()
    rows = encode_documents(tokenizer, world.pretraining_documents(config.n_documents, seed))
    with one_thread():
        hf_config = build_config(family, len(tokenizer), config)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(hf_config, attn_implementation="sdpa").float()
        losses = pretrain(model, rows, config, seed, on_step)
    # No max_new_tokens here: it would win over the max_length by which lm-eval limits a reply.
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=hf_config.bos_token_id,
        eos_token_id=hf_config.eos_token_id,
        pad_token_id=hf_config.pad_token_id,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        tail = losses[-50:]
        card = {
            "family": family,
            "seed": seed,
            **asdict(config),
            "final_loss": sum(tail) / max(1, len(tail)),
        }
        (partial / "alignboard_tiny.json").write_text(
            json.dumps(card, indent=2) + "\n", encoding="utf-8"
        )
        partial.chmod(0o755)
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path
