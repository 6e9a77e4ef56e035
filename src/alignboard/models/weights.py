"""The weights of a checkpoint, of any format, as a model of transformers in memory.

What this module promises
    safetensors and ``.bin``, GPTQ and some GGUF go through transformers; ``phi-msft``, phixtral and the GGUF of Llama,
    Phi-2 and Gemma are renamed to native tensors first. No repository's own Python runs unless ``remote_code`` asks for
    it.
What it refuses
    A weight that the model needs and the checkpoint lacks (transformers draws it at random and only warns), weights of
    another shape, a format that was asked for and is not there, and options that a format does not have.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError
from alignboard.models import phi_msft
from alignboard.models.arithmetic import Arithmetic, load_options
from alignboard.models.formats import Checkpoint, not_generating
from alignboard.models.gguf.file import read_header
from alignboard.models.tokenizers import quiet
from alignboard.results.files import read_json_object

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


GPTQ_INSTALL: Final = (
    "pip install 'alignboard[gptq]', "
    "then BUILD_CUDA_EXT=0 pip install --no-deps --no-build-isolation gptqmodel==7.7.0"
)


def open_model(checkpoint: Checkpoint, how: Arithmetic) -> PreTrainedModel:
    """The model, in evaluation mode, its weights frozen; raises `InputError` for files that cannot be read or fit."""
    from safetensors import SafetensorError

    if how.quantization is not None and checkpoint.format in {"gptq", "gguf"}:
        raise InputError(
            f"{checkpoint.place} is quantised already ({checkpoint.format}); load it without quantization."
        )
    _require_generation_config(checkpoint)
    openers = {
        "gguf": _open_gguf,
        "gptq": _open_native,
        "phi-msft": _open_phi_msft,
        "phixtral": _open_phi_msft,
        "transformers": _open_native,
    }
    try:
        model = openers[checkpoint.format](checkpoint, how)
    except (OSError, SafetensorError, UnpicklingError) as error:
        raise InputError(
            f"{checkpoint.place}: its files cannot be read; copy or download them again "
            f"({' '.join(str(error).split())})."
        ) from error
    except ImportError as error:
        raise InputError(
            f"{checkpoint.place} needs another package to be loaded ({' '.join(str(error).split())})."
        ) from error
    model.eval().requires_grad_(requires_grad=False)
    _keep_four_bit_layout(model)
    return model


def _require_generation_config(checkpoint: Checkpoint) -> None:
    """Raise `InputError` for a generation_config.json that transformers does not take, before weights are read."""
    from transformers import GenerationConfig

    path = checkpoint.path / "generation_config.json"
    if checkpoint.gguf_file is not None or not path.is_file():
        return
    try:
        GenerationConfig.from_pretrained(checkpoint.path)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path} is no generation configuration ({' '.join(str(error).split())}); correct or remove the field."
        ) from error


def _keep_four_bit_layout(model: Any) -> None:
    """Compute 4-bit layers in their own type on every processor.

    On processors with AVX512-BF16, bitsandbytes repacks a layer in its first forward pass and computes in bfloat16
    from then on, until something (such as PEFT's layer around it) undoes that: the same model gave two answers.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _open_native(checkpoint: Checkpoint, how: Arithmetic) -> PreTrainedModel:
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    path = checkpoint.path
    _require_known(checkpoint, remote_code=how.remote_code)
    if (other := not_generating(checkpoint.config)) is not None:
        raise InputError(
            f"{path} is a {other}, which is no causal language model; where it is one, config.json has to name its "
            "class under architectures."
        )
    config = AutoConfig.from_pretrained(path, trust_remote_code=how.remote_code)
    opener, kind = AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None and getattr(config, "is_encoder_decoder", False) is False:
        # A model that also sees (Mistral 3, Qwen2.5-VL) reads texts like any other.
        opener, kind = (
            AutoModelForImageTextToText,
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None),
        )
    if kind is None:
        opener = AutoModelForCausalLM
        if not how.remote_code:
            raise InputError(f"{path} is a {config.model_type}, which is no causal language model.")
    if checkpoint.format == "gptq":
        missing = [name for name in ("optimum", "gptqmodel") if find_spec(name) is None]
        if missing:
            raise InputError(f"{path} is GPTQ and needs {' and '.join(missing)}: {GPTQ_INSTALL}.")
        if not hasattr(config, "quantization_config"):
            own = read_json_object(path / "quantize_config.json")
            config.quantization_config = {**own, "quant_method": "gptq"}
    options = load_options(how, kind)
    return _loaded(
        opener,
        checkpoint,
        {"config": config, "trust_remote_code": how.remote_code, **options},
        path,
    )


