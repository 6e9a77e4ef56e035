"""A look at a training before any weights are read: rows as tokens, lengths, contamination, settings, the dry run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from jinja2 import Template

from alignboard.cli.app import cli
from alignboard.data.preferences.contamination import contamination
from alignboard.errors import InputError
from alignboard.models.registry import load_model
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.training import TrainingRequest, parse_settings, training_plan
from alignboard.training.checks.preflight import PreflightError, token_rows
from alignboard.training.encoding import encoded
from alignboard.training.recipe import load_recipe
from alignboard.training.sections import RecipeError
from alignboard.training.tokens import token_lengths, training_tokenizer
from test_train import LIBRARY, SMOL, QuickBase, base, conversations, pair_rows, sft_rows, short

__all__ = ["base"]  # the fixture


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("kind", ["pairs", "completions", "messages"])
@pytest.mark.parametrize("template", ["own", "smol"])
def test_rows_as_tokens_are_those_that_trl_makes(
    base: QuickBase, tmp_path: Path, kind: str, template: str
) -> None:
    from datasets import Dataset

    from alignboard.training.arguments import make_trainer, prepared, trl_arguments
    from alignboard.training.start import load_base, with_adapter

    rows = {"pairs": pair_rows, "completions": sft_rows, "messages": conversations}[kind](8)
    rows[0][list(rows[0])[-1]][-1]["content"] += " cat dog" * 60  # over max_length
    changes: dict[str, Any] = (
        {"chat_template": SMOL} if template == "smol" or kind == "messages" else {}
    )
    recipe = short("demo/dpo" if kind == "pairs" else "demo/sft", 4, max_length=40, **changes)
    loaded = load_base(recipe, base("llama"))
    tokenizer = training_tokenizer(loaded.tokenizer, recipe.chat_template, None, loaded.path)
    model = loaded.model
    model = with_adapter(model, recipe.adapter, None)
    arguments = trl_arguments(recipe, model, tmp_path / "work", 0)
    messages = Dataset.from_list(rows)
    prepared_rows = prepared(messages, recipe, tokenizer)
    trainer = make_trainer(recipe, arguments, model, tokenizer, prepared_rows, [])
    ours = token_rows(trainer.train_dataset, recipe.max_length, limit=8)
    # TRL's own preparation of the messages.
    rest = (False, None) if kind != "pairs" else ()
    trainer.args.assistant_only_loss = kind == "messages"
    trainer.chat_template, trainer.completion_only_loss = None, kind == "completions"
    theirs = trainer._prepare_dataset(messages, tokenizer, trainer.args, *rest, "train")
    theirs = token_rows(theirs, recipe.max_length, limit=8)
    looked = [one.cut(recipe.max_length) for row in encoded(tokenizer, rows) for one in row]
    assert [(list(r.ids), list(r.trained)) for r in ours] == [
        (list(r.ids), list(r.trained)) for r in theirs
    ]
    assert [list(r.ids) for r in looked] == [list(r.ids) for r in ours]
    assert any(r.truncated for r in ours)


def test_lengths_of_each_side_against_max_length(base: QuickBase) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base("llama"))
    rows = pair_rows(8)
    rows[0]["chosen"][0]["content"] = "cat " * 60
    rows[1]["prompt"][0]["content"] = "cat " * 60
    chosen, rejected = token_lengths(encoded(tokenizer, rows), 40)
    assert (chosen.n, chosen.cut, chosen.filled) == (8, 1, 1)
    assert (rejected.n, rejected.cut, rejected.filled) == (8, 0, 1)
    assert chosen.longest > 60 > chosen.median


def test_rows_that_hold_what_is_evaluated_are_found() -> None:
    long = " ".join(f"word{n}" for n in range(20))
    rows = [
        {"prompt": [{"role": "user", "content": "What IS the capital of France"}]},
        {"prompt": [{"role": "user", "content": "before " + " ".join(long.split()[3:18])}]},
        {"prompt": [{"role": "user", "content": " ".join(long.split()[:12])}]},
    ]
    found = contamination(rows, ["What is the capital of France?", long], "mine")
    assert (found.exact, found.overlapping) == (1, 1)
    assert found.examples == ((1, "What is the capital of France?"), (2, long))
    assert (found.shared, found.n_texts) == (2, 2)
    assert "no row shares" in str(contamination(rows[2:], [long], "mine"))


@pytest.mark.parametrize("text", ["loss.beta", "=1", "loss..beta=1", "loss.beta=[1"])
def test_a_setting_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"^--set "):
        parse_settings([text])


def test_settings_data_and_name_replace_the_recipes(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.jsonl", pair_rows(8))
    settings = parse_settings(["loss.beta=0.3"])
    settings |= {"data": {"name": str(file)}, "pairs": None, "seed": 7}
    plan = training_plan(TrainingRequest("demo/dpo", "tiny-phi", settings, "mine"), tmp_path)
    recipe = plan.recipes["demo/dpo"]
    assert recipe.loss == {"beta": 0.3, "label_smoothing": 0.0, "divergence": "reverse_kl"}
    assert (recipe.sole_data, recipe.pairs, recipe.seed) == (str(file), None, 7)
    assert [one.name for one in plan.models] == ["tiny-phi", "tiny-phi-sft", "mine"]
    alone = TrainingRequest("demo/dpo", "tiny-phi", {"start_from": None}, "alone")
    assert [one.name for one in training_plan(alone, tmp_path).models] == ["tiny-phi", "alone"]
    with pytest.raises(InputError, match="no field 'loos'"):
        training_plan(TrainingRequest("demo/dpo", "tiny-phi", {"loos": 1}), tmp_path)
    with pytest.raises(InputError, match="is what the training starts from"):
        training_plan(TrainingRequest("demo/dpo", "tiny-phi", {}, "tiny-phi-sft"), tmp_path)


@pytest.mark.parametrize(
    ("settings", "section", "fields"),
    [
        (["duration.epochs=2"], "duration", {"epochs": 2.0, "steps": None}),
        (["duration.steps=5"], "duration", {"epochs": None, "steps": 5}),
        (
            ["optimizer.warmup_steps=3"],
            "optimizer",
            {"warmup_ratio": 0.0, "warmup_steps": 3, "learning_rate": 0.001},
        ),
    ],
)
def test_a_field_that_stands_in_place_of_another_replaces_it(
    tmp_path: Path, settings: list[str], section: str, fields: dict[str, Any]
) -> None:
    plan = training_plan(
        TrainingRequest("demo/dpo", "tiny-phi", parse_settings(settings)), tmp_path
    )
    found = getattr(plan.recipes["demo/dpo"], section)
    assert {name: getattr(found, name) for name in fields} == fields


def test_a_recipe_is_trained_on_a_model_of_the_registry_which_is_asked_for_pairs_as_it_says(
    tmp_path: Path,
) -> None:
    def pairs_of(plan: ResolvedPlan) -> dict[str, Any]:
        (job,) = (job for job in build_graph(plan).jobs.values() if job.kind == "pairs")
        return dict(job.parameters)

    plan = training_plan(TrainingRequest("gemma-3-270m/short-dpo"), tmp_path)
    spec = plan.entries["gemma-3-270m"].spec
    assert spec is not None
    assert (spec.gguf_file, spec.stop) == ("gemma-3-270m-q4_k_m.gguf", ["\nQuestion:"])
    template = plan.recipes["gemma-3-270m/short-dpo"].chat_template
    assert {"stop": spec.stop, "chat_template": template}.items() <= pairs_of(plan).items()
    other = training_plan(TrainingRequest("smollm2/short-dpo", "smollm2"), tmp_path)
    assert other.entries["smollm2"].spec == msgspec.structs.replace(
        load_model("smollm2-135m-instruct"), name="smollm2"
    )
    assert not {"stop", "chat_template"} & pairs_of(other).keys()
    with pytest.raises(InputError, match="did you mean 'gemma-3-270m'"):
        training_plan(TrainingRequest("smollm2/dpo", "gemma-3-270"), tmp_path)


def test_the_prompt_of_a_recipe_for_gemma_is_that_of_its_entry() -> None:
    recipe = load_recipe(LIBRARY / "gemma-3-270m" / "short-dpo.yaml")
    entry = load_model(str(recipe.model))
    own, asked = (
        Template(str(template)).render(
            messages=[{"role": "user", "content": "Why?"}],
            bos_token="",
            add_generation_prompt=True,
        )
        for template in (
            str(recipe.chat_template)
            .replace("{% generation %}", "")
            .replace("{% endgeneration %}", ""),
            entry.prompt.jinja(None, "gemma"),
        )
    )
    assert own == asked


def test_a_dry_run_shows_rows_and_steps_and_reads_no_weights(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignboard.models.loading import loads

    monkeypatch.chdir(tmp_path)
    file, before = written(tmp_path / "mine.jsonl", pair_rows(12)), len(loads)
    command = ["train", "demo/dpo", "--model", str(base("llama")), "--data", str(file)]
    command += [
        "--set",
        "batch.global=4",
        "--set",
        "batch.per_device=2",
        "--set",
        "duration.steps=9",
    ]
    done = CliRunner().invoke(cli, [*command, "--name", "mine", "--dry-run", "--json", "p.json"])
    assert done.exit_code == 0, done.output
    assert "12 of 12 rows, read as pairs" in done.output
    assert "9 steps over 12 rows" in done.output
    assert "[row] <bos>" in done.output
    assert "train mine" in done.output
    looked = json.loads((tmp_path / "p.json").read_text())["preview"]
    assert [side["side"] for side in looked["lengths"]] == ["chosen", "rejected"]
    assert looked["memory_gib"] > 0
    assert len(loads) == before
    assert not (tmp_path / "results" / "mine").exists()


def test_a_dry_run_says_what_the_run_would_be_refused_for(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "mine.jsonl", pair_rows(12))
    command = ["train", "demo/dpo", "--model", str(base("llama")), "--data", str(file), "--dry-run"]
    few = CliRunner().invoke(cli, [*command, "--json", "p.json"])
    assert few.exit_code == 0, few.output
    sentence = "there are 12 rows to train on, fewer than the 32 of one step"
    assert f"Would be refused: recipe demo/dpo: {file}: {sentence}" in few.stderr
    assert sentence in json.loads((tmp_path / "p.json").read_text())["refused"]
    size = ["--set", "batch.global=4", "--set", "batch.per_device=4"]
    layers = CliRunner().invoke(cli, [*command, *size, "--set", "lora.target_modules=[Wqkv]"])
    assert "Would be refused: recipe demo/dpo: lora.target_modules Wqkv: no such" in layers.stderr
    enough = CliRunner().invoke(cli, [*command, *size])
    assert "refused" not in enough.output


def test_prompts_that_all_fill_max_length_are_counted(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "mine.jsonl", pair_rows(12))
    command = ["data", "check", str(file), "--recipe", "demo/dpo", "--model", str(base("llama"))]
    recipe = yaml.safe_load((LIBRARY / "demo/dpo.yaml").read_text())
    own = tmp_path / "train" / "demo" / "dpo.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(yaml.safe_dump({**recipe, "max_length": 3}))
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, RecipeError)
    assert re.search(
        r"0 of 12 rows are left to train on, .* fill max_length 3 \(tokens: median \d+, 95 % up to \d+, longest \d+\)",
        str(done.exception),
    )


def test_columns_may_be_set_beside_the_data(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("q,good,bad\n" + "".join(f"a {n},b,c\n" for n in range(4)))
    columns = "data.columns={prompt: q, chosen: good, rejected: bad}"
    command = ["train", "demo/dpo", "--model", str(base("llama")), "--data", "d.csv", "--dry-run"]
    done = CliRunner().invoke(cli, [*command, "--set", columns, "--set", "batch.global=4"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 rows, read as pairs" in done.output
    both = CliRunner().invoke(cli, [*command, "--set", "data.name=e.csv"])
    assert "--data and --set data name two sources" in str(both.exception)


def test_data_check_counts_tokens_and_finds_what_is_evaluated(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = pair_rows(8)
    file = written(tmp_path / "mine.jsonl", rows)
    text = rows[2]["prompt"][0]["content"]
    (tmp_path / "set.json").write_text(json.dumps([{"instruction": text.upper()}]))
    command = ["data", "check", str(file), "--recipe", "demo/dpo", "--model", str(base("llama"))]
    done = CliRunner().invoke(cli, [*command, "--against", "set.json"])
    assert done.exit_code == 0, done.output
    assert "chosen    8 rows; tokens: median" in done.output
    assert "1 rows hold an instruction of set" in done.output
    assert done.output.count("[row] ") == 2


def test_rows_without_an_end_are_refused_by_the_dry_run(base: QuickBase) -> None:
    from datasets import Dataset

    from alignboard.models.registry import load_model
    from alignboard.training.preview import open_for_training, preview
    from test_train import ENDLESS

    recipe = short("demo/dpo", chat_template=ENDLESS)
    opened = open_for_training(recipe, load_model(str(base("llama"))))
    with pytest.raises(PreflightError, match="trains no end token"):
        preview(recipe, opened, Dataset.from_list(pair_rows(8)))


@pytest.mark.slow
def test_one_file_trains_by_three_methods_through_the_command(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT's adapter is the start of KTO on pairs with held-out rows; every weight is trained by ORPO."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "sft.jsonl", conversations(16))
    written(tmp_path / "pairs.jsonl", pair_rows(16))
    few = ["batch.global=8", "batch.per_device=4", "duration.steps=3"]
    model = ["--model", str(base("llama"))]

    def run(recipe: str, data: str, name: str, *settings: str) -> dict[str, Any]:
        pairs = [part for one in (*few, *settings) for part in ("--set", one)]
        command = ["train", recipe, *model, "--data", data, "--name", name, *pairs]
        done = CliRunner().invoke(cli, [*command, "--json", "out.json"])
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads((tmp_path / "out.json").read_text())

    run("demo/sft", "sft.jsonl", "mine-sft")
    start = "start_from=results/mine-sft/adapter"
    run("demo/dpo", "pairs.jsonl", "mine-kto", start, "method=kto", "held_out={share: 0.25}")
    card = json.loads((tmp_path / "results/mine-kto/adapter/training.json").read_text())
    assert card["first_loss"] == pytest.approx(0.5, abs=1e-4)
    assert card["parent_fingerprint"]
    assert card["data"]["schema"] == "pairs"
    assert list(card["held_out"]) == ["3"]
    assert (tmp_path / "results/mine-kto/adapter/steps.jsonl").is_file()
    run("demo/simpo", "pairs.jsonl", "mine-full", "lora=none", "start_from=null")
    assert (tmp_path / "results/mine-full/checkpoint/model.safetensors").is_file()
    assert not list((tmp_path / "results/.store").glob("work-*"))
