"""Recipes, pairs, preflight checks, and training through TRL on tiny checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignboard.demo import world
from alignboard.demo.simulated import rule_score
from alignboard.errors import InputError
from alignboard.training.checks import preflight
from alignboard.training.pairs import PreferencePair, preference_rows, west_of_n
from alignboard.training.recipe import Recipe, load_recipe, parse_recipe
from alignboard.training.sections import RecipeError

LIBRARY = Path(__file__).parents[2] / "train"
DEMO = sorted(LIBRARY.glob("demo/*.yaml"))
FULL = sorted(LIBRARY.glob("*/*-full.yaml"))
REAL = [*sorted(LIBRARY.glob("*/*-qlora.yaml")), *FULL]
METHODS = ("cpo", "dpo", "ipo", "kto", "orpo", "sft", "simpo")
FAMILY_OF = {
    "phi-2": "phi", "mistral-7b": "mistral", "gemma-2b": "gemma", "gemma-7b": "gemma", "llama-2-7b": "llama",
}  # fmt: skip


def content(name: str = "demo/dpo") -> dict[str, Any]:
    return yaml.safe_load((LIBRARY / f"{name}.yaml").read_text())


# Recipes


def test_the_library_is_there() -> None:
    assert [p.stem for p in DEMO] == ["dpo", "ipo", "sft", "simpo"]
    made = {(p.parent.name, p.stem) for p in REAL}
    expected = {(family, f"{method}-qlora") for family in FAMILY_OF for method in METHODS}
    assert made == expected | {("mistral-7b", "sft-full"), ("mistral-7b", "dpo-full")}
    assert [p.stem for p in FULL] == ["dpo-full", "sft-full"]
    assert not list(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", [*DEMO, *REAL], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_recipe_loads_and_starts_from_one_that_exists(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.method == path.stem.removesuffix("-qlora").removesuffix("-full")
    assert (recipe.method in {"sft", "orpo"}) == (recipe.start_from is None)
    if recipe.start_from is not None:
        start = load_recipe(LIBRARY / f"{recipe.start_from}.yaml")
        assert start.method == "sft"
        assert start.chat_template == recipe.chat_template
        assert start.is_full == recipe.is_full
        if not recipe.is_full:
            assert start.adapter.r <= recipe.adapter.r
            assert start.adapter.target_modules == recipe.adapter.target_modules


@pytest.mark.parametrize("path", REAL, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_number_of_a_real_recipe_says_where_it_is_from(path: Path) -> None:
    lines = path.read_text().split("chat_template:")[0].splitlines()
    numbers = [
        x
        for x in lines
        if not x.startswith("#") and any(c.isdigit() for c in x.split("#")[0].split(":", 1)[-1])
    ]
    assert len(numbers) >= (6 if path in FULL else 10)
    assert (
        "Differs from the published run" in path.read_text()
        or "No published run" in path.read_text()
    )
    unsourced = [
        x for x in numbers if "#" not in x and not x.lstrip().startswith(("model:", "name:"))
    ]
    assert unsourced == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metod": "dpo"}, "x.yaml: a recipe has no field 'metod', did you mean 'method'"),
        (
            {"batch": {"global": 32, "per_device": 4, "globel": 2}},
            "a recipe has no field 'batch.globel', did you mean 'global'?",
        ),
        ({"optimizer": {"learning_rat": 1e-3}}, "did you mean 'learning_rate'?"),
        ({"optimizer": {"learning_rate": "fast"}}, "at `$.optimizer.learning_rate`"),
        ({"optimizer": {"learning_rate": -1.0}}, "> 0.0"),
        ({"optimizer": {"learning_rate": float("nan")}}, "$.optimizer.learning_rate"),
        ({"method": "dqo"}, "there is no method 'dqo', did you mean 'dpo'"),
        ({"loss": None}, "method dpo needs a loss section, with beta"),
        ({"loss": {}}, "loss: method dpo needs 'beta'."),
        ({"loss": {"beta": 0.0}}, "loss.beta: a number > 0 was expected, not 0.0."),
        ({"loss": {"beta": 0.1, "gamma": 1.0}}, "loss: method dpo has no parameter 'gamma'"),
        ({"loss": {"beta": 0.1, "alpha": 0.5}}, "loss.alpha has an effect only with"),
        ({"loss": {"beta": 0.1, "divergence": "kl"}}, "loss.divergence: one of reverse_kl"),
        ({"method": "simpo"}, "loss: method simpo needs 'gamma'"),
        (
            {"method": "ipo", "loss": {"beta": 0.1, "label_smoothing": 0.1}},
            "loss: method ipo has no parameter 'label_smoothing'",
        ),
        (
            {"method": "hinge", "loss": {"beta": 0.1, "label_smoothing": 0.1}},
            "loss: method hinge has no parameter 'label_smoothing'",
        ),
        ({"method": "sft"}, "pairs are for preference methods"),
        ({"method": "sft", "pairs": None}, "method sft takes no loss section"),
        ({"duration": {"steps": 3, "epochs": 1}}, "exactly one of epochs and steps"),
        ({"duration": {}}, "exactly one of epochs and steps"),
        ({"lora": {"r": 8, "alpha": 8, "target_modules": []}}, "lora.target_modules"),
        ({"quantization": {"bits": 3}}, "quantization.bits"),
    ],
)
def test_a_wrong_recipe_is_one_clear_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_recipe({**content(), **change}, "x.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("x.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["push_to_hub", "hub_model_id", "attn_implementation"])
def test_a_key_that_is_near_nothing_gets_no_hint(key: str) -> None:
    with pytest.raises(InputError, match=rf"no field '{key}'\.$"):
        parse_recipe({**content(), key: 1}, "x.yaml")


def test_a_recipe_reads_back_what_it_says_of_itself() -> None:
    recipe = parse_recipe({**content(), "loss": {"beta": 0.1, "divergence": "js_divergence"}}, "x")
    again = {**recipe.identity(), "batch": {"global": 32, "per_device": 8}}
    assert parse_recipe(again, "y").key() == recipe.key()


def test_a_learning_rate_may_be_written_without_a_point(tmp_path: Path) -> None:
    text = (LIBRARY / "demo/dpo.yaml").read_text().replace("0.001", "5e-7")
    assert "5e-7" in text
    (tmp_path / "r.yaml").write_text(text)
    assert load_recipe(tmp_path / "r.yaml").optimizer.learning_rate == 5e-7


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_files_that_are_no_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(InputError, match=r"missing\.yaml"):
        load_recipe(tmp_path / "missing.yaml")


def test_the_key_is_the_content_and_not_the_layout_of_the_batch() -> None:
    base = content()
    key = parse_recipe(base, "a").key()
    assert parse_recipe(dict(reversed(base.items())), "b").key() == key
    assert parse_recipe({**base, "batch": {"global": 32, "per_device": 8}}, "c").key() == key
    assert parse_recipe({**base, "loss": {"beta": 0.2}}, "d").key() != key


def test_the_global_batch_is_divided_or_refused() -> None:
    batch = parse_recipe({**content(), "batch": {"global": 64, "per_device": 4}}, "x").batch
    assert [batch.accumulation(n) for n in (1, 2, 16)] == [16, 8, 1]
    for devices in (3, 32):
        with pytest.raises(RecipeError, match="not a multiple"):
            batch.accumulation(devices)


# Pairs


def test_west_of_n_takes_best_and_worst_and_drops_ties() -> None:
    instruction = "translate into french: dog cat."
    outputs = ["hund.", "that is easy: chien chat.", "chien chat.", "chat."]
    (pair,) = west_of_n([instruction], [outputs], rule_score)
    assert (pair.chosen, pair.rejected) == ("chien chat.", "hund.")
    assert (pair.score_chosen, pair.score_rejected) == (1.5, 0.0)
    assert west_of_n([instruction], [["chat.", "hund."]], rule_score) == []
    with pytest.raises(ValueError, match="zip"):
        west_of_n([instruction], [], rule_score)


# Preflight

FACTS = preflight.TokenFacts(bos=1, adds_bos=True, ends=frozenset({2}))
Row = preflight.TokenRow


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row([1, 1, 5, 2], [False, False, True, True])], "begins with 2 beginning-of-text"),
        ([Row([5, 6, 2], [False, True, True])], "no beginning-of-text"),
        ([Row([1, 5, 2], [False, False, False])], "no trained token"),
        ([Row([1, 5, 6], [False, True, True])], "trains no end token"),
        ([Row([1, 5, 2], [False, True, False])], "trains no end token"),
        ([Row([1, 5, 6], [False, True, True], truncated=True)], "cut off before their end"),
        ([], "no training rows are left"),
    ],
)
def test_bad_rows_are_named(rows: list[preflight.TokenRow], message: str) -> None:
    with pytest.raises(preflight.PreflightError, match=message):
        preflight.check_rows(rows, FACTS)


def test_bos_is_judged_where_a_row_begins() -> None:
    # SmolLM2 writes its BOS, <|im_start|>, at every turn; Llama 2 at every exchange.
    by_turn = Row([1, 5, 2, 1, 6, 2], [False, False, False, False, True, True])
    assert preflight.check_rows([by_turn], FACTS) == 1


def test_one_side_that_is_always_cut_is_refused() -> None:
    rows = [
        Row([1, 5, 6], [False, True, True], truncated=True, side="chosen"),
        Row([1, 5, 2], [False, True, True], side="rejected"),
    ]
    with pytest.raises(preflight.PreflightError, match=r"all of the 1 chosen replies .* are cut"):
        preflight.check_rows(rows, FACTS)


def stepped(kept: bool, gradients: Sequence[Mapping[str, float | None]]) -> None:
    """Steps of a model of two matrices with these gradients, which are there before each step where they are kept."""
    from types import SimpleNamespace

    import torch

    from alignboard.training.checks.reached import Reached

    matrices = {name: torch.nn.Parameter(torch.ones(2)) for name in ("q.lora_B", "v.lora_B")}
    model, reached = SimpleNamespace(named_parameters=matrices.items), Reached()
    for step, of in enumerate(gradients):
        state = SimpleNamespace(global_step=step)
        if step == 0:
            reached.on_train_begin(None, state, None, model=model)
        given = [(matrices[name], value) for name, value in of.items() if value is not None]
        losses = [matrix.sum() * value for matrix, value in given]
        torch.stack(losses).sum().backward()
        for matrix in [] if kept else matrices.values():
            matrix.grad = None
        reached.on_pre_optimizer_step(None, state, None)
        for matrix in matrices.values():
            matrix.grad = None


@pytest.mark.parametrize("kept", [True, False])
def test_a_matrix_without_gradient_is_named(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed keeps no gradient until the trainer's step: there they are looked at as they come."""
    pytest.importorskip("trl")
    if not kept:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    stepped(kept, [{"q.lora_B": 1.0, "v.lora_B": 0.0}] * 3 + [{"v.lora_B": 1.0}] * 2)
    with pytest.raises(preflight.PreflightError, match=r"1 matrices .* 1 steps, .* v\.lora_B"):
        stepped(kept, [{"q.lora_B": 1.0, "v.lora_B": None}])
    # A gradient of zero is as bad as none.
    with pytest.raises(preflight.PreflightError, match=r"1 matrices .* 5 steps, .* v\.lora_B"):
        stepped(kept, [{"q.lora_B": 1.0, "v.lora_B": 0.0}] * 5)
    # Where all is learnt at once, A of a fresh adapter never had one that differs from zero.
    stepped(kept, [{"q.lora_B": 1.0, "v.lora_B": 0.0}] + [{"q.lora_B": 0.0, "v.lora_B": 0.0}] * 4)


