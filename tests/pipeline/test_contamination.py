"""Contamination: what trainings share with what models are asked, as jobs of a plan and flags on its board."""

import json
import random
from typing import Any

import msgspec
import yaml

from alignboard.boards.board import Board
from alignboard.boards.columns import Row
from alignboard.data.preferences.contamination import contamination
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.benchmarks import WARNINGS, with_warnings
from alignboard.pipeline.jobs.board import board_of
from alignboard.pipeline.jobs.contamination import FOUND, _documents, with_contamination
from alignboard.pipeline.jobs.contamination import contamination as look
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.store import WorkspacePaths
from alignboard.results.journal import Journal
from alignboard.suites import Instructions
from test_run import small_workspace

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnop", k=3 + n % 6)) for n in range(20_000)]


def text(rng, n):
    return " ".join(rng.choices(WORDS[:3000], k=n // 2) + rng.choices(WORDS, k=n - n // 2)) + "."


def row(prompt, reply):
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": reply}],
    }


def test_a_planted_leak_is_found_and_other_prompts_are_not_flagged():
    rng = random.Random(0)
    prompts = [text(rng, 30) for _ in range(805)]
    rows = [row(text(rng, 60), text(rng, 120)) for _ in range(3000)]
    clean = contamination(rows, prompts, "set")
    assert clean.shared < 0.01 * len(prompts)
    rows[7] = row(prompts[3].upper().replace(".", "!"), "Yes.")
    rows[2900] = row("x", "Well, " + " ".join(prompts[700].split()[9:23]) + " and more")
    found = contamination(rows, prompts, "set")
    assert (found.exact, found.overlapping, found.shared) == (1, 1, 2)
    assert found.examples == ((8, prompts[3]), (2901, prompts[700]))
    rows[5] = row("x", " ".join(prompts[10].split()[:12]))
    assert contamination(rows, prompts, "set").shared == 2


def test_words_of_two_messages_are_no_row_of_words():
    prompt = " ".join(WORDS[:13])
    apart = [row(" ".join(WORDS[:7]), " ".join(WORDS[7:13]))]
    assert contamination(apart, [prompt], "set").shared == 0
    assert contamination([row("", "Ä " + prompt.title() + " ß")], [prompt], "set").shared == 1
    assert contamination([], [prompt], "set").examples == ()
    assert contamination(apart, [], "set").shared == 0


def test_a_training_on_given_rows_has_a_job_that_the_board_needs(tmp_path):
    workspace = small_workspace(tmp_path)
    rows = [row(f"Question {n}", "Answer") | {"rejected": []} for n in range(3)]
    (workspace / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = workspace / "evaluate/plans/small.yaml"
    plan = yaml.safe_load(path.read_text())
    recipe = plan["recipes"][0] if plan.get("recipes") else None
    assert recipe is not None
    before = build_graph(load_plan("small", workspace))
    assert all(job.kind != "contamination" for job in before)  # its rows are made by the demo
    plan.setdefault("overrides", {}).setdefault("recipes", {})[recipe] = {
        "data": {"name": "own.jsonl"}
    }
    path.write_text(yaml.safe_dump(plan))
    graph = build_graph(load_plan("small", workspace))
    (job,) = {one.name: one for one in graph if one.kind == "contamination"}.values()
    assert graph.jobs[job.needs["data"]].kind == "data"
    assert {graph.jobs[name].kind for role, name in job.needs.items() if role != "data"} == {
        "lm-eval"
    }
    assert job.parameters["sets"]
    (board,) = [one for one in graph if one.kind == "board"]
    assert job.name in board.needs.values()


def test_every_run_of_a_sweep_has_the_job_of_its_rows_on_the_board(tmp_path):
    workspace = small_workspace(tmp_path)
    rows = [row(f"Question {n}", "Answer") | {"rejected": []} for n in range(3)]
    (workspace / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = workspace / "evaluate/plans/small.yaml"
    plan = yaml.safe_load(path.read_text())
    recipe = plan["recipes"][0]
    plan.pop("pairwise", None)
    plan["overrides"].setdefault("recipes", {})[recipe] = {"data": {"name": "own.jsonl"}}
    plan |= {"sweep": {"recipes": ["demo/dpo"], "seeds": 2}, "repeats": {"verdicts": 2}}
    path.write_text(yaml.safe_dump(plan))
    resolved = load_plan("small", workspace)
    (board,) = [one for one in build_graph(resolved) if one.kind == "board"]
    names = {model.name for model in resolved.models if "dpo" in model.name}
    assert len(names) >= 2 * 2
    assert names <= {role.removeprefix("contamination 0 ") for role in board.needs}


def test_flags_of_single_runs_stand_on_the_row_of_their_setting(tmp_path):
    for n, text in enumerate(("One, two: three!", "Other")):
        (tmp_path / str(n)).mkdir()
        found = [contamination([row("one two three", "x")], [text], "alpaca")]
        (tmp_path / str(n) / FOUND).write_bytes(msgspec.json.encode(found))
    (tmp_path / WARNINGS).write_text(json.dumps({"model": "b-1", "warnings": ["in a template"]}))
    entries = [
        {"model": f"{row}-{seed}", "row": row, "family": "f", "method": "m", "baseline": "x"}
        | {"trained_in_bits": None, "chosen_among": None, "select_on": None}
        for row in ("a", "b")
        for seed in (0, 1)
    ]
    parameters = {"name": "p", "title": "P", "seed": 0, "baseline": "x", "models": entries}
    parameters |= {"sets": [], "suites": [], "judges": []}
    leaked, clean = tmp_path / "0", tmp_path / "1"
    inputs = {"contamination 0 a-0": leaked, "contamination 0 a-1": leaked}
    inputs |= {"contamination 0 b-0": clean, "contamination 0 b-1": leaked}
    made = board_of(parameters, inputs | {"lm-eval s b-1": tmp_path}, None)
    flag = "trained on 1 of 1 texts of alpaca (1 rows whole, 0 with 13 words in a row)"
    assert [(one.model, one.flags) for one in made.rows] == [
        ("a", [flag]),
        ("b", [f"1: {flag}", "1: in a template"]),
    ]
    assert sum(note.startswith("Contamination: training row 1 of a-0") for note in made.notes) == 1


def test_the_job_reads_rows_sets_and_documents(tmp_path):
    import datasets

    leaked = "Which of the two liquids would boil first in a pot"
    rows = [row("What is 2 + 2?", "4"), row("Say this: " + leaked, leaked)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "data/rows/train"))
    samples = tmp_path / "asked/lm_eval/samples_piqa_own.jsonl"
    samples.parent.mkdir(parents=True)
    samples.write_text(json.dumps({"doc": {"goal": leaked}, "doc_hash": "1"}) + "\n")
    (tmp_path / "set.json").write_text(json.dumps([{"instruction": "what is 2 + 2"}]))
    declared = Instructions(set="set.json")
    hints = {
        "sets": [{"set": str(tmp_path / "set.json"), "instructions": msgspec.to_builtins(declared)}]
    }
    job = Job("contamination x", "contamination", "g", "0" * 64, {}, hints=hints)
    inputs = {"data": tmp_path / "data", "lm-eval own": tmp_path / "asked"}
    out = tmp_path / "out"
    out.mkdir()
    with Journal(tmp_path / "journal", "test") as journal:
        assert look(JobTask(job, WorkspacePaths(tmp_path), out, journal, inputs, {})) == {}
    found = json.loads((out / FOUND).read_text())
    assert [(one["name"], one["exact"], one["shared"]) for one in found] == [
        ("set", 1, 1),
        ("piqa", 1, 1),
    ]


def test_documents_are_texts_of_some_length_once(tmp_path):
    long = "What is the first of these eight words here"
    rows: list[dict[str, Any]] = [
        {"doc": {"query": long, "choices": ["a", "b c"]}, "doc_hash": "1", "filter": name}
        for name in ("strict", "flexible")
    ]
    path = tmp_path / "samples_t_2026.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert _documents(path) == [long]


def test_boards_flag_contaminated_models_and_templates_that_were_not_taught(tmp_path):
    found = [contamination([row("one two three", "x")], ["One, two: three!"], "alpaca")]
    found.append(contamination([row("one", "x")], ["Other"], "piqa"))
    (tmp_path / FOUND).write_bytes(msgspec.json.encode(found))
    (tmp_path / WARNINGS).write_text(json.dumps({"model": "b", "warnings": ["in a template"]}))
    board = Board(name="x", title="X", columns=[], rows=[Row("a"), Row("b")])
    inputs = {"contamination 0 a": tmp_path, "lm-eval s b": tmp_path}
    made = with_warnings(with_contamination(board, inputs), inputs)
    assert made.rows[0].flags == [
        "trained on 1 of 1 texts of alpaca (1 rows whole, 0 with 13 words in a row)"
    ]
    assert made.rows[1].flags == ["in a template"]
    assert made.notes == [
        "Contamination: training row 1 of a shares 'One, two: three!' with alpaca."
    ]
    assert with_contamination(board, {}) == board
