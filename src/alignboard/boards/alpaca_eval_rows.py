"""Rows of AlpacaEval boards: one model as it was published, or as it was recomputed."""

from __future__ import annotations

from alignboard.boards.columns import Row, Score, known
from alignboard.boards.scoring import LENGTH
from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.published.board_rows import BoardRow
from alignboard.published.wheel_boards import PublishedRow
from alignboard.stats.intervals import Estimate, rate_interval
from alignboard.suites import Suite

WIN, LC, LC_ALIGNED, LC_JOINT = (
    "win_rate",
    "lc_win_rate",
    "lc_win_rate_aligned",
    "lc_win_rate_joint",
)
DECLARED_ADVERSARIAL = "declared adversarial"
"""flag of a model whose published name says that it was made to cheat the judge"""


def _scores(**scores: Score) -> dict[str, Score]:
    """The scores that have a value."""
    return {key: score for key, score in scores.items() if score.value is not None}


def published_row(row: PublishedRow, suite: Suite, file: str, *, declared: bool) -> Row:
    """A model as the published board in ``file`` has it."""
    n_total, wins, losses, draws = (
        _count(row, name, file) for name in ("n_total", "n_wins", "n_wins_base", "n_draws")
    )
    rate, error = row.win_rate, row.standard_error
    limits = None
    if rate is not None and error is not None:
        limits = rate_interval(Estimate.of_equal_clusters(rate / 100, error / 100, n_total))
    missing = suite.n_instructions - n_total
    flags = [f"{missing} rows missing or unparsed"] if missing > 0 else []
    win = Score(
        rate,
        known(limits.low, 100) if limits else None,
        known(limits.high, 100) if limits else None,
        error,
        n=n_total,
        counts={"won": wins, "drawn": draws, "lost": losses},
    )
    scores = _scores(
        win_rate=win,
        lc_win_rate=Score(row.length_controlled_winrate),
        lc_spread=Score(row.lc_standard_error),
        discrete_win_rate=Score(row.discrete_win_rate),
    )
    if row.avg_length is not None:
        scores[LENGTH] = Score(row.avg_length)
    return Row(row.model, scores, flags=flags + ([DECLARED_ADVERSARIAL] if declared else []))


def recomputed_row(row: BoardRow, aligned: str, *, declared: bool) -> Row:
    """A model as it was recomputed."""
    win = Score(
        known(row.win_rate),
        row.ci_low,
        row.ci_high,
        row.standard_error,
        n=row.n_total,
        unparsed=row.n_unparsed,
        counts={"won": row.n_wins, "drawn": row.n_draws, "lost": row.n_wins_base},
    )
    estimate = row.lc_win_rate_joint if aligned == LC_JOINT else row.lc_win_rate_aligned
    lc = Score(known(estimate), row.lc_ci_low, row.lc_ci_high, row.lc_standard_error)
    figures = {
        name: Score(known(getattr(row, name)))
        for name in (
            "discrete_win_rate",
            "lc_spread",
            "published_lc_win_rate",
            "published_win_rate",
            "win_rate_difference",
            "lc_difference",
            "lc_c",
            "lc_published_c",
            "lc_kkt_violation",
        )
    }
    scores = _scores(
        win_rate=win, lc_win_rate=Score(known(row.lc_win_rate_compat)), **{aligned: lc}, **figures
    )
    if row.rank is not None:
        scores[f"{WIN}/rank"] = Score(
            row.rank, row.rank_low, row.rank_high, n=row.n_total, note=row.rank_note
        )
    if row.avg_length is not None:
        scores[LENGTH] = Score(row.avg_length)
    flags = [*row.flags, *row.disagreements, *([DECLARED_ADVERSARIAL] if declared else [])]
    return Row(row.model, scores, flags=flags)


def _count(row: PublishedRow, name: str, file: str) -> int:
    value = getattr(row, name)
    if value is None:
        raise InputError(
            f"{file}, model {row.model!r}: {name} is missing, a whole number was expected."
        )
    return value


def declared_adversarial(file: str) -> set[str]:
    """The models whose names in the wheel's model configurations say that they are adversarial."""
    folder = package_file(file).parents[2] / "models_configs"
    return {
        path.parent.name
        for path in folder.glob("*/configs.yaml")
        if b"adversarial)" in path.read_bytes().lower()
    }
