"""The wheel: built, looked into, installed into a clean environment and used from another folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

import alignboard

ROOT = Path(__file__).parents[1]
ROOMS = ("train", "evaluate")


def run(*command, cwd, **variables):
    """Run a program without this process's Python settings; its output, or a failure that shows it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    finished = subprocess.run(
        command, cwd=cwd, env=kept | variables, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--no-isolation", "--outdir", str(folder)]
    run(sys.executable, "-m", "build", *options, str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The programs of a new environment that holds the wheel, and borrows only its dependencies from this one."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    python = scripts / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    # A path in a .pth file is appended, and .pth files inside it are not read: the editable install of the
    # checkout stays out of sight.
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return scripts


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.parametrize("room", ROOMS)
def test_wheel_carries_every_declaration_and_nothing_else(wheel, room):
    prefix = f"alignboard/library/{room}/"
    packed = {name.removeprefix(prefix) for name in names(wheel) if name.startswith(prefix)}
    written = {path.relative_to(ROOT / room).as_posix() for path in (ROOT / room).rglob("*.yaml")}
    assert written
    assert packed == written


def test_wheel_is_typed_and_holds_only_the_package(wheel):
    packed = names(wheel)
    assert "alignboard/py.typed" in packed
    roots = {name.split("/")[0] for name in packed}
    assert roots == {"alignboard", f"alignboard-{alignboard.__version__}.dist-info"}


def test_wheel_says_what_the_package_says(wheel):
    with zipfile.ZipFile(wheel) as archive:
        stem = f"alignboard-{alignboard.__version__}.dist-info"
        metadata = archive.read(f"{stem}/METADATA").decode()
        assert f"{stem}/licenses/LICENSE" in archive.namelist()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    base = [line for line in required if "extra ==" not in line]
    assert any("alpaca-eval" in line for line in base)
    assert not any(name in line for line in base for name in ("torch", "transformers", "pandas"))


def test_installed_package_finds_its_library_from_any_folder(clean, tmp_path):
    script = (
        "import alignboard, alignboard.workspace as workspace\n"
        "print(alignboard.__file__)\n"
        "print(workspace.library())\n"
        "print(workspace.declaration('evaluate/suites', 'alpaca-eval-2'))\n"
    )
    python = clean / Path(sys.executable).name
    module, library, suite = map(Path, run(str(python), "-c", script, cwd=tmp_path).splitlines())
    assert module.is_relative_to(clean.parent), "the checkout was imported, not the wheel"
    assert library == module.parent / "library"
    assert suite == library / "evaluate" / "suites" / "alpaca-eval-2.yaml"
    assert suite.is_file()


def test_installed_command_helps_from_any_folder(clean, tmp_path):
    shown = run(str(clean / "alignboard"), "--help", cwd=tmp_path, NO_COLOR="1", COLUMNS="100")
    for command in ("reproduce", "board", "audit"):
        assert command in shown
    assert list(tmp_path.iterdir()) == []


def test_the_citation_names_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == alignboard.__version__
