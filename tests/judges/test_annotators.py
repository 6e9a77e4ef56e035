"""Judges by name: AlpacaEval's evaluators as they are, the built-in ones, and what a wrong file is told."""

import msgspec
import pytest
import yaml

from alignboard.demo.simulated import SimulatedSpec
from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.judges.alpaca_eval.configs import Pool, evaluator_names, read_evaluator
from alignboard.judges.jury import JurySpec
from alignboard.judges.load import decode_judge, judge_names, load_judge, read_judge
from alignboard.judges.parsing.alpaca_eval_parsers import UpstreamRule
from alignboard.judges.prompting.prompts import render, slots
from alignboard.judges.rows import Question
from alignboard.judges.spec import (
    JudgePrompt,
    PairRankerSpec,
    ProgramSpec,
    PromptedSpec,
    RewardSpec,
)
from alignboard.registry import names
from alignboard.workspace import library

BUILT_IN = {
    "alpaca-eval-1", "alpaca-eval-2", "arena-hard", "hardened-pair", "judgelm-7b", "mt-bench-pair", "mt-bench-single",
    "pairrm", "pandalm-7b", "prometheus-2-absolute", "prometheus-2-relative", "skywork-reward",
}  # fmt: skip
UNSUPPORTED = {
    "alpaca_farm", "bedrock_claude", "bedrock_claude_2", "claude", "claude_2", "claude_ranking", "cohere",
    "gpt35_turbo_instruct", "test", "text_davinci_003",
}  # fmt: skip
RETIRED = {
    "alpaca_eval_clf_cot_gpt4_turbo", "alpaca_eval_clf_gpt4_turbo", "alpaca_eval_cot_gpt4_turbo_fn", "alpaca_eval_gpt4",
    "alpaca_eval_gpt4_0314", "alpaca_eval_gpt4_0613", "alpaca_eval_gpt4_fn", "alpaca_eval_gpt4_turbo_fn",
    "alpaca_eval_llama3_70b_fn", "alpaca_farm_greedy_gpt4", "aviary_gpt4", "chatgpt", "chatgpt_fn",
    "claude_3_opus_ranking", "gpt-3.5-turbo-1106_ranking", "gpt4", "gpt4_turbo", "gpt4_turbo_clf", "gpt4_turbo_cot_clf",
    "gpt4_turbo_cot_logprob", "gpt4_turbo_logprob", "improved_aviary_gpt4", "improved_lmsys_gpt4", "lmsys_gpt4",
    "mistral-large-2402_ranking", "weighted_alpaca_eval_cot_gpt4_turbo", "weighted_alpaca_eval_gpt4_turbo",
    "weighted_alpaca_eval_gpt4_turbo_new",
}  # fmt: skip


def single(name, folder=None):
    [spec] = read_evaluator(name, folder).members
    return spec


def configured(
    folder, entry, name="mine", file="configs.yaml", prompt="{instruction} {output_1} {output_2}"
):
    """A folder of evaluator configurations with one entry."""
    (folder / name).mkdir(parents=True)
    (folder / name / "prompt.txt").write_text(prompt, encoding="utf-8")
    content = {name: {"prompt_template": f"{name}/prompt.txt", **entry}}
    (folder / name / file).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


# AlpacaEval's configurations.


def test_all_evaluators_of_the_package_load_and_run_or_say_why_not():
    names = evaluator_names()
    assert len(names) == 44
    pools = {name: read_evaluator(name) for name in names}
    assert {name for name, pool in pools.items() if pool.unsupported} == UNSUPPORTED
    assert {n for n, p in pools.items() if p.retired and not p.unsupported} == RETIRED
    for pool in pools.values():
        for member in pool.members:
            assert set(slots(member.prompt)) == {"instruction", "first", "second"}
            assert set(slots(member.prompt).values()) == {member.prompt.batch}
            assert member.source
            for reason in (member.unsupported, member.retired):
                assert reason is None or (len(reason) > 20 and not reason.endswith("."))


def test_every_name_of_the_published_boards_is_a_judge():
    boards = package_file(
        "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    )
    assert boards.name.removesuffix("_leaderboard.csv") == load_judge("alpaca-eval-2").name
    boards = package_file("leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv")
    assert boards.name.removesuffix("_leaderboard.csv") == load_judge("alpaca-eval-1").name


@pytest.mark.parametrize(
    ("name", "annotator"),
    [("alpaca-eval-1", "alpaca_eval_gpt4"), ("alpaca-eval-2", "weighted_alpaca_eval_gpt4_turbo")],
)
def test_the_built_in_alpaca_eval_judges_are_the_packages(name, annotator):
    told = {"title": "", "source": ""}
    built_in, upstream = load_judge(name), single(annotator)
    assert isinstance(built_in, PromptedSpec)
    assert msgspec.structs.replace(built_in, **told) == msgspec.structs.replace(upstream, **told)


def test_the_settings_of_the_alpaca_eval_2_judge():
    spec = single("weighted_alpaca_eval_gpt4_turbo")
    assert (spec.model, spec.engine, spec.order) == ("gpt-4-1106-preview", "openai", "coin")
    assert spec.sampling.max_new_tokens == 1
    assert (spec.sampling.temperature, spec.sampling.top_logprobs) == (1, 5)
    assert spec.verdict == UpstreamRule(
        "logprob_parser",
        {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False},
        "completions_all",
    )


def test_a_pool_draws_one_annotator_for_every_instruction_as_upstream_does():
    pool = load_judge("alpaca_farm")
    assert isinstance(pool, Pool)
    assert len(pool.members) == 13
    drawn = {pool.choose(f"Instruction {i}").name for i in range(300)}
    assert len(drawn) == 13
    # Computed with upstream's random_seeded_choice("annotator" + instruction + "0", names).
    import random

    names = [member.name for member in pool.members]
    for instruction in ("What is 1+1?", "Grüße\n", ""):
        expected = random.Random("annotator" + instruction + "0").choices(names, k=1)[0]
        assert pool.choose(instruction).name == expected


def test_batches_orders_tools_and_endpoints_are_read():
    farm = {member.name: member for member in read_evaluator("alpaca_farm").members}
    assert {name: member.prompt.batch for name, member in farm.items()}["gpt4_2"] == 5
    assert "tokens_to_avoid" in (farm["gpt4_4"].unsupported or "")
    assert "without turns" in (farm["davinci003_2"].unsupported or "")
    assert single("lmsys_gpt4").order == "given"
    assert single("improved_lmsys_gpt4").order == "coin"
    tool = single("alpaca_eval_cot_gpt4_turbo_fn").tool
    assert tool is not None
    assert tool["function"]["name"] == "make_partial_leaderboard"
    together = single("alpaca_eval_llama3_70b_fn")
    assert (together.base_url, together.api_key_env) == (
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
    )
    served = single("weighted_alpaca_eval_vllm_llama3_70b")
    assert (served.model, served.base_url) == (
        "meta-llama/Meta-Llama-3-70B-Instruct",
        "http://localhost:8000/v1",
    )


def test_local_models_are_asked_as_upstream_asks_them():
    vllm = single("alpaca_eval_vllm_llama3_70b_fn")
    assert (vllm.engine, vllm.chat, vllm.prompt.chatml, vllm.sampling.temperature) == (
        "local",
        True,
        True,
        0,
    )
    raw = single("oasst_pythia_12b")
    assert (raw.engine, raw.chat, raw.prompt.chatml, raw.sampling.temperature) == (
        "local",
        False,
        False,
        0,
    )
    taught = single("Self-taught-llama3.1-70B-dpo")
    assert (taught.engine, taught.chat, taught.sampling.max_new_tokens) == ("local", False, 512)
    assert (
        taught.source == "alpaca-eval, evaluators_configs/Self-taught-llama3.1-70B-dpo/config.yaml"
    )


# What docs/judges.md says of them.


def documented(spec, name=None):
    """The row of a judge in the tables of docs/judges.md."""
    if spec.unsupported:
        asked = f"no: {spec.unsupported}"
    elif getattr(spec, "retired", None):
        asked = f"elsewhere: {spec.retired}"
    else:
        asked = "yes"
    return f"| {name or spec.name} | {spec.model} | {asked} |"


def test_the_tables_of_the_documentation_are_what_the_code_says():
    text = (library() / "docs" / "judges.md").read_text(encoding="utf-8")
    expected = [documented(load_judge(name, library()), name) for name in sorted(BUILT_IN)]
    for pool in map(read_evaluator, evaluator_names()):
        if len(pool.members) == 1:
            expected.append(documented(pool.members[0]))
        else:
            expected += [documented(one, f"{pool.name}: {one.name}") for one in pool.members]
    tables = text.partition("## Built-in judges")[2]
    rows = [line for line in tables.splitlines() if line.startswith("| ")]
    assert [row for row in rows if not row.endswith("| Asked |")] == expected


def test_the_file_in_the_documentation_is_a_judge(tmp_path):
    text = (library() / "docs" / "judges.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    spec = read_judge(written(tmp_path, example))
    assert isinstance(spec, PromptedSpec)
    assert spec.name == "my-judge"
    rules = set(names("reply form"))
    table = text.partition("## How replies are read")[2].partition("\n\n-")[0]
    assert {
        line.split("`")[1] for line in table.splitlines() if line.startswith("| `")
    } == rules | {"by"}


# A folder like the package's.


def test_a_folder_of_configurations_is_read(tmp_path):
    entry = {
        "fn_completions": "openai_completions",
        "completions_kwargs": {
            "model_name": "my-judge", "max_tokens": 7, "stop": ["\n"], "logit_bias": {"5": -100},
            "requires_chatml": True, "num_procs": 4, "price_per_token": 1e-6,
            "client_kwargs": {"base_url": "http://host/v1", "timeout": 9},
        },
        "completion_parser_kwargs": {"outputs_to_match": {1: "a", 2: "b"}},
        "is_randomize_output_order": False,
    }  # fmt: skip
    prompt = "<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>"
    folder = configured(tmp_path, entry, prompt=prompt)
    assert evaluator_names(folder) == ["mine"]
    spec = single("mine", folder)
    assert spec.unsupported is None
    assert (spec.base_url, spec.api_key_env, spec.order) == ("http://host/v1", None, "given")
    assert spec.endpoint.extra == {"logit_bias": {"5": -100}, "stop": ["\n"]}
    assert (spec.sampling.max_new_tokens, spec.sampling.temperature) == (7, 0.7)
    assert render(spec.prompt, [Question("i", "a", "b")])[0].content == "i a b"


def test_processors_that_are_no_mapping_are_one_sentence(tmp_path):
    entry = {"fn_completions": "openai_completions", "completions_kwargs": {"model_name": "m"}}
    folder = configured(tmp_path, entry | {"processors_to_kwargs": 7})
    with pytest.raises(InputError, match="processors_to_kwargs"):
        single("mine", folder)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a" * 9_000, "has no file"),
        ("mine/\0", "no path"),
        ("mine/latin.txt", "latin.txt cannot be read"),
    ],
)
def test_a_prompt_that_is_no_file_of_text_is_one_sentence(tmp_path, prompt, words):
    entry = {"fn_completions": "openai_completions", "completions_kwargs": {"model_name": "m"}}
    folder = configured(tmp_path, entry | {"prompt_template": prompt})
    (folder / "mine" / "latin.txt").write_bytes(b"\xe9 {instruction} {output_1} {output_2}")
    with pytest.raises(InputError, match=words):
        single("mine", folder)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"completions_kwargs": {"model_name": "m", "best_of": 3}}, "best_of"),
        ({"completions_kwargs": {"model_name": "m", "tokens_to_favor": ["A"]}}, "tokens_to_favor"),
        ({"completions_kwargs": {"model_name": "m", "client_kwargs": {"api_key": "k"}}}, "api_key"),
        ({"completions_kwargs": {"model_name": "text-x"}}, "without turns"),
        ({"completions_kwargs": {"model_name": "m"}, "fn_completion_parser": "my_parser"}, "my_parser"),
        ({"completions_kwargs": {"model_name": "m"}, "processors_to_kwargs": {"Mine": {}}}, "Mine"),
        ({"fn_completions": "my_completions", "completions_kwargs": {"model_name": "m"}}, "my_completions"),
        (
            {"fn_completions": "huggingface_local_completions",
             "completions_kwargs": {"model_name": "m", "model_kwargs": {"load_in_8bit": True}}},
            "load_in_8bit",
        ),
        (
            {"fn_completions": "vllm_local_completions", "completions_kwargs": {"model_name": "/no/such/folder"}},
            "/no/such/folder",
        ),
        (
            {"completions_kwargs": {"model_name": "m", "tools": [{"function": {"name": "f"}}], "tool_choice": "auto"}},
            "choice of a function",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(tmp_path, entry, reason):
    regex = {"outputs_to_match": {1: "a", 2: "b"}}
    if "fn_completion_parser" not in entry:
        entry = {**entry, "completion_parser_kwargs": regex}
    spec = single("mine", configured(tmp_path, entry))
    assert reason in (spec.unsupported or "")


def test_newer_models_of_anthropic_are_asked_at_its_compatible_endpoint(tmp_path):
    entry = {
        "fn_completions": "anthropic_completions",
        "completions_kwargs": {
            "model_name": "claude-new",
            "max_tokens_to_sample": 100,
            "temperature": 0,
        },
        "fn_completion_parser": "ranking_parser",
    }
    prompt = "<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>"
    spec = single("mine", configured(tmp_path, entry, prompt=prompt))
    assert (spec.unsupported, spec.retired) == (None, None)
    assert (spec.base_url, spec.api_key_env) == (
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
    )
    assert spec.sampling.max_new_tokens == 100


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            {"completion_kwargs": {}},
            "no field 'completion_kwargs', did you mean 'completions_kwargs'",
        ),
        (
            {"completions_kwargs": {"model_name": "m", "max_tokens": "many"}},
            "completions_kwargs of mine",
        ),
        ({"completions_kwargs": 3}, "completions_kwargs is a mapping"),
        ({"completions_kwargs": {"model_name": "m"}, "batch_size": 0}, "batch_size of mine is 0"),
        (
            {"completions_kwargs": {"model_name": "m"}, "completion_parser_kwargs": {"pattern": 1}},
            "outputs_to_match",
        ),
        (
            {"prompt_template": "mine/none.txt", "completions_kwargs": {"model_name": "m"}},
            "none.txt",
        ),
    ],
)
def test_a_wrong_configuration_is_told(tmp_path, entry, told):
    folder = configured(tmp_path, entry)
    with pytest.raises(InputError, match=told):
        read_evaluator("mine", folder)


def test_an_unknown_evaluator_is_told_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'alpaca_eval_gpt4'"):
        read_evaluator("alpaca_eval_gpt_4")
    with pytest.raises(InputError, match=r"no evaluator '\.\./results'"):
        read_evaluator("../results")


# Built-in judges.


def test_every_built_in_judge_loads_and_says_where_it_comes_from():
    assert set(judge_names(library())) >= BUILT_IN
    for name in BUILT_IN:
        spec = load_judge(name, library())
        assert isinstance(spec, PromptedSpec | RewardSpec | PairRankerSpec)
        assert spec.source
        assert spec.unsupported is None
        assert spec.name == name or name.startswith("alpaca-eval")


@pytest.mark.parametrize("name", sorted(BUILT_IN - {"pairrm", "skywork-reward", "hardened-pair"}))
def test_built_in_prompts_show_what_is_asked(name):
    spec = load_judge(name, library())
    assert isinstance(spec, PromptedSpec)
    question = Question("The instruction", "The first", None if spec.rates else "The second")
    text = "\n".join(message.content for message in render(spec.prompt, [question]))
    shown = [question.instruction, question.first] + ([] if spec.rates else ["The second"])
    assert [text.count(part) for part in shown] == [1] * len(shown)
    assert not slots(JudgePrompt(text=text))


