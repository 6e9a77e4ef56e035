"""TRL's DPO trainer with our losses: all paired methods run through `PreferenceTrainer`.

It relies on internals of TRL 1.16 (`fused_lm_head`, `.log_probs`, batches laid out as [chosen; rejected]);
test_losses holds it to TRL's own values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from datasets import Dataset
from peft import PeftModel
from pyarrow.compute import call_function
from torch.utils.data import DataLoader
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from alignboard.training.losses import PairLogps
from alignboard.training.methods import LossSpec, Value

CHOSEN: Final = "ref_chosen_logps"
REJECTED: Final = "ref_rejected_logps"
"""TRL's names for the columns of the reference"""


class PreferenceTrainer(DPOTrainer):
    """TRL's DPO trainer with one of our losses in place of its own."""

    def __init__(
        self, *args: Any, loss: LossSpec, settings: Mapping[str, Value], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        _without_needless_reference(self.model)
        policy: Any = self.model
        # TRL has its head compute entropies, mean logits and ranks, too, for metrics that are not logged here.
        bare: Any = policy.get_base_model() if isinstance(policy, PeftModel) else policy
        add_fused_lm_head(bare)
        train_dataset: Any = self.train_dataset
        self.precompute_ref_logps = CHOSEN in train_dataset.column_names
        self._function, self._uses_reference = loss.load(), loss.uses_reference
        self._settings, self._beta = dict(settings), float(settings.get("beta", 1.0))

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        """Leave out rows whose prompt fills max_length; rows that are no tokens yet are TRL's to prepare."""
        if "prompt_ids" not in dataset.column_names:
            return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        prompts = dataset.with_format("arrow")["prompt_ids"]
        lengths = call_function("list_value_length", [prompts]).to_numpy()
        kept = (lengths < args.max_length).nonzero()[0]
        return dataset if len(kept) == len(dataset) else dataset.select(kept)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:  # noqa: ARG002 - TRL's
        """Leave the rows as they are: their reference is in them, or about to be computed (`reference`)."""
        return dataset

    @torch.no_grad()
    def reference(self, rows: Dataset, batch_size: int) -> tuple[list[float], list[float]]:
        """The reference's log-probabilities of chosen and rejected replies, in the order of ``rows``."""
        chosen, rejected = list[float](), list[float]()
        model: Any = self.ref_model or self.model
        model.eval()
        collate: Any = self.data_collator
        for batch in DataLoader(rows, batch_size=batch_size, collate_fn=collate):  # pyright: ignore[reportArgumentType]
            here = {name: value.to(model.device) for name, value in batch.items()}
            won, lost = self.compute_ref_log_probs(model, here)
            chosen += won.tolist()
            rejected += lost.tolist()
        return chosen, rejected

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:  # noqa: FBT001 - TRL's
        mask = inputs["completion_mask"]  # (2 pairs, length), chosen first
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["input_ids"].masked_fill(mask == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        )
        # log_probs are per predicted token and zero where the label is -100, so the sum is the completion's.
        chosen, rejected = outputs.log_probs[:, 1 - mask.shape[1] :].sum(dim=1).chunk(2)
        chosen_tokens, rejected_tokens = mask.sum(dim=1).chunk(2)
        reference = (None, None)
        if self._uses_reference:
            reference = (
                (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
                if self.precompute_ref_logps
                else self.compute_ref_log_probs(self.ref_model or self.model, inputs)
            )
        logps = PairLogps(chosen, rejected, chosen_tokens, rejected_tokens, *reference)
        self._log_pairs(logps)
        loss = self._function(logps, **self._settings).mean()
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _log_pairs(self, logps: PairLogps) -> None:
        """Implicit rewards as TRL logs them; without a reference, beta times the mean log-probability (SimPO)."""
        if logps.ref_chosen is not None and logps.ref_rejected is not None:
            won, lost = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
        else:
            won, lost = logps.chosen / logps.chosen_tokens, logps.rejected / logps.rejected_tokens
        won, lost = self._beta * won, self._beta * lost
        model: Any = self.model
        accelerator: Any = self.accelerator
        metrics = self._metrics["train" if model.training else "eval"]
        for name, value in (
            ("rewards/chosen", won),
            ("rewards/rejected", lost),
            ("rewards/margins", won - lost),
            ("rewards/accuracies", (won > lost).float()),
            ("logps/chosen", logps.chosen),
            ("logps/rejected", logps.rejected),
        ):
            metrics[name].append(accelerator.gather(value).mean().item())


def _without_needless_reference(model: Any) -> None:
    """Remove TRL's copy of an adapter that starts at zero: its reference is the base, with adapters switched off."""
    if "ref" not in getattr(model, "peft_config", {}):
        return
    factors = (weight for name, weight in model.named_parameters() if ".lora_B.default" in name)
    if not any(bool(weight.any()) for weight in factors):
        model.delete_adapter("ref")
