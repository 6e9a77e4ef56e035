"""The table of prices: dated, by whole names, with the day on which a model is switched off."""

from __future__ import annotations

import datetime as dt

import pytest

from alignboard.engines.openai.format import Usage
from alignboard.engines.openai.prices import Rate, load_prices
from alignboard.errors import InputError

DAY = dt.date(2026, 11, 23)


def test_a_name_is_a_whole_name():
    """Upstream takes gpt-4o for gpt-4, at twelve times its price."""
    prices = load_prices()
    assert prices.of("gpt-4o") == Rate(2.5, 10)
    assert prices.of("gpt-4") == Rate(30, 60)
    assert prices.of("gpt-4o-of-mine") is None


def test_a_board_of_805_pairs_costs_what_was_measured():
    """926.8 tokens a judgment, one of them the verdict (research: 7.46, 1.49 and, in batches, 0.75 US dollars)."""
    prices = load_prices()
    usage = Usage(round(805 * 925.8), 805)
    for model, batch, dollars in (
        ("gpt-4-1106-preview", False, 7.46),
        ("gpt-4.1-2025-04-14", False, 1.49),
        ("gpt-4.1-2025-04-14", True, 0.75),
    ):
        rate = prices.of(model, batch=batch)
        assert rate is not None
        assert rate.of(usage) == pytest.approx(dollars, abs=0.02)
    assert Rate(1, 1).of(Usage(3, None)) is None


def test_what_is_retired_is_said():
    prices = load_prices()
    gone = prices.retirement("gpt-4-1106-preview", DAY)
    assert gone == "gpt-4-1106-preview was switched off on 2026-10-23"
    soon = prices.retirement("gpt-4.1-2025-04-14", DAY)
    assert soon == "gpt-4.1-2025-04-14 will be switched off on 2027-01-14, in 52 days"
    assert prices.retirement("gpt-4.1-2025-04-14", dt.date(2026, 10, 1)) is None
    assert prices.retirement("unknown", DAY) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "date: 2026-01-01\nsource: me\nmodels: {a: {prompt: -1, answer: 1}}",
            "models.a has a neg",
        ),
        ("date: 2026-01-01\nsource: me\nmodels: {a: {promt: 1}}", "did you mean 'prompt'"),
        ("date: soon\nsource: me\nmodels: {}", "date"),
    ],
)
def test_a_table_of_ones_own_is_checked(text, said, tmp_path):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "prices.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_prices(tmp_path)