def test_good_rows_pass_and_some_may_be_cut() -> None:
    good = Row([1, 5, 2], [False, True, True])
    cut = Row([1, 5, 6], [False, True, True], truncated=True)
    assert preflight.check_rows([good, cut], FACTS) == 2
    phi_2 = preflight.TokenFacts(bos=None, adds_bos=False, ends=frozenset({2}))
    assert preflight.check_rows([Row([5, 6, 2], [False, True, True])], phi_2) == 1


@pytest.mark.parametrize(
    ("loss", "expected", "message"),
    [
        (0.71, 0.6931, "expected 0.693100"),
        (float("nan"), None, "the loss before the first step is nan"),
    ],
)
def test_a_wrong_loss_before_the_first_step_stops_the_run(
    loss: float, expected: float | None, message: str
) -> None:
    with pytest.raises(preflight.PreflightError, match=message):
        preflight.check_loss_at_start(loss, expected)
    preflight.check_loss_at_start(0.69315, 0.6931)


# Training

QuickBase = Callable[[str], Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> QuickBase:
    """Barely pretrained checkpoints, one per family: any weights will do for most checks."""
    pytest.importorskip("trl")
    from alignboard.demo import tiny

    folder = tmp_path_factory.mktemp("bases")
    config = tiny.PretrainConfig(steps=3, n_documents=200)

    def get(family: str) -> Path:
        path = folder / f"tiny-{family}"
        return path if path.exists() else tiny.build(family, path, seed=0, config=config)

    return get


def short(name: str, steps: int = 4, **changes: Any) -> Recipe:
    """A library recipe with a small global batch and a few steps."""
    few = {"batch": {"global": 8, "per_device": 4}, "duration": {"steps": steps}}
    return parse_recipe({**content(name), **few, **changes}, name)


def sft_rows(n: int = 32) -> list[dict[str, Any]]:
    return world.chat_rows(world.sft_examples(n, seed=0))


def pair_rows(n: int = 32) -> list[dict[str, Any]]:
    return preference_rows(
        [
            PreferencePair(p, f"{world.parse(p).answer}.", "that is easy: nothing.", 1, 0)
            for p in world.prompts("preference", n, 0)
        ]
    )


def rated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]


