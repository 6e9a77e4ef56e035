"""How a model computes: type of numbers, device, quantisation by bitsandbytes, implementation of attention.

What this module promises
    ``auto`` becomes a decision here and nowhere else, and every decision can be read afterwards (`LoadedModel.dtype`,
    `LoadedModel.attention`).

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal, get_args

from alignboard.errors import InputError, nearest

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["4bit", "8bit"]
Attention = Literal["auto", "flash_attention_2", "sdpa", "eager"]

FourBit = tuple[Literal["nf4", "fp4"], bool]
"""(type of a 4-bit number, whether the scales are quantised, too)"""

QLORA: Final[FourBit] = ("nf4", True)
ATTENTIONS: Final[tuple[Attention, ...]] = get_args(Attention)


@dataclass(frozen=True)
class Arithmetic:
    """How a model computes, everything decided but the attention, which depends on the model's class."""

    dtype: str
    device: str
    quantization: Quantization | None = None
    four_bit: FourBit = QLORA
    attention: Attention = "auto"
    remote_code: bool = False
    """whether the checkpoint's own Python may run"""


def choose_device(device: str) -> str:
    """``auto`` is the first CUDA device, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(dtype: Dtype, device: str, config: Mapping[str, Any]) -> str:
    """``auto`` is float32 on the CPU; on a GPU the type that ``config`` states, with bfloat16 in place of float16.

    The attention of Phi-2 and the activations of Gemma overflow in float16. A GGUF file states no type: bfloat16.
    """
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    if not config:
        return "bfloat16"
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return "bfloat16" if stored == "float16" else stored


def load_options(how: Arithmetic, kind: Any) -> dict[str, Any]:
    """The arguments of ``from_pretrained``; ``kind`` is the model's class, where it is known beforehand."""
    import torch

    dtype = getattr(torch, how.dtype)
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": how.device}}
    if how.quantization is not None:
        options["quantization_config"] = _bitsandbytes(how, dtype, kind)
    attention = choose_attention(how, kind)
    return options if attention is None else {**options, "attn_implementation": attention}


def choose_attention(how: Arithmetic, kind: Any) -> str | None:
    """What is asked of transformers, or None for its own choice: sdpa where the model has it, else eager.

    ``auto`` takes flash-attention 2 where the package is installed, the model's class has it, and the arithmetic is
    one that it has kernels for: half precision on a CUDA device. Raises `InputError` for what cannot be had.
    """
    from transformers.utils.import_utils import is_flash_attn_2_available

    if how.attention not in ATTENTIONS:
        hint = nearest(how.attention, ATTENTIONS) or f"; choose one of {', '.join(ATTENTIONS)}."
        raise InputError(f"There is no attention {how.attention!r}{hint}")
    flash = (
        how.device.startswith("cuda")
        and how.dtype in {"bfloat16", "float16"}
        and is_flash_attn_2_available()
    )
    if how.attention == "auto":
        return (
            "flash_attention_2" if flash and getattr(kind, "_supports_flash_attn", False) else None
        )
    if how.attention == "flash_attention_2" and not flash:
        raise InputError(
            "flash_attention_2 needs the package flash-attn, a CUDA device, and bfloat16 or float16; choose auto."
        )
    flag = {"flash_attention_2": "_supports_flash_attn", "sdpa": "_supports_sdpa"}
    if how.attention in flag and not getattr(kind, flag[how.attention], True):
        raise InputError(f"{kind.__name__} has no attention {how.attention!r}; choose auto.")
    return how.attention


def _bitsandbytes(how: Arithmetic, compute: Any, kind: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"Loading in {how.quantization} needs bitsandbytes: pip install bitsandbytes, or take none."
        )
    kept = list(getattr(kind, "unquantized", ())) or None
    if how.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=how.four_bit[0],
        bnb_4bit_use_double_quant=how.four_bit[1],
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )
