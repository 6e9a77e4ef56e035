"""`benchmarks/fuzz.py`, small: every reader under mutated inputs, and a planted fault of each kind that it finds."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
MUTATIONS = 60


def load():
    sys.path.insert(0, str(SCRIPT.parent))  # its readers are files beside it
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


FUZZ = load()
READERS = FUZZ.readers()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_ends_in_a_sentence(name):
    found = FUZZ.run(name, READERS[name], MUTATIONS, seed=0)
    assert found.faults == []
    assert found.mutations == found.read + found.refused
    assert found.refused > 0


@pytest.mark.parametrize("number", [2777, 4469])
def test_places_that_no_value_has_are_a_sentence(number):
    """Found by a campaign: a page of parquet whose places are beyond its values, which Arrow hands over as they are."""
    found = FUZZ.run("battles.parquet", READERS["battles.parquet"], 1, 0, number)
    assert (found.refused, found.faults) == (1, [])


def test_a_mutation_is_repeated_by_its_number():
    again = FUZZ.readers()
    assert {name: one.seeds for name, one in again.items()} == {
        name: one.seeds for name, one in READERS.items()
    }


def test_planted_faults_are_found(monkeypatch, tmp_path):
    def raises(path):
        raise KeyError("a")

    def writes(path):
        (path.parent.parent / "outside").touch()

    def hangs(path):
        time.sleep(60)

    def writes_elsewhere(path):
        (tmp_path / "elsewhere").write_text("")

    def starts(path):
        subprocess.run(["true"], check=False)

    found = [
        FUZZ.run("x", FUZZ.Reader(".json", (b"[]",), read), 2, 0)
        for read in (raises, writes, writes_elsewhere, starts)
    ]
    assert found[2].faults == [f"{n}: open {tmp_path / 'elsewhere'}" for n in (1, 2)]
    assert found[3].faults == ["1: subprocess.Popen true", "2: subprocess.Popen true"]
    assert found[0].faults == ["0: KeyError: \"'a'\"", "1: KeyError: \"'a'\""]
    assert found[1].faults[-1] == "wrote outside"
    monkeypatch.setattr(FUZZ, "LONGEST", 0.01)
    assert FUZZ.run("x", FUZZ.Reader(".json", (b"[]",), hangs), 1, 0).faults == ["0: hangs"]


def test_a_mutation_is_the_same_every_time():
    reader = READERS["recipe"]
    same = [FUZZ.mutated(FUZZ.random.Random("0 recipe 7"), reader) for _ in range(2)]
    assert same[0] == same[1]