def test_prompts_with_a_second_turn_show_it():
    spec = load_judge("mt-bench-pair", library())
    assert isinstance(spec, PromptedSpec)
    fields = {
        "instruction_2": "And then?",
        "first_2": "More A",
        "second_2": "More B",
        "reference": "Known",
    }
    text = render(spec.prompt, [Question("First?", "A", "B", tuple(fields.items()))])[-1].content
    assert all(value in text for value in fields.values())


# The files of users.

PROMPTED = {
    "kind": "prompted",
    "name": "mine",
    "title": "Mine",
    "model": "m",
    "prompt": {"text": "{instruction} {first} {second}"},
    "verdict": {"by": "bracket"},
}


def written(tmp_path, content):
    path = tmp_path / "evaluate" / "judges" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PROMPTED, PromptedSpec),
        ({"kind": "reward", "name": "r", "title": "R", "model": "m"}, RewardSpec),
        ({"kind": "pair-ranker", "name": "r", "title": "R", "model": "m"}, PairRankerSpec),
        ({"kind": "simulated", "name": "s", "title": "S"}, SimulatedSpec),
        ({"kind": "jury", "name": "j", "title": "J", "judges": ["a", "b"]}, JurySpec),
        (
            {"kind": "program", "name": "p", "title": "P", "command": ["x"], "version": "1"},
            ProgramSpec,
        ),
        (
            {
                "kind": "program",
                "name": "p",
                "title": "P",
                "command": ["x"],
                "version": "1",
                "verdict": {"by": "bracket"},
            },
            ProgramSpec,
        ),
    ],
)
def test_every_kind_loads_from_the_workspace(tmp_path, content, kind):
    path = written(tmp_path, content)
    assert isinstance(load_judge("mine", tmp_path), kind)
    assert load_judge(str(path)) == read_judge(path)


