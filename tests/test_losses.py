"""The preference losses: closed forms, invariants, and TRL's own values through its trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from alignboard.train.losses import (  # noqa: E402 - after the check for torch
    LOSSES,
    LossSettings,
    PairLogps,
    dpo,
    ipo,
    loss_at_start,
    simpo,
)


def pair(
    chosen: float, rejected: float, ref_chosen: float = -5.0, ref_rejected: float = -6.0
) -> PairLogps:
    tensors = (torch.tensor([x]) for x in (chosen, rejected, 4.0, 8.0, ref_chosen, ref_rejected))
    return PairLogps(*tensors)


def test_where_policy_is_reference_the_loss_is_the_closed_form() -> None:
    logps = pair(-5.0, -6.0)
    for name, beta in (("dpo", 0.1), ("dpo", 5.0), ("ipo", 0.1), ("ipo", 0.5)):
        settings = LossSettings(beta)
        value = LOSSES[name].function(logps, settings).item()
        assert value == pytest.approx(loss_at_start(name, settings))
    assert loss_at_start("dpo", LossSettings(0.3)) == math.log(2)
    assert loss_at_start("simpo", LossSettings(2.0, 1.0)) is None


def test_dpo_by_hand() -> None:
    # h_w = 1, h_l = -2, beta = 0.5: -log sigma(1.5)
    value = dpo(pair(-4.0, -8.0), LossSettings(0.5)).item()
    assert value == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-6)
    smoothed = dpo(pair(-4.0, -8.0), LossSettings(0.5, label_smoothing=0.1)).item()
    assert smoothed == pytest.approx(
        value + 0.1 * 1.5, rel=1e-6
    )  # -log sigma(-z) = z - log sigma(z)


def test_ipo_by_hand() -> None:
    # h_w/|y_w| = 1/4, h_l/|y_l| = -2/8: gap 0.5; (0.5 - 1/(2*0.5))^2
    assert ipo(pair(-4.0, -8.0), LossSettings(0.5)).item() == pytest.approx(0.25)


def test_simpo_by_hand_and_blind_to_the_reference() -> None:
    # means -4/4 = -1 and -8/8 = -1: gap 0, so -log sigma(-gamma)
    settings = LossSettings(2.0, gamma=0.7)
    value = simpo(pair(-4.0, -8.0), settings).item()
    assert value == pytest.approx(math.log(1 + math.exp(0.7)), rel=1e-6)
    assert simpo(pair(-4.0, -8.0, -1.0, -99.0), settings).item() == value


@pytest.mark.parametrize("name", LOSSES)
def test_raising_the_chosen_lowers_the_loss(name: str) -> None:
    settings = LossSettings(0.2, gamma=0.5)
    better, worse = (LOSSES[name].function(pair(c, -8.0), settings).item() for c in (-4.0, -4.5))
    assert better < worse


def test_a_missing_reference_is_an_error() -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="reference"):
        dpo(PairLogps(x, x, x + 3, x + 3), LossSettings(0.1))


TINY_STEPS = 4


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama after a handful of steps: any weights will do here."""
    from alignboard.models import tiny

    config = tiny.PretrainConfig(steps=3, n_documents=200)
    return tiny.build(
        "llama", tmp_path_factory.mktemp("losses") / "tiny-llama", seed=0, config=config
    )


def _losses(tmp_path: Path, tiny: Path, method: str, *, own: bool) -> list[float]:
    """The losses of a few DPO steps on a fixed tiny model, by TRL's loss or by ours."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from alignboard.data import world
    from alignboard.train.pairs import Pair, preference_rows
    from alignboard.train.preference import PreferenceTrainer
    from alignboard.train.trainer import _Watch

    set_seed(0)
    base: Any = AutoModelForCausalLM.from_pretrained(tiny)
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    pairs = [
        Pair(
            p,
            f"{world.parse(p).answer}.",
            "that is easy: nothing. i hope that this helps you a lot!",
            1,
            0,
        )
        for p in world.prompts("preference", 16, seed=0)
    ]
    watch = _Watch(None, None)
    trl_name = LOSSES[method].trl_name
    assert trl_name is not None
    arguments = DPOConfig(
        output_dir=str(tmp_path / f"{method}-{own}"),
        loss_type=[trl_name],
        beta=0.1,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=8,
        max_steps=TINY_STEPS,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    given: dict[str, Any] = {
        "model": model,
        "args": arguments,
        "train_dataset": Dataset.from_list(preference_rows(pairs)),
        "processing_class": AutoTokenizer.from_pretrained(tiny),
        "callbacks": [watch],
    }
    trainer = (
        PreferenceTrainer(**given, loss=LOSSES[method], settings=LossSettings(0.1))
        if own
        else DPOTrainer(**given)
    )
    trainer.train()
    return watch.losses


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "ipo"])
def test_parity_with_trl_over_optimiser_steps(
    tmp_path: Path, tiny_llama: Path, method: str
) -> None:
    theirs = _losses(tmp_path, tiny_llama, method, own=False)
    ours = _losses(tmp_path, tiny_llama, method, own=True)
    assert len(theirs) == TINY_STEPS
    assert theirs[0] == pytest.approx(loss_at_start(method, LossSettings(0.1)), rel=1e-5)
    assert theirs[-1] < theirs[0]
    assert ours == pytest.approx(theirs, rel=1e-5)
