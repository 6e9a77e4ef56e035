"""The documentation against the program: commands and options exist, YAML is valid, links lead somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from alignboard.boards.presets import load_preset
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.fetch.packages import PackageSource
from alignboard.judges.load import load_judge
from alignboard.models.registry import load_model
from alignboard.pipeline.plans.schema import Plan
from alignboard.pipeline.plans.schema import check as check_plan
from alignboard.suites import convert, load_evaluation, read_yaml
from alignboard.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def blocks(page):
    """The code of a page: fenced, or indented by four."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", rest, re.MULTILINE):
        yield re.sub(r"^    ", "", block, flags=re.MULTILINE)


def commands(page):
    """The lines that call the program, continued ones joined."""
    for block in blocks(page):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = line.removeprefix("$ ")
            if words.startswith("alignboard "):
                yield words


ALL = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), ALL)
def test_a_command_exists_with_its_options(page, line):
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if isinstance(command, click.Group) and words and words[0].isupper():
        return  # a synopsis
    if isinstance(command, click.Group) and "outputs" in command.commands:
        command = command.commands[
            "outputs"
        ]  # what `alignboard judge` does where no command is named
    assert command is not cli, f"{page}: there is no such command"
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    given = {
        word.partition("=")[0].strip("[]|") for word in words if word.strip("[").startswith("--")
    }
    assert given <= known | {"--help"}, f"{page}: {sorted(given - known)} of {line!r}"


def declarations(page):
    """The YAML of a page: what is a mapping over more than a word."""
    for block in blocks(page):
        try:
            content = yaml.safe_load(block)
        except yaml.YAMLError:
            continue
        if isinstance(content, dict) and not block.startswith(("alignboard ", "win rate ")):
            yield content


def recipe_with(content):
    return read_yaml(ROOT / "train/mistral-7b/dpo-qlora.yaml") | content


PARTS = {
    "endpoint": lambda content: {"name": "x", "base": "x", **content},
    "instructions": lambda content: {"kind": "evaluation", "name": "x", "title": "x", **content},
    "data": recipe_with,
    "sweep": lambda content: {
        "name": "x",
        "models": {"y": {}},
        "recipes": ["demo/dpo"],
        "suites": ["demo"],
        **content,
    },
}
"""by the key that it begins with: the declaration that a part of one stands in"""


def read_example(content, workspace):
    """Read a declaration of the docs as the program reads a user's file; the name that it has there."""
    found = next((PARTS[key] for key in PARTS if next(iter(content)) == key), None)
    content = content if found is None else found(content)
    name = content.get("name", "example")

    def written(room):
        path = workspace / room / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    match content:
        case {"kind": "evaluation"}:
            content.setdefault("title", name)
            written("evaluate/suites")
            return load_evaluation(name, workspace).name == name
        case {"kind": _}:
            written("evaluate/judges")
            return load_judge(name, workspace).name == name
        case {"models": _}:
            path = written("evaluate/plans")
            plan = convert(path, content, Plan, "an example")
            check_plan(path, plan)
            return plan.name == name
        case {"base": _, "name": _}:
            written("evaluate/models")
            return load_model(name, workspace).name == name
        case {"archives": _}:
            return convert(name, content, PackageSource, "a package").name == name
        case {"columns": _}:
            written("leaderboards")
            return load_preset(name, workspace).title == content["title"]
        case {"method": _}:
            return load_recipe(written("train")).method == content["method"]
    return False


EXAMPLES = {
    f"{page.name}-{number}": content
    for page in PAGES
    for number, content in enumerate(declarations(page))
}


@pytest.mark.parametrize("content", EXAMPLES.values(), ids=EXAMPLES)
def test_the_program_reads_every_declaration(content, tmp_path):
    assert read_example(dict(content), tmp_path), f"no reader knows {list(content)}"


def test_declarations_were_found_and_a_misspelt_one_is_refused(tmp_path):
    assert len(EXAMPLES) >= 16
    for content in EXAMPLES.values():
        with pytest.raises(InputError):
            read_example({**content, "nosuchfield": 1}, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert [name for name in pages if f" {name}\n" not in navigation] == []


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index]
    assert missing == ["index.md"]


def test_the_tests_that_hold_a_promise_exist():
    pages = [ROOT / "docs" / name for name in ("reliability.md", "security.md")]
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    named = re.findall(r"`(test_\w+)(\.py)?`", page)
    files = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    defined = re.findall(
        r"^def (test_\w+)", "\n".join(map(Path.read_text, files.values())), re.MULTILINE
    )
    defects = re.findall(r"^\| (\d+)[ab]? \| .* \| `test_\w+` \|", page, re.MULTILINE)
    assert {int(number) for number in defects} == set(range(1, 42))
    promises = re.findall(r"\n\| Promise .*\n.*\n((?:\|.*\n)+)", page)
    rows = [row for table in promises for row in table.splitlines()]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"\| `test_\w+` \|$", row)] == []
    assert {name for name, suffix in named if suffix} <= set(files)
    assert {name for name, suffix in named if not suffix} <= set(defined)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_table_fits_a_screen(page):
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]
    too_long = [cell for cell in cells if len(cell) > LONGEST]
    assert too_long == []


LONGEST = 80
"""characters of a cell"""