def adapter_weights(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path / "adapter_model.safetensors")


def same(a: Path, b: Path) -> bool:
    import torch

    one, two = adapter_weights(a), adapter_weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_sft_then_preferences_on_one_base(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    steps: list[int] = []
    sft = train(
        short("demo/sft"),
        base("phi"),
        sft_rows(),
        tmp_path / "sft",
        on_step=lambda step, _of, _logs: steps.append(step),
    )
    assert steps == [1, 2, 3, 4] == list(range(1, sft.steps + 1))
    assert sft.trainable_parameters > 0
    assert "[ " in sft.sample_row
    assert sft.sample_row.endswith("<eos> ]")
    for method, first in (("dpo", 0.693147), ("ipo", 25.0), ("simpo", None)):
        out = tmp_path / method
        result = train(
            short(f"demo/{method}"),
            base("phi"),
            pair_rows(),
            out,
            adapter=tmp_path / "sft",
        )
        if first is not None:
            assert result.first_loss == pytest.approx(first, rel=1e-5)
        assert result.losses[-1] < result.losses[0]
        assert result.template_digest == sft.template_digest
        # The reference's copy is not saved: one adapter, which PEFT loads by the folder's name.
        assert not [p for p in out.iterdir() if p.is_dir()]
        assert not same(out, tmp_path / "sft")
        assert json.loads((out / "training.json").read_text())["recipe_key"] == result.recipe_key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dpo", "ipo", "sft", "simpo"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(short("demo/dpo"), base("llama"), pair_rows(), tmp_path / name, seed=seed)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.slow
def test_the_layout_of_the_batch_does_not_change_the_result(
    base: QuickBase, tmp_path: Path
) -> None:
    import torch

    from alignboard.training.trainer import train

    for per_device in (8, 2):
        recipe = short("demo/dpo", batch={"global": 8, "per_device": per_device})
        train(recipe, base("llama"), pair_rows(), tmp_path / str(per_device))
    one, two = (adapter_weights(tmp_path / n) for n in ("8", "2"))
    for name, value in one.items():
        # Equal up to the order of sums, which Adam magnifies where a gradient is near zero.
        assert torch.allclose(value, two[name], atol=2e-3), name


@pytest.mark.slow
def test_a_start_of_smaller_rank_is_continued_exactly(base: QuickBase, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from alignboard.training.sections import LoraSpec
    from alignboard.training.start import with_adapter
    from alignboard.training.trainer import train

    train(short("demo/sft"), base("gemma"), sft_rows(), tmp_path / "sft")
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    plain = AutoModelForCausalLM.from_pretrained(base("gemma"))
    before = plain(ids).logits
    small = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base("gemma")), tmp_path / "sft"
    )
    targets = short("demo/sft").adapter.modules_for("gemma")
    spec = LoraSpec(r=64, alpha=16, target_modules=targets)
    big = with_adapter(AutoModelForCausalLM.from_pretrained(base("gemma")), spec, tmp_path / "sft")
    expected = small.eval()(ids).logits
    assert not torch.allclose(expected, before, atol=1e-3)
    assert torch.allclose(big.eval()(ids).logits, expected, atol=1e-4)
    with pytest.raises(RecipeError, match=r"of rank 4 cannot continue; change lora\.r"):
        with_adapter(plain, LoraSpec(r=4, alpha=4, target_modules=targets), tmp_path / "sft")


