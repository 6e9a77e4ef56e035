"""What docs/compare.md says of the published order: neighbours, and the prompts that would separate them."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

import alignboard
from alignboard.cli.app import cli

RELEASED = os.environ.get("ALIGNBOARD_RELEASED_DATA")
pytestmark = pytest.mark.skipif(RELEASED is None, reason="ALIGNBOARD_RELEASED_DATA is not set")


def test_few_neighbours_of_the_published_order_are_separated(tmp_path):
    results = Path(str(RELEASED)) / "results"
    suite = alignboard.load_suite("alpaca-eval-2")
    with alignboard.ResultsFolder(results) as folder:
        rows = alignboard.reproduce(suite, folder, None).models
    order = [row.model for row in sorted(rows, key=lambda row: -(row.win_rate or 0))]
    order.remove(suite.baseline)
    command = ["power", *order, "--all-pairs", "--from", str(results), "--suite", suite.name]
    done = CliRunner().invoke(cli, [*command, "--json", str(tmp_path / "p.json")])
    assert done.exit_code == 0, done.output
    found = {
        frozenset((one["a"], one["b"])): one
        for one in json.loads((tmp_path / "p.json").read_text())
    }
    needed = sorted(found[frozenset(pair)]["needed"] for pair in pairwise(order))
    assert len(needed) == 22
    assert needed[:3] == [10, 91, 774]
    assert (needed[3], needed[7]) == (900, 6301)
    assert (needed[8], needed[19]) == (8930, 165126)
    assert needed[20:] == [1588538, 2029779]
