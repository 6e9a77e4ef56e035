"""A board says what its judges were asked, and shows hostile prompts as text."""

from alignboard.boards.board import Board
from alignboard.boards.judge_prompts import with_judges
from alignboard.boards.of_alpaca_eval import published_board
from alignboard.boards.scoring import judged_columns
from alignboard.suites import load_suite
from test_board_page import to_html

JUDGE = """\
kind: prompted
name: mine
title: My judge
model: a-model
prompt:
  messages:
    - {role: system, content: "</pre><script>alert(1)</script>"}
    - {role: user, content: "{instruction} A: {first}\\nB: {second}\\u202e"}
verdict: {by: bracket}
"""


def board(judge: str) -> Board:
    return Board(name="b", title="B", columns=list(judged_columns(judge, None, None)), rows=[])


def test_the_prompt_of_a_judge_of_the_workspace_stands_on_the_page_as_text(tmp_path):
    (tmp_path / "evaluate" / "judges").mkdir(parents=True)
    (tmp_path / "evaluate" / "judges" / "mine.yaml").write_text(JUDGE)
    made = with_judges(board("mine"), tmp_path)
    assert made.judges["mine"].startswith("My judge\n\nModel: a-model\n\n[system]\n</pre>")
    assert Board.from_json(made.to_json()) == made
    page = to_html(made)
    assert "<script>alert(1)" not in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "A: {first}\nB: {second}\\u202e" in page


def test_a_judge_without_a_declaration_here_has_none(tmp_path):
    assert with_judges(board("somebody-elses"), tmp_path).judges == {}
    assert "What the judges were asked" not in to_html(
        with_judges(board("somebody-elses"), tmp_path)
    )


def test_the_published_board_shows_the_prompt_of_alpaca_eval():
    made = published_board(load_suite("alpaca-eval-2"))
    assert list(made.judges) == ["weighted_alpaca_eval_gpt4_turbo"]
    assert "{instruction}" in made.judges["weighted_alpaca_eval_gpt4_turbo"]
