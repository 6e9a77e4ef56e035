"""`export_adapter`: an adapter merged into its base, as a checkpoint that is proven to be the same model.

The merged checkpoint is written, loaded anew, and compared with the adapter on its base: an export that is not the
adapter is no export. An adapter that was trained on a base in few bits has two truths. It is merged into the original
weights, to which it is then equal; how far that is from the quantised base that it was trained on is measured and said.

Heavy: imports torch and transformers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from alignboard.errors import InputError
from alignboard.models.adapters import stated_base
from alignboard.models.arithmetic import QLORA, Dtype, Quantization
from alignboard.models.loading import LoadedModel
from alignboard.results.files import read_json_object
from alignboard.training.card import card_text
from alignboard.training.checks.preflight import SAVED
from alignboard.workspace import CARD

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_PROBES: Final = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Translate into German: good morning, my friend.",
    "List three uses of a paper clip.",
    "What is 17 times 23?",
    "Summarise the plot of Romeo and Juliet in one sentence.",
    "Give me advice on learning to play the piano.",
)
_ROUNDED: Final = 3e-2
"""of the largest logit: how far rounding of merged weights to 16 bits may take one"""


@dataclass(frozen=True)
class Agreement:
    """How far two models are from each other on `_PROBES`."""

    largest_difference: float
    """of a logit"""
    kl: float
    """nats per token, of the merged model from the adapter"""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares."""

    adapter: str
    base: str
    folder: str
    dtype: str
    on_original: Agreement
    """with the adapter on the original weights: equal up to rounding, or there is no export"""
    on_quantised: Agreement | None
    """with the adapter on the quantised base that it was trained on; None where it was trained on the original, or
    where bitsandbytes is not here"""
    trained_in_bits: int | None

    def lines(self) -> list[str]:
        """What a person reads."""
        found = [f"{self.folder}: {self.adapter} merged into {self.base} ({self.dtype})"]
        found.append(f"  with the adapter on the original weights: {_text(self.on_original)}")
        if self.on_quantised is not None:
            found.append(
                f"  with the adapter on the base in {self.trained_in_bits} bits, as it was trained: "
                f"{_text(self.on_quantised)}; that model is another one"
            )
        elif self.trained_in_bits is not None:
            found.append(
                f"  it was trained on the base in {self.trained_in_bits} bits, which needs bitsandbytes to compare with"
            )
        return found


def _text(one: Agreement) -> str:
    return f"largest difference of a logit {one.largest_difference:.3g}, KL {one.kl:.3g} nats per token"


def export_adapter(
    adapter: str | Path,
    to: str | Path,
    *,
    base: str | None = None,
    dtype: Dtype = "auto",
    results: Sequence[EvalResult] = (),
) -> ExportReport:
    """Merge ``adapter`` into its base and write a checkpoint to the new folder ``to``.

    Parameters
    ----------
    adapter
        a PEFT adapter's folder.
    to
        a new folder; it appears only when the merged model was loaded from it and found equal.
    base
        the base model; None: the one that the adapter names.
    dtype
        of the merged weights.
    results
        scores of boards, for the ``model-index`` of its card.

    Raises
    ------
    InputError
        names the folder and what is wrong: no adapter, another base, a merged model that is not the adapter.
    """
    adapter, to = Path(adapter), Path(to)
    if to.exists():
        raise InputError(f"{to} exists; an export is only written to a new folder.")
    config = adapter / "adapter_config.json"
    if not config.is_file():
        raise InputError(f"{adapter} is no adapter: it holds no adapter_config.json.")
    named = base or stated_base(adapter)
    if not named:
        raise InputError(f"{adapter} names no base model; give it (--base).")
    loaded = LoadedModel.load(named, dtype=dtype)
    loaded.add_adapter("adapter", adapter)
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        with loaded.using("adapter"):
            words = loaded.tokenizer
            ids = _ids(words, loaded.chat_template)
            before = _logits(loaded.model, ids)
        model: Any = loaded.model
        model.set_adapter("adapter")
        model.merge_and_unload(safe_merge=True).save_pretrained(partial / "made")
        words.save_pretrained(partial / "made")
        merged = _logits(LoadedModel.load(partial / "made", dtype=dtype).model, ids)
        same = _agreement(before, merged)
        _require_same(same, before, loaded.dtype, adapter)
        bits = _trained_in_bits(adapter)
        quantised = _on_quantised(named, adapter, bits, ids, merged)
        report = ExportReport(str(adapter), named, str(to), loaded.dtype, same, quantised, bits)
        _write_card(partial / "made", adapter, report, results)
        (partial / "made").replace(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _ids(tokenizer: Any, template: str) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )["input_ids"]
        for text in _PROBES
    ]


@torch.no_grad()
def _logits(model: Any, ids: list[list[int]]) -> torch.Tensor:
    """Of every token of every probe, (tokens, vocabulary), on the CPU."""
    model.eval()
    rows = [model(torch.tensor([one], device=model.device)).logits[0].float().cpu() for one in ids]
    return torch.cat(rows)


def _agreement(adapter: torch.Tensor, merged: torch.Tensor) -> Agreement:
    p, q = adapter.log_softmax(-1), merged.log_softmax(-1)
    kl = float((p.exp() * (p - q)).sum(-1).mean())
    return Agreement(float((adapter - merged).abs().max()), max(0.0, kl))


def _require_same(found: Agreement, logits: torch.Tensor, dtype: str, adapter: Path) -> None:
    allowed = (SAVED if dtype == "float32" else _ROUNDED) * max(1.0, float(logits.abs().max()))
    if not found.largest_difference <= allowed:
        raise InputError(
            f"{adapter}: the merged model is not the adapter on its base ({_text(found)}); nothing was written. "
            "Export it with --dtype float32."
        )


def _trained_in_bits(adapter: Path) -> int | None:
    """How many bits a weight of the base had in training, as the adapter's card says."""
    card = adapter / CARD
    recipe = read_json_object(card).get("recipe") if card.is_file() else None
    quantization = recipe.get("quantization") if isinstance(recipe, dict) else None
    return quantization["bits"] if isinstance(quantization, dict) else None


def _on_quantised(
    base: str, adapter: Path, bits: int | None, ids: list[list[int]], merged: torch.Tensor
) -> Agreement | None:
    if bits is None or find_spec("bitsandbytes") is None:
        return None
    how: Quantization = "4bit" if bits == 4 else "8bit"
    loaded = LoadedModel.load(base, quantization=how, four_bit=QLORA)
    loaded.add_adapter("adapter", adapter)
    with loaded.using("adapter"):
        return _agreement(_logits(loaded.model, ids), merged)


def _write_card(
    folder: Path, adapter: Path, report: ExportReport, results: Sequence[EvalResult]
) -> None:
    """The model's card: what it is, how it was trained, the proof of the export, and what boards say of the adapter."""
    training = read_json_object(adapter / CARD) if (adapter / CARD).is_file() else {}
    lines = ["Merged by `alignboard export`.", "", *(line.strip() for line in report.lines())]
    text = card_text(
        Path(report.folder).name,
        training,
        base=report.base,
        library="transformers",
        lines=lines,
        results=results,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "export.json").write_text(
        json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8"
    )
