"""The parts that CONTRIBUTING.md shows, each installed as a package: a loss, a kind of job, a column, a plot.

The judge backend and the reply form are used in `test_judge_plugins`.
"""

import os
import sys
from pathlib import Path

import pytest
import yaml

from alignboard.boards import page
from alignboard.boards.of_results import results_board
from alignboard.boards.plots.registry import panels
from alignboard.errors import InputError
from alignboard.pipeline.executors.processes import Processes
from alignboard.pipeline.executors.work import Settings, Work, silent
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.store import WorkspacePaths
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal
from boards import plan_board
from test_results_board import verdicts

ROOT = Path(__file__).parents[1]


def test_a_loss_is_a_method_of_a_recipe(contributed):
    torch = pytest.importorskip("torch")
    from alignboard.training.losses import PairLogps
    from alignboard.training.recipe import parse_recipe

    contributed("exponential_loss")
    demo = yaml.safe_load((ROOT / "train/demo/dpo.yaml").read_text())
    recipe = parse_recipe({**demo, "method": "exponential", "loss": {"beta": 0.5}}, "x")
    given = recipe.loss or {}
    assert given == {"beta": 0.5, "power": 2.0}
    batch = PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in (-4.0, -8.0, 4.0, 8.0)))
    loss = recipe.loss_spec.load()(batch, beta=given["beta"], power=given["power"])
    assert loss.item() == pytest.approx(torch.tensor(-4.0).double().exp().item())
    with pytest.raises(InputError, match="no parameter 'tau'"):
        parse_recipe({**demo, "method": "exponential", "loss": {"beta": 0.5, "tau": 1.0}}, "x")
    with pytest.raises(InputError, match="power: a number > 0 was expected"):
        parse_recipe({**demo, "method": "exponential", "loss": {"beta": 0.5, "power": 0}}, "x")


def test_a_kind_of_job_is_done_by_a_worker(contributed, tmp_path):
    site = contributed("letter_jobs")
    assert job_kind("letters").version == 1
    paths, graph = WorkspacePaths(tmp_path / "workspace"), Graph()
    graph.add("count", "letters", "any", {"text": "alignboard"})
    path = os.pathsep.join([str(site), *sys.path])
    settings = Settings(1, environment={"PYTHONPATH": path})
    with Journal(paths.journal, "run") as journal:
        work = Work(list(graph), set(), paths, journal, silent)
        Processes(settings).run(work)
        work.require_done()
    assert (paths.results / "letters.txt").read_text() == "10"


def test_an_unknown_kind_of_job_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'judge'"):
        job_kind("juge")


def test_a_column_is_on_every_board_with_responses(contributed, tmp_path):
    contributed("size_column")
    verdicts(tmp_path, "m", "a")
    write_rows(tmp_path / "m" / "model_outputs.json", [Generation("p0", "x", "m")])
    board = results_board(tmp_path)
    size = (tmp_path / "m" / "model_outputs.json").stat().st_size
    assert board.score(board.rows[0], "size").value == size
    assert "size" in page.to_html(board)


def test_a_plot_is_on_every_board(contributed):
    contributed("count_plot")
    board = plan_board(("tiny-phi",))
    assert panels(board)[-1].heading == "Models"
    assert "Models" in page.to_html(board)
