"""What imports what: the contracts of pyproject.toml, and what starting the program costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = [
    "alpaca_eval",
    "datasets",
    "lm_eval",
    "matplotlib",
    "pandas",
    "peft",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
    "trl",
]


def test_import_contracts_hold():
    program = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "0 broken" in finished.stdout


@pytest.mark.parametrize("module", ["alignboard", "alignboard.cli"])
def test_importing_loads_nothing_heavy(module, tmp_path):
    script = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == []


_READS_A_FILE = """
import contextlib, sys
from alignboard.cli import main
sys.argv = ["alignboard", "--version"]
with contextlib.suppress(SystemExit):
    main()
import datasets.load
def asked():
    raise SystemExit("a server was asked")
datasets.load.get_session = asked
print(datasets.load_dataset("json", data_files="rows.jsonl", split="train")[0])
"""


def test_a_command_reads_local_files_without_counting_them_on_a_server(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    finished = subprocess.run(
        [sys.executable, "-c", _READS_A_FILE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("{'a': 1}\n")


_READS_LLAMA = """
import sys
from alignboard.startup import prepare
if {prepared}:
    prepare()
reads = []
def note(event, given):
    if event == "open" and str(given[0]).endswith("/configuration_llama.py"):
        reads.append(given[0])
sys.addaudithook(note)
from transformers import AutoModelForCausalLM, LlamaForCausalLM, models
print(len(reads), "scipy" in sys.modules, hash((*sorted(dir(models)), *sorted(dir(models.llama)))))
"""


@pytest.mark.slow
def test_a_process_of_ours_lists_the_same_models_in_one_reading_and_imports_no_scipy(tmp_path):
    pytest.importorskip("scipy")
    said = {}
    for prepared in (True, False):
        finished = subprocess.run(
            [sys.executable, "-c", _READS_LLAMA.format(prepared=prepared)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        assert finished.returncode == 0, finished.stderr
        said[prepared] = finished.stdout.split()
    assert said[True][:2] == ["1", "False"]
    assert said[False][:2] == ["3", "True"]
    assert said[True][2] == said[False][2]


@pytest.mark.parametrize("room", ["train", "evaluate"])
def test_rooms_of_declarations_hold_no_python(room):
    folder = ROOT / room
    assert folder.is_dir()
    found = [path for suffix in ("py", "pyi", "ipynb") for path in folder.rglob(f"*.{suffix}")]
    assert found == [], "an importable evaluate/ would shadow the package on which lm-eval depends"
