"""What imports what: the contracts of pyproject.toml, and what starting the program costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard.startup import _from_names

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
if {prepared}:
    from alignboard.cli import main
    sys.argv = ["alignboard", "--version"]
    with contextlib.suppress(SystemExit):
        main()
import datasets.load, requests
def asked():
    raise SystemExit("a server was asked")
if {prepared}:
    datasets.load.get_session = asked
print(datasets.load_dataset("json", data_files="rows.jsonl", split="train")[0])
print("scipy.io" in sys.modules, "chardet" in sys.modules, requests.compat.chardet.__name__)
import scipy.io, chardet
user = type(sys)("user")
user.scipy = scipy
datasets.streaming.patch_submodule(user, "scipy.io.loadmat", asked).start()
print(user.scipy.io.loadmat is asked)
"""


def run_alone(script, folder):
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"},
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()[-3:]


def test_a_command_reads_local_files_without_counting_them_on_a_server_or_importing_scipy(tmp_path):
    pytest.importorskip("scipy.io")
    pytest.importorskip("chardet")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    found = run_alone(_READS_A_FILE.format(prepared=True), tmp_path)
    assert found == ["{'a': 1}", "False False charset_normalizer", "True"]


@pytest.mark.slow
def test_without_our_start_datasets_imports_scipy_and_requests_chardet(tmp_path):
    pytest.importorskip("scipy.io")
    pytest.importorskip("chardet")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    script = _READS_A_FILE.format(prepared=False)
    script = "import os; os.environ['HF_UPDATE_DOWNLOAD_COUNTS'] = '0'\n" + script
    assert run_alone(script, tmp_path)[1] == "True True chardet"


@pytest.mark.parametrize(
    "text",
    [
        '__all__ = ["A", "B"]',
        'import a\n__all__ = [\n    "A",\n    "B",\n]\nx = 1\n',
        '__all__ = ["A"]\nx = 1\n__all__ = ["B"]\n',
        "from a import b\n",
        '    __all__ = ["A"]\n',
        'x = "__all__"\n',
        "",
    ],
)
def test_names_are_found_in_the_part_of_a_file_that_is_read(text):
    from transformers.utils.import_utils import fetch__all__

    assert fetch__all__(_from_names(text)) == fetch__all__(text)


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
