"""An adapter merged into its base: the checkpoint is the same model, or there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tiny_models
from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.exports.hub import results_of
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.training.export import export_adapter
from test_train import QuickBase, base, sft_rows, short

__all__ = ["base"]  # the fixture


def test_the_merged_checkpoint_is_the_adapter_on_its_base(tmp_path: Path) -> None:
    adapter = tiny_models.adapters("llama")["one"]
    command = ["export", str(adapter), "--to", str(tmp_path / "merged"), "--json", "-"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "merged" / "export.json").read_text())
    assert report["on_original"]["largest_difference"] < 1e-3
    assert report["on_original"]["kl"] < 1e-6
    assert report["on_quantised"] is None
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "\nbase_model: " in card
    assert "More Information Needed" not in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]
    # It is no base: the adapter changed it.
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    base = AutoModelForCausalLM.from_pretrained(tiny_models.base("llama")).state_dict()
    assert merged.keys() == base.keys()
    assert any(bool((merged[name] != base[name]).any()) for name in base)


def test_the_card_has_the_run_and_the_scores_of_boards(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard

    from alignboard.training.trainer import train

    adapter = tmp_path / "results" / "mine" / "adapter"
    report = {"source": "x.jsonl", "kept": 12}
    train(short("demo/sft", 2), base("llama"), sft_rows(), adapter, data=report)
    own: Any = ModelCard.load(adapter / "README.md")
    assert own.data.library_name == "peft"
    assert own.data.base_model == str(base("llama"))
    run = json.loads((adapter / "training.json").read_text())
    for fact in ("base_fingerprint", "rows_digest", "template_digest", "device"):
        assert str(run[fact]) in own.text
    assert {"alignboard", "torch", "trl", "accelerate"} <= run["versions"].keys()
    assert run["memory_mib"] > 100
    assert '"source": "x.jsonl"' in own.text
    assert "More Information Needed" not in own.text

    column = Column(key="r", name="win rate", kind="win rate", unit="%", judge="j", set="s")
    rows = [Row("mine", {"r": Score(61.0, 55.0, 67.0)}), Row("other", {"r": Score(1.0)})]
    board = Board(name="b", title="b", columns=[column], rows=rows)
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / "b.json").write_text(board.to_json())
    (tmp_path / "leaderboards" / "no-board.json").write_text("[1]")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["export", "results/mine/adapter", "--to", "merged"])
    assert done.exit_code == 0, done.output
    data: Any = ModelCard.load(tmp_path / "merged" / "README.md").data
    assert data.eval_results is not None
    (result,) = data.eval_results
    assert (result.metric_value, result.dataset_name) == (61.0, "s")
    assert "95 % interval 55.0 to 67.0" in str(result.metric_name)
    # A seed of a sweep has the scores of its setting.
    (of_all,) = results_of("mine-seed1", tmp_path / "leaderboards")
    assert of_all.metric_value == 61.0


def test_an_export_that_is_not_merged_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    def unmerged(self: Any, **_: Any) -> Any:
        return self.unload()

    monkeypatch.setattr(PeftModel, "merge_and_unload", unmerged, raising=False)
    with pytest.raises(InputError, match=r"is not the adapter on its base .* nothing was written"):
        export_adapter(tiny_models.adapters("llama")["one"], tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_what_is_trained_in_few_bits_has_two_truths(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import shutil

    adapter = shutil.copytree(tiny_models.adapters("llama")["one"], tmp_path / "adapter")
    (adapter / "training.json").write_text(json.dumps({"recipe": {"quantization": {"bits": 4}}}))
    report = export_adapter(adapter, tmp_path / "merged")
    assert report.trained_in_bits == 4
    assert report.on_quantised is not None
    assert report.on_original.kl < 1e-6 < report.on_quantised.kl
    assert "in 4 bits, as it was trained" in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.parametrize(
    ("adapter", "to", "message"),
    [("none", "new", "is no adapter"), ("one", ".", "exists; an export")],
)
def test_what_cannot_be_exported(tmp_path: Path, adapter: str, to: str, message: str) -> None:
    path = tiny_models.adapters("llama").get(adapter, tmp_path / adapter)
    with pytest.raises(InputError, match=message):
        export_adapter(path, tmp_path / to)
