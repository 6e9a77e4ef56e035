"""The structure of the package, measured: lines by room, imports that run in circles, crowded folders, repeated names.

``python benchmarks/structure.py`` prints a table and writes it as JSON.
"""

from __future__ import annotations

import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "alignboard"
LOOPS = (
    "engines.generate",
    "engines.local",
    "engines.openai.endpoint",
    "judges.backends",
    "judges.calls",
    "judges.runner",
    "benchmarks.run",
    "training.trainer",
    "pipeline.answerers",
    "pipeline.jobs",
    "models.loading",
)
"""what loads or asks a model; commands leave it to the jobs that `pipeline.runner` runs"""
_DRAWS = {"torch.multinomial", "torch.searchsorted", "torch.distributions.Categorical"}
"""how a token is drawn from probabilities"""


@dataclass(frozen=True)
class Structure:
    """What `measure` finds."""

    lines: int
    """of Python, blank ones and comments included"""
    share: dict[str, float]
    """room -> its share of the lines, in percent; modules beside the rooms count as one room"""
    crowded: dict[str, int]
    """folder -> how many Python files it holds, the fullest first"""
    spec_checks: int
    """``isinstance`` on the kind of a judge's declaration"""
    repeated_classes: dict[str, list[str]]
    """public class name -> the modules that define one of that name"""
    circles: list[tuple[str, str]]
    """pairs of rooms that import each other"""
    one_of: dict[str, list[str]]
    """what there is to be one of -> the modules that have it"""
    loops_of_commands: list[str]
    """modules of ``cli`` that load or ask a model by themselves"""


def modules(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package, parsed."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package), ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    """The room of a module: the folder below the package, or ``.`` for the modules beside the rooms."""
    return path.parts[0] if len(path.parts) > 1 else "."


def is_spec_check(node: ast.AST) -> bool:
    """Whether ``node`` is ``isinstance(x, ...Spec)``, or of a pool of judges."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    if node.func.id != "isinstance" or len(node.args) != 2:
        return False
    names = [n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)]
    return any(name.endswith(("Spec", "Pool")) and name != "ModelSpec" for name in names)


def imported_rooms(tree: ast.Module, package: Path) -> set[str]:
    """The rooms that a module imports from, at its top or inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignboard."):
            parts = str(node.module).split(".")
            found.add(parts[1] if (package / parts[1]).is_dir() else ".")
    return found


def has_loop(tree: ast.Module) -> bool:
    """Whether a module imports one of `LOOPS`, at its top or inside functions."""
    names = [
        f"{node.module}.{one.name}"
        for node in run_time(tree)
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    ]
    return any(f"{name}.".startswith(f"alignboard.{loop}.") for name in names for loop in LOOPS)


def run_time(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of a module without what is under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            waiting.extend(child.orelse if typing_only else [child])  # pyright: ignore[reportAttributeAccessIssue]


def has(tree: ast.Module) -> set[str]:
    """Of what there is to be one, what a module has: a board, a requester, a loader, a sampler."""
    found = set()
    for node in run_time(tree):
        if isinstance(node, ast.ClassDef) and node.name == "Board":
            found.add("board")
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(one.name for one in node.names)]
            if any(
                name.split(".")[0] in {"httpx", "requests", "urllib3", "aiohttp"} for name in names
            ):
                found.add("requester")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "AutoModelForCausalLM.from_pretrained" or "AutoModelForCausalLM" in {
                ast.unparse(one) for one in node.args
            }:
                found.add("loader")
            given = {one.arg for one in node.keywords}
            of_transformers = (
                called.endswith(".generate") and {"max_new_tokens", "do_sample"} & given
            )
            if of_transformers or called in _DRAWS:
                found.add("sampler")
    return found


def measure(package: Path = PACKAGE) -> Structure:
    """The structure as it stands."""
    lines: Counter[str] = Counter()
    folders: Counter[str] = Counter()
    classes: dict[str, list[str]] = defaultdict(list)
    imports: dict[str, set[str]] = defaultdict(set)
    one_of: dict[str, list[str]] = defaultdict(list)
    spec_checks = 0
    loops: list[str] = []
    for path, tree in modules(package):
        lines[room(path)] += len((package / path).read_text(encoding="utf-8").splitlines())
        folders[path.parent.as_posix()] += path.name != "__init__.py"
        spec_checks += sum(is_spec_check(node) for node in ast.walk(tree))
        imports[room(path)] |= imported_rooms(tree, package) - {room(path), "."}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(path.as_posix())
        if room(path) == "cli" and has_loop(tree):
            loops.append(path.as_posix())
        for one in has(tree):
            one_of[one].append(path.as_posix())
    total = sum(lines.values())
    return Structure(
        lines=total,
        share={name: round(100 * n / total, 1) for name, n in lines.most_common()},
        crowded=dict(folders.most_common()),
        spec_checks=spec_checks,
        repeated_classes={n: where for n, where in sorted(classes.items()) if len(where) > 1},
        circles=sorted((a, b) for a in imports for b in imports[a] if a < b and a in imports[b]),
        one_of=dict(sorted(one_of.items())),
        loops_of_commands=loops,
    )


def main() -> None:
    """Print the structure, and write it as JSON."""
    found = measure()
    print(f"{found.lines} lines of Python")
    for name, share in found.share.items():
        print(f"  {name:14s} {share:5.1f} %")
    print("folders:", ", ".join(f"{name} {n}" for name, n in list(found.crowded.items())[:6]))
    print("isinstance on judge declarations:", found.spec_checks)
    print("circles:", found.circles or "none")
    for name, where in found.one_of.items():
        print(f"{name}: {', '.join(where)}")
    for name, where in found.repeated_classes.items():
        print(f"  class {name} in {', '.join(where)}")
    out = Path(__file__).parent / "results" / "structure.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