def _open_gguf(checkpoint: Checkpoint, how: Arithmetic) -> PreTrainedModel:
    """The model in a GGUF file or in its parts, the weights dequantised.

    Mistral's files say ``llama``, and are loaded as that: the same but for the sliding window of 4,096 tokens that
    Mistral 0.1 has, which llama.cpp does not record.
    """
    import torch
    from transformers import (
        CONFIG_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
    )

    from alignboard.models.gguf import reader as gguf_reader

    gguf_reader.require_package(checkpoint.place)
    header = read_header(checkpoint.place)
    if header.architecture in gguf_reader.OWN:
        found = gguf_reader.read(header, getattr(torch, how.dtype))
        own = CONFIG_MAPPING[found.model_type](**found.config)
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(own)]
        return _from_tensors(kind, own, found.tensors, checkpoint, how)
    name, path = {"gguf_file": checkpoint.gguf_file}, checkpoint.path
    try:
        with gguf_reader.joined(checkpoint.place):
            config = AutoConfig.from_pretrained(path, **name)
            options = load_options(how, MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None))
            options = {"config": config, **name, **options}
            model = _loaded(AutoModelForCausalLM, checkpoint, options, path)
    except ValueError as error:
        raise InputError(
            f"{checkpoint.place} cannot be loaded ({' '.join(str(error).split())}); serve it by llama.cpp and name the "
            "server as an endpoint."
        ) from error
    if (ends := checkpoint.config.get("eos_token_id")) is not None:
        model.generation_config.eos_token_id = ends
    return model


def _open_phi_msft(checkpoint: Checkpoint, how: Arithmetic) -> PreTrainedModel:
    from transformers import PhiConfig, PhiForCausalLM

    tensors = phi_msft.read_tensors(checkpoint.path)
    words = tensors.get("transformer.embd.wte.weight")
    if words is None:
        raise InputError(
            f"{checkpoint.path} says phi-msft, but its weights hold no transformer.embd.wte.weight."
        )
    content = phi_msft.translate_config(checkpoint.config, words.shape[0], checkpoint.path)
    tensors = phi_msft.rename(tensors, content, checkpoint.path)
    kind: Any = PhiForCausalLM
    if checkpoint.format == "phixtral":
        from alignboard.models.phixtral import PhixtralForCausalLM

        kind = PhixtralForCausalLM
    return _from_tensors(kind, PhiConfig(**content), tensors, checkpoint, how)


def _from_tensors(
    kind: Any,
    config: Any,
    tensors: Mapping[str, torch.Tensor],
    checkpoint: Checkpoint,
    how: Arithmetic,
) -> PreTrainedModel:
    """A model of the class ``kind`` that takes every one of ``tensors`` and needs no other."""
    from transformers import GenerationConfig

    options = {"config": config, "state_dict": dict(tensors), **load_options(how, kind)}
    model = _loaded(kind, checkpoint, options, None)
    if (checkpoint.path / "generation_config.json").is_file() and checkpoint.gguf_file is None:
        model.generation_config = GenerationConfig.from_pretrained(checkpoint.path)
    return model


def _loaded(
    kind: Any, checkpoint: Checkpoint, options: dict[str, Any], path: Path | None
) -> PreTrainedModel:
    """``kind.from_pretrained``, where a weight that is missing or has another shape is an error, not a warning."""
    with quiet():
        model, report = kind.from_pretrained(
            path, **options, output_loading_info=True, ignore_mismatched_sizes=True
        )
    for what in ("missing_keys", "mismatched_keys", *(() if path else ("unexpected_keys",))):
        if wrong := sorted(map(str, report[what])):
            raise InputError(
                f"{checkpoint.place} does not fit {type(model).__name__}: {len(wrong)} "
                f"{what.replace('_', ' ')}, such as {wrong[0]}."
            )
    return model


def _require_known(checkpoint: Checkpoint, *, remote_code: bool) -> None:
    from transformers import CONFIG_MAPPING

    kind = checkpoint.config.get("model_type")
    if kind in CONFIG_MAPPING or remote_code:
        return
    if "auto_map" in checkpoint.config:
        raise InputError(
            f"{checkpoint.path} is a {kind}, which transformers does not have, and brings Python of its own to run; "
            "read that, then ask for it with trust_remote_code."
        )
    raise InputError(
        f"{checkpoint.path}: config.json says model_type {kind!r}, which transformers does not have."
    )
