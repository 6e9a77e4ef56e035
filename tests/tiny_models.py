"""Tiny checkpoints and adapters for tests: built once per session, hardly trained, with adapters of random weights."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch

from alignboard.demo import tiny


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="alignboard-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def base(family: str = "phi") -> Path:
    """A checkpoint that has begun to speak: every answer ends, few are right."""
    return _base(family)


@functools.cache
def _base(family: str) -> Path:
    config = tiny.PretrainConfig(steps=60, n_documents=2000)
    return tiny.build(family, _folder() / family, seed=0, config=config)


def adapters(family: str = "phi") -> dict[str, Path]:
    """Two LoRA adapters that change what the model says."""
    return dict(_adapters(family))


@functools.cache
def _adapters(family: str) -> dict[str, Path]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = {}
    for number, name in enumerate(("one", "two")):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(base(family), dtype=torch.float32)
        config = LoraConfig(
            r=4,
            target_modules=["q_proj", "k_proj", "v_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        found[name] = _folder() / f"{family}-{name}"
        get_peft_model(model, config).save_pretrained(str(found[name]))
    return found


@functools.cache
def reward(family: str = "llama") -> Path:
    """A reward model of random weights on a base."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base(family), num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    folder = _folder() / f"{family}-reward"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base(family)).save_pretrained(folder)
    return folder
