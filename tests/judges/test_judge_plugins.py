"""A judge backend of another package: one file and one registration, and every command knows it."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner

from alignboard import registry
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.judges.jury import JurySpec
from alignboard.judges.load import decode_judge, load_judge
from alignboard.judges.parsing.reply_forms import parse
from alignboard.judges.rows import Reply
from alignboard.judges.spec import JudgeSpec, PromptedSpec, RewardSpec


@pytest.fixture
def workspace(tmp_path, monkeypatch, contributed):
    """A workspace, with two installed packages: a judge and a reply form."""
    contributed("vowel_judge")
    contributed("percent_form")
    folder = tmp_path / "evaluate" / "judges"
    folder.mkdir(parents=True)
    (folder / "vowels.yaml").write_text("kind: vowels\nname: vowels\ntitle: Vowels\n")
    for name, output in (("one", "aaa"), ("base", "xxx")):
        rows = [
            {"instruction": f"question {k}?", "output": output * (k + 1), "generator": name}
            for k in range(4)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_backend_of_another_package_judges_from_the_command_line(workspace):
    command = ["judge", "one.json", "--judge", "vowels", "--baseline", "base.json"]
    dry = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert "vowels on one: 8 calls" in dry.output, dry.output
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    [path] = workspace.glob("*/vowels*/annotations.json")
    rows = json.loads(path.read_text())
    assert [row["preference"] for row in rows] == pytest.approx(
        [1 + (1 + 3 * k) / (2 + 3 * k) for k in (1, 2, 3, 4)]
    )
    assert all(row["switched"] == [False, True] for row in rows)


def test_what_its_file_gets_wrong_is_a_sentence_of_its_own(workspace):
    path = workspace / "evaluate" / "judges" / "vowels.yaml"
    path.write_text("kind: vowels\nname: vowels\ntitle: Vowels\nletters: ''\n")
    with pytest.raises(InputError, match=r"vowels\.yaml: letters is empty"):
        load_judge("vowels", workspace)
    path.write_text("kind: vowel\nname: vowels\ntitle: Vowels\n")
    with pytest.raises(InputError, match=r"kind is 'vowel'.*vowels"):
        load_judge("vowels", workspace)


def test_its_declaration_travels_with_a_job(workspace):
    declared = load_judge("vowels", workspace)
    assert decode_judge(msgspec.to_builtins(declared)) == declared


def test_a_reply_form_of_another_package_reads_replies(workspace):
    path = workspace / "evaluate" / "judges" / "sure.yaml"
    path.write_text(
        "kind: prompted\nname: sure\ntitle: Sure\nmodel: m\nverdict: {by: percent}\n"
        "prompt: {messages: [{role: user, content: '{instruction} {first} {second}'}]}\n"
    )
    declared = load_judge("sure", workspace)
    assert isinstance(declared, PromptedSpec)
    assert decode_judge(msgspec.to_builtins(declared)) == declared
    [verdict] = parse(declared.verdict, Reply("I am 70 % sure of the first."))
    assert verdict.preference == pytest.approx(1.3)
    assert parse(declared.verdict, Reply("<think>70 %</think>"))[0].status == "truncated"
    assert parse(declared.verdict, Reply("70 % would", finish="length"))[0].status == "truncated"
    path.write_text(path.read_text().replace("percent}", "percent, least: 3}"))
    with pytest.raises(InputError, match="least"):
        load_judge("sure", workspace)


@pytest.mark.parametrize(
    ("kind", "needs_weights", "rating", "second_turns"),
    [
        ("prompted", False, False, False),
        ("reward", True, True, True),
        ("pair-ranker", True, False, False),
        ("simulated", False, False, False),
        ("program", False, False, True),
        ("jury", False, False, False),
    ],
)
def test_every_kind_is_registered_and_says_what_it_needs(kind, needs_weights, rating, second_turns):
    schema = registry.lookup("judge", kind)
    assert issubclass(schema, JudgeSpec)
    fields = {"name": "j", "title": "t", "model": "m", "judges": ["a", "b"], "command": ["x"],
              "version": "1", "prompt": {"text": "x"}, "verdict": {"by": "bracket"}}  # fmt: skip
    known = {name: fields[name] for name in schema.__struct_fields__ if name in fields}
    spec = decode_judge({"kind": kind, **known})
    assert isinstance(spec, JudgeSpec)
    assert spec.kind == kind
    assert (spec.needs_weights, spec.is_rating, spec.sees_second_turns) == (
        needs_weights,
        rating,
        second_turns,
    )
    assert (spec.prompted is None) == (schema is not PromptedSpec)


def test_the_difference_of_two_rewards_is_a_log_odds_within_its_tolerance():
    reward = RewardSpec("r", "r", "m", tie_within=0.5)
    assert reward.preferred(0.0, 0.4) == 1.5
    assert reward.preferred(1.0, 0.0) == pytest.approx(1 + 1 / (1 + 2.718281828))
    assert JurySpec("j", "j", ["a", "b"]).jurors == ("a", "b")
