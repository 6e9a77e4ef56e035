"""A tokenizer that loses nothing: one token per byte, and whatever control tokens a family has."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def build(
    bos: str | None = "<s>",
    eos: str | None = "</s>",
    *,
    special: tuple[str, ...] = (),
    ordinary: tuple[str, ...] = (),
    adds_bos: bool = True,
    template: str | None = None,
) -> Any:
    """``special`` are control tokens; ``ordinary`` are added, too, but not marked as special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token) for token in {bos, eos, *special} if token])
    core.add_tokens([AddedToken(token, normalized=False) for token in ordinary])
    if adds_bos and bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token=eos, chat_template=template
    )


LLAMA: dict[str, Any] = {"bos": "<s>", "eos": "</s>"}
PHI: dict[str, Any] = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "adds_bos": False}
GEMMA: dict[str, Any] = {
    "bos": "<bos>",
    "eos": "<eos>",
    "special": ("<start_of_turn>", "<end_of_turn>"),
}
DOLPHIN: dict[str, Any] = {**LLAMA, "ordinary": ("<|im_start|>", "<|im_end|>")}
DOLPHIN_PHI: dict[str, Any] = {**PHI, "ordinary": ("<|im_start|>", "<|im_end|>", "  ", "    ")}
