"""The house as `benchmarks/structure.py` measures it: each bound, and a planted fault that the measurement finds."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "structure.py"


@pytest.fixture(scope="module")
def structure():
    spec = importlib.util.spec_from_file_location("structure", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def house(structure):
    return structure.measure()


def planted(structure, folder, **files):
    """The structure of a package of these files; ``__`` in a name stands for a folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return structure.measure(folder)


def test_no_room_is_above_16_percent_of_the_lines(house, structure, tmp_path):
    assert {room: share for room, share in house.share.items() if share > 16} == {}
    found = planted(structure, tmp_path, big__a="x = 1\n" * 17, small__a="x = 1\n" * 83)
    assert found.share == {"small": 83.0, "big": 17.0}


def test_no_folder_has_25_files(house, structure, tmp_path):
    assert {folder: n for folder, n in house.crowded.items() if n >= 25} == {}
    files = {f"room__m{k}": "x = 1\n" for k in range(25)} | {"room____init__": ""}
    assert planted(structure, tmp_path, **files).crowded["room"] == 25


def test_no_two_rooms_import_each_other(house, structure, tmp_path):
    assert house.circles == []
    found = planted(
        structure,
        tmp_path,
        one__a="from alignboard.two.a import x\n",
        two__a="def f():\n    from alignboard.one.a import y\n",
    )
    assert found.circles == [("one", "two")]


def test_the_kind_of_a_judge_is_asked_of_the_judge(house, structure, tmp_path):
    assert house.spec_checks < 10
    text = "isinstance(judge, Pool)\nisinstance(judge, RewardSpec | JurySpec)\nisinstance(x, ModelSpec)\n"
    assert planted(structure, tmp_path, room__a=text).spec_checks == 2


def test_no_two_public_classes_have_one_name(house, structure, tmp_path):
    assert house.repeated_classes == {}
    found = planted(structure, tmp_path, one__a="class Row: ...\n", two__b="class Row: ...\n")
    assert found.repeated_classes == {"Row": ["one/a.py", "two/b.py"]}


def test_there_is_one_board_one_requester_one_loader_and_one_sampler(house, structure, tmp_path):
    one_of = {
        "board": ["boards/board.py"],
        "loader": ["models/weights.py"],
        "requester": ["fetch/http.py", "fetch/posts.py"],
        "sampler": ["engines/local/batch.py"],
    }
    assert house.one_of == one_of
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import httpx\n"
        "else:\n    import requests\n"
        "class Board: ...\n"
        "AutoModelForCausalLM.from_pretrained(path)\nmodel.generate(ids, do_sample=True)\n"
    )
    found = planted(structure, tmp_path, one__a=text)
    assert found.one_of == {
        name: ["one/a.py"] for name in ("board", "loader", "requester", "sampler")
    }
    drawn = planted(structure, tmp_path, one__a="torch.multinomial(probabilities, 1)\n")
    assert drawn.one_of == {"sampler": ["one/a.py"]}
    typed = planted(structure, tmp_path, one__a="if TYPE_CHECKING:\n    import httpx\n")
    assert typed.one_of == {}


def test_commands_load_and_ask_nothing_themselves(house, structure, tmp_path):
    """They build jobs and give them to the runner; types are no loop."""
    assert house.loops_of_commands == []
    found = planted(
        structure,
        tmp_path,
        cli__engine="def f():\n    from alignboard.engines.generate import generate\n",
        cli__judge__backend="from alignboard.judges import backends\n",
        cli__typed="if TYPE_CHECKING:\n    from alignboard.judges.runner import Counts\n",
        cli__plan="from alignboard.pipeline.runner import run_plan\n",
        pipeline__jobs="from alignboard.engines.generate import generate\n",
    )
    assert found.loops_of_commands == ["cli/engine.py", "cli/judge/backend.py"]
