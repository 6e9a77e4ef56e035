"""The documentation against the program: commands and options exist, YAML is valid, links lead somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from alignboard.cli.app import cli
from alignboard.pipeline.plans.schema import Plan
from alignboard.suites import EvaluationSuite, convert

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
    """The YAML blocks of a page that are a whole plan or a whole suite."""
    for block in blocks(page):
        try:
            content = yaml.safe_load(block)
        except yaml.YAMLError:
            continue
        if not isinstance(content, dict):
            continue
        if {"name", "models"} <= content.keys():
            yield content, Plan
        elif content.get("kind") == "evaluation":
            yield content | {"title": content.get("title", "x")}, EvaluationSuite


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_declarations_are_valid(page):
    for content, schema in declarations(page):
        assert convert(page, content, schema, "an example").name == content["name"]


def test_some_declarations_were_found():
    assert sum(1 for page in PAGES for _ in declarations(page)) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert [name for name in pages if f"- {name}\n" not in navigation] == []


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