def changed(**changes):
    return {**PROMPTED, **changes}


LOGPROB = {"by": "logprob", "first": ["A"], "second": ["B"]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", "not readable YAML"),
        ("- 1", "mapping of names to values"),
        (changed(kind="promted"), "kind is 'promted', did you mean 'prompted'"),
        ({"name": "x"}, "kind is None"),
        (changed(tilte="x"), "no field 'tilte', did you mean 'title'"),
        (changed(prompt={"txt": "x"}), "no field 'prompt.txt', did you mean 'text'"),
        (
            changed(sampling={"max_tokens": 3}),
            "no field 'sampling.max_tokens', did you mean 'max_new_tokens'",
        ),
        (changed(verdict={"by": "brackets"}), "by is 'brackets', did you mean 'bracket'"),
        (changed(verdict={"by": "rating", "low": 1}), "a verdict by rating has no field 'low'"),
        (changed(verdict="bracket"), "verdict is a mapping"),
        (changed(model=3), "Expected `str`, got `int`"),
        (changed(prompt={}), "needs one of messages, text and file; it has none"),
        (changed(prompt={"text": "x", "file": "a:b"}), "it has text and file"),
        (changed(prompt={"text": "{instruction} {first}"}), r"prompt lacks \{second\}"),
        (changed(prompt={"file": "alpaca_eval:none.txt"}), "has no file none.txt"),
        (changed(prompt={"text": "{instruction}", "chatml": True}), "ChatML prompt begins"),
        (
            changed(prompt={"text": "{instruction} {first} {second}", "batch": 2}),
            "1 times, but batch is 2",
        ),
        (
            changed(prompt={"text": "{instruction} {first} {second}", "batch": 0}),
            "batch is 0; expected 1 or more",
        ),
        (
            changed(prompt={"text": "{instruction} {first} {second} {first_id}"}),
            "say hardened: true",
        ),
        (
            changed(prompt={"text": "{instruction} {first} {second} {first_id}"}, hardened=True),
            "in both or in neither",
        ),
        (changed(rates=True), "say rates: false"),
        (changed(verdict={"by": "rating"}), "say rates: true"),
        (
            changed(verdict={"by": "rating"}, rates=True),
            r"prompt has \{second\}, but rates: true",
        ),
        (
            changed(verdict={"by": "rating", "lowest": 5, "highest": 5}, rates=True),
            "which is not below",
        ),
        (changed(verdict={"by": "numbers"}), "a prompted judge writes text"),
        (
            changed(verdict={**LOGPROB, "first": []}, sampling={"top_logprobs": 5}),
            "verdict.first needs at least one",
        ),
        (
            changed(verdict={**LOGPROB, "tie": ["A "]}, sampling={"top_logprobs": 5}),
            "both have 'A'",
        ),
        (
            changed(verdict={**LOGPROB, "min_mass": 2}, sampling={"top_logprobs": 5}),
            "min_mass is 2; expected 0 to 1",
        ),
        (changed(verdict=LOGPROB), "sampling.top_logprobs: 5"),
        (
            changed(verdict=LOGPROB, sampling={"top_logprobs": 21}),
            "top_logprobs is 21; expected 0 to 20",
        ),
        (
            changed(verdict={"by": "regex", "first": "(", "second": "b"}),
            "verdict.first is no regular expression",
        ),
        (changed(verdict={"by": "regex", "first": "a*", "second": "b"}), "matches nothing at all"),
        (
            changed(verdict={"by": "phrase", "phrase": " ", "first": ["1"], "second": ["2"]}),
            "phrase is empty",
        ),
        (changed(verdict={"by": "five-way", "slight": 0.2}), "slight is 0.2; expected 0.5 to 1"),
        (
            changed(verdict={"by": "alpaca_eval", "parser": "regexparser"}),
            "did you mean 'regex_parser'",
        ),
        (changed(verdict={"by": "alpaca_eval", "parser": "regex_parser"}), "outputs_to_match"),
        (changed(sampling={"temperature": -1}), "temperature is -1; expected 0 or more"),
        (changed(tool={"name": "f"}), "tool is a function in OpenAI's format"),
        (
            {"kind": "simulated", "name": "s", "title": "S", "label_noise": 0.7},
            "label_noise is 0.7; expected 0 to 0.5",
        ),
        ({"kind": "jury", "name": "j", "title": "J", "judges": ["a"]}, "two different names"),
        ({"kind": "jury", "name": "j", "title": "J", "judges": ["a", "j"]}, "the jury itself"),
        (
            {"kind": "program", "name": "p", "title": "P", "command": [], "version": "1"},
            "command is empty",
        ),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence_that_names_it(tmp_path, content, told):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=told) as caught:
        load_judge("mine", tmp_path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith((".", ")", "?"))


def test_an_unknown_judge_is_told_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'arena-hard'"):
        load_judge("arena_hard", tmp_path)
    with pytest.raises(InputError, match="AlpacaEval's 44 evaluators"):
        load_judge("nothing like it", tmp_path)


def test_the_declaration_of_a_pool_travels_with_a_job():
    pool = read_evaluator("alpaca_farm")
    assert decode_judge(msgspec.to_builtins(pool)) == pool
