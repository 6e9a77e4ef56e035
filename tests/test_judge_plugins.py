"""A judge backend of another package: one file and one registration, and every command knows it."""

from __future__ import annotations

import json
import sys
import textwrap

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

PACKAGE = '''
"""Prefers the output with more vowels."""

import re

from alignboard.errors import InputError
from alignboard.judges.parsing.reply_forms import Found, ReplyForm
from alignboard.judges.rows import Reply
from alignboard.judges.spec import JudgeSpec
from alignboard.registry import register


class VowelSpec(JudgeSpec, frozen=True, tag="vowels"):
    """Counts vowels."""

    letters: str = "aeiou"
    order: str = "both"

    def check(self, path):
        if not self.letters:
            raise InputError(f"{path}: letters is empty; name the letters that count.")

    def open(self, opening):
        return Vowels(self.letters)


class Vowels:
    def __init__(self, letters):
        self.identity = {"scheme": "vowels-1", "letters": letters}
        self._letters = letters

    def ask(self, calls):
        for call in calls:
            question = call.questions[0]
            counts = [
                1 + sum(c in self._letters for c in text)
                for text in (question.first, question.second)
            ]
            yield call, Reply(scores=tuple(map(float, counts)))


class Percent(ReplyForm, frozen=True, tag="percent"):
    """How sure the judge is of the first, as in ``70 %``."""

    def find(self, text):
        return [
            Found(match[1], match.start(), match.end(), 2 - int(match[1]) / 100)
            for match in re.finditer(r"(\\d{1,3}) ?%", text)
        ]


def plugin():
    register("judge", "vowels", "vowel_judge:VowelSpec")
    register("reply form", "percent", "vowel_judge:Percent")
'''


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace, and beside it an installed package with an entry point."""
    (tmp_path / "vowel_judge.py").write_text(textwrap.dedent(PACKAGE))
    info = tmp_path / "vowel_judge-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vowel-judge\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[alignboard.plugins]\nvowels = vowel_judge:plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry._STATE, "plugins_loaded", False)
    kinds = ("judge", "reply form")
    before = {kind: dict(registry._STATE.targets.get(kind, {})) for kind in kinds}
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
    yield tmp_path
    for kind in kinds:
        for name in {"vowels", "percent"} & set(registry._STATE.targets[kind]) - set(before[kind]):
            del registry._STATE.targets[kind][name]
    sys.modules.pop("vowel_judge", None)


def test_a_backend_of_another_package_judges_from_the_command_line(workspace):
    command = ["judge", "one.json", "--judge", "vowels", "--baseline", "base.json"]
    dry = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert "vowels on one: 8 calls" in dry.output, dry.output
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    [path] = workspace.rglob("annotations.json")
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