SMOL = (
    "{% for m in messages %}{{ '<bos>' + m['role'] + ' ' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bos>assistant ' }}{% endif %}"
)
"""SmolLM2-Instruct's form: the BOS token is what begins a turn."""
WITHOUT_END = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' : ' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ eos_token }}{% endfor %}"
)
"""The markers of the loss leave the end of the reply out."""


def conversations(n: int = 8) -> list[dict[str, Any]]:
    return [
        {"messages": [*row["prompt"], *row["completion"]]} if "prompt" in row else row
        for row in sft_rows(n)
    ]


def test_an_end_token_outside_the_loss_markers_is_noticed(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    recipe = short("demo/sft", chat_template=WITHOUT_END)
    with pytest.raises(preflight.PreflightError, match="trains no end token"):
        train(recipe, base("llama"), conversations(), tmp_path / "out")


def test_the_sample_row_shows_what_is_trained_and_one_cut_reply_passes(
    base: QuickBase, tmp_path: Path
) -> None:
    from alignboard.training.trainer import train

    rows = conversations()
    rows[0]["messages"][-1]["content"] += " cat dog" * 60
    one = short("demo/sft", steps=1, chat_template=SMOL, max_length=64)
    result = train(one, base("llama"), list(reversed(rows)), tmp_path / "out")
    prompt, _, trained = result.sample_row.partition(" [ ")
    assert prompt.startswith("<bos> user")
    assert prompt.endswith("<eos> <bos> assistant")
    assert "[" not in trained
    assert trained.endswith("<eos> ]")
    assert result.steps == 1


def test_pairs_whose_chosen_replies_are_all_cut_are_refused(
    base: QuickBase, tmp_path: Path
) -> None:
    from alignboard.training.trainer import train

    rows = pair_rows(8)
    for row in rows:
        row["chosen"][0]["content"] = "cat dog " * 60
    with pytest.raises(preflight.PreflightError, match="chosen replies looked at are cut off"):
        train(short("demo/dpo"), base("llama"), rows, tmp_path / "out")


def test_a_run_that_goes_wrong_stops_and_keeps_the_last_good_adapter(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from alignboard.training import losses
    from alignboard.training.checks.watch import StoppedError
    from alignboard.training.trainer import train

    steps = 0
    plain = losses.dpo

    def broken(logps: Any, **settings: Any) -> Any:
        nonlocal steps
        steps += 1
        # One batch before any step, two micro-batches a step: the loss of step 3 is not a number.
        return plain(logps, **settings) * (float("nan") if steps > 6 else 1.0)

    monkeypatch.setattr(losses, "dpo", broken)
    out = tmp_path / "out"
    with pytest.raises(StoppedError, match=r"step 3 of 8: the loss is nan .* step 1 is kept in"):
        train(short("demo/dpo", steps=8), base("llama"), pair_rows(), out)
    assert not out.exists()
    kept = adapter_weights(tmp_path / "out-last-good")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def assert_refused_before_a_step(base: QuickBase, folder: Path, message: str) -> None:
    from alignboard.training.trainer import train

    steps, recipe = [], short("demo/dpo")
    with pytest.raises(preflight.PreflightError, match=message):
        train(
            recipe, base("llama"), pair_rows(), folder / "out", on_step=lambda *s: steps.append(s)
        )
    assert steps == []
    assert list(folder.iterdir()) == []


def test_another_reference_is_noticed_before_any_step(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignboard.training import preference

    plain = preference.PreferenceTrainer.compute_ref_log_probs

    def other(self: Any, *arguments: Any) -> Any:
        won, lost = plain(self, *arguments)
        return won + 3.0, lost

    monkeypatch.setattr(preference.PreferenceTrainer, "compute_ref_log_probs", other)
    assert_refused_before_a_step(base, tmp_path, r"before the first step .* expected 0\.6931")


def test_a_matrix_that_the_loss_does_not_reach_is_noticed(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from alignboard.training import trainer

    plain = trainer.trainable

    def with_another(*arguments: Any) -> Any:
        model = plain(*arguments)
        model.register_parameter("idle", torch.nn.Parameter(torch.zeros(2)))
        return model

    monkeypatch.setattr(trainer, "trainable", with_another)
    assert_refused_before_a_step(base, tmp_path, r"1 matrices .* the first is idle: the loss")


def test_an_adapter_that_is_written_wrong_is_noticed(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    from alignboard.training.trainer import train

    plain = PeftModel.save_pretrained

    def halved(self: Any, folder: str, **settings: Any) -> None:
        plain(self, folder, **settings)
        file = Path(folder) / "adapter_model.safetensors"
        weights = load_file(file)
        save_file({k: v * (0.0 if "lora_B" in k else 1.0) for k, v in weights.items()}, file)

    monkeypatch.setattr(PeftModel, "save_pretrained", halved)
    with pytest.raises(preflight.PreflightError, match="gives other logits than the trained one"):
        train(short("demo/sft"), base("llama"), sft_rows(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_explode_stop_the_run(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.checks.watch import StoppedError
    from alignboard.training.trainer import train

    hot = {"learning_rate": 1e6, "schedule": "constant"}
    with pytest.raises(StoppedError, match=r"largest weight .* lower optimizer\.learning_rate"):
        train(short("demo/dpo", optimizer=hot), base("llama"), pair_rows(), tmp_path / "out")


def log(watch: Any, steps: list[tuple[float, float]]) -> None:
    """Log (loss, gradient) step by step."""
    from types import SimpleNamespace

    for step, (loss, norm) in enumerate(steps, start=1):
        state = SimpleNamespace(global_step=step, max_steps=100)
        watch.on_log(None, state, None, logs={"loss": loss, "grad_norm": norm})


def test_a_loss_that_runs_away_and_a_gradient_that_stays_zero() -> None:
    pytest.importorskip("trl")
    from alignboard.training.checks.watch import StoppedError, Watch

    with pytest.raises(StoppedError, match=r"run away from 0\.7 to .*learning_rate"):
        log(Watch(None), [(0.7, 1.0)] * 4 + [(9.0, 1.0)] * 20)
    with pytest.raises(StoppedError, match="gradient has been zero for 5 steps"):
        log(Watch(None), [(0.7, 1.0)] + [(0.7, 0.0)] * 5)
    # A hinge whose margins are all reached has neither loss nor gradient, and is right.
    log(Watch(None), [(1 - n / 10, 1.0) for n in range(10)] + [(0.0, 0.0)] * 20)
    # So is DPO on a few easy pairs, whose loss is nearly zero.
    log(Watch(None), [(0.7, 1.0), (0.1, 0.5)] + [(1e-11, 1e-12)] * 20)


def test_of_several_gpus_one_is_used_without_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    from trl.trainer.sft_config import SFTConfig

    from alignboard.training.arguments import _one_device

    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    config._n_gpu = 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _one_device(config).n_gpu == 2
    monkeypatch.delenv("WORLD_SIZE")
    assert _one_device(config).n_gpu == 1


ENDLESS = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    base: QuickBase, tmp_path: Path
) -> None:
    from alignboard.training.trainer import train

    out = tmp_path / "out"
    for recipe, rows, message in (
        (
            short("demo/sft", lora={"r": 4, "alpha": 4, "target_modules": ["Wqkv", "q_proj"]}),
            sft_rows(),
            "Wqkv",
        ),
        (
            short("demo/sft", max_length=4),
            sft_rows(),
            r"0 of 32 rows are left .* fill max_length 4 \(tokens: median \d+, 95 % up to \d+, longest \d+\)",
        ),
        (short("demo/sft", chat_template=ENDLESS), sft_rows(), "no end token"),
        (short("demo/sft"), sft_rows(5), "5 rows to train on, fewer than the 8 of one step"),
    ):
        with pytest.raises((RecipeError, preflight.PreflightError), match=message):
            train(recipe, base("phi"), rows, out)
        assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with pytest.raises(RecipeError, match="exists"):
        train(short("demo/sft"), base("phi"), sft_rows(), out)


def like(name: str, base: Path, folder: Path) -> Path:
    """The tiny checkpoint with what the real one's tokenizer has and its own has not."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if name not in {"phi-2", "gemma-2b", "gemma-7b"}:
        return base
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(base),
        AutoTokenizer.from_pretrained(base),
    )
    if name.startswith("gemma"):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
        model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if name == "phi-2":  # adds no BOS
        raw = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**raw, "post_processor": None}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY_OF)
def test_real_recipes_run_two_steps_in_four_bits(
    name: str, base: QuickBase, tmp_path: Path
) -> None:
    """The published recipes, unchanged but for the batch, on a tiny checkpoint of their architecture."""
    pytest.importorskip("bitsandbytes")
    from alignboard.training.start import load_base
    from alignboard.training.trainer import train

    path = like(name, base(FAMILY_OF[name]), tmp_path / "base")
    small: dict[str, Any] = {"batch": {"global": 4, "per_device": 2}, "duration": {"steps": 2}}
    sft, dpo = (short(f"{name}/{method}-qlora", **small) for method in ("sft", "dpo"))
    kinds = {type(m).__name__ for m in load_base(sft, path).model.modules()}
    assert "Linear4bit" in kinds
    first = train(sft, path, sft_rows(8), tmp_path / "sft")
    second = train(dpo, path, pair_rows(8), tmp_path / "dpo", adapter=tmp_path / "sft")
    assert first.steps == second.steps == 2
    assert second.first_loss == pytest.approx(0.6931, rel=2e-2)
    config = json.loads((tmp_path / "dpo" / "adapter_config.json").read_text())
    assert config["r"] == 128
    assert sorted(config["target_modules"]) == sorted(dpo.adapter.modules_for(FAMILY_OF[name]))
    for method in ("cpo", "ipo", "kto", "orpo", "simpo"):
        recipe = short(f"{name}/{method}-qlora", **small)
        rows = pair_rows(8) if method != "kto" else rated(pair_rows(4))
        start = None if method == "orpo" else tmp_path / "sft"
        assert train(recipe, path, rows, tmp_path / method, adapter=start).steps == 2


@pytest.mark.slow
def test_the_full_recipes_run_two_steps(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    small: dict[str, Any] = {"batch": {"global": 4, "per_device": 2}, "duration": {"steps": 2}}
    sft, dpo = (short(f"mistral-7b/{method}-full", **small) for method in ("sft", "dpo"))
    train(sft, base("mistral"), sft_rows(8), tmp_path / "sft")
    made = train(dpo, tmp_path / "sft", pair_rows(8), tmp_path / "dpo")
    assert made.first_loss == pytest.approx(0.6931, rel=2e-2)


@pytest.mark.slow
def test_zephyrs_template_is_the_handbooks_after_the_beginning_of_text(base: QuickBase) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base("mistral"))
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ]
    for messages, prompt in ((chat, True), (chat[:3], False)):
        theirs, ours = (
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt, chat_template=t
            )
            for t in (
                HANDBOOK_TEMPLATE,
                load_recipe(LIBRARY / "mistral-7b/sft-qlora.yaml").chat_template,
            )
        )
        assert ours == tokenizer.bos_token + theirs


# alignment-handbook, recipes/zephyr-7b-beta/sft/config_qlora.yaml
HANDBOOK_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)


@pytest.mark.parametrize("base_name", ["tiny-phii", "no/such/folder"])
def test_a_base_that_is_not_there_is_no_finished_job(tmp_path: Path, base_name: str) -> None:
    from types import SimpleNamespace

    from alignboard.pipeline.jobs.train import checkpoint

    hints = {"path": base_name, "revision": None, "gguf_file": None}
    job = SimpleNamespace(parameters={"source": {"id": base_name}, "model": None}, hints=hints)
    task: Any = SimpleNamespace(job=job, folder=tmp_path)
    with pytest.raises(InputError, match=base_name):
        checkpoint(task)
    assert list(tmp_path.iterdir()) == []


def test_plain_strings_train_the_same_rows_as_messages(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource
    from alignboard.models.loading import loads
    from alignboard.training.trainer import train

    rows = pair_rows(8)
    plain = [{key: row[key][-1]["content"] for key in row} for row in rows]
    shown = []
    for name, content_ in (("messages", rows), ("strings", plain)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in content_))
        found, _ = read_rows(PreferenceSource(str(file)), "pair")
        result = train(short("demo/dpo", steps=1), base("llama"), found, tmp_path / name)
        shown.append(result.sample_row)
    assert shown[0] == shown[1]
    config = json.loads((tmp_path / "strings" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base("llama"))
    assert loads[-1] == str(base("llama"))  # through the one loader
    assert same(tmp_path / "messages", tmp_path / "strings")
