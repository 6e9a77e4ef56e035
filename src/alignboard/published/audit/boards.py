"""The audit of published boards: what their own figures say against each other.

Nothing but the boards is read, so every model of the full release is audited although its annotations are not
here. All rules are identities or bounds, none is a guess: on the nine boards of alpaca-eval 0.6.6 (400 rows) they
fire on five rows, each of which is wrong (`test_audit`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence

from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.published.audit.finding import Finding, in_order, names_text
from alignboard.published.scores import lc_jump
from alignboard.published.wheel_boards import PublishedRow, read_published_board
from alignboard.suites import Suite
from alignboard.text import count

# Published figures have nine decimals or more.
_TOLERANCE = 1e-6
# A board is taken to be of a weighted judge, or of an unweighted one, when this share of its rows says so.
_MOST = 0.9
_FEWEST_ROWS = 10
_EVALUATORS = "leaderboards/evaluators/evaluators_leaderboard.csv"
_PERCENTAGES = ("Human agreement", "Bias", "Variance")
_FRACTIONS = ("Proba. prefer longer", "Proba. prefer lists", "Proba. prefer 1")


def audit_boards(suites: Sequence[Suite]) -> list[Finding]:
    """What is wrong with the published boards of ``suites``, from the installed ``alpaca-eval`` wheel alone."""
    findings: list[Finding] = []
    without_lc = []
    for file in sorted({board.file for suite in suites for board in suite.boards}):
        rows = read_published_board(file)
        if all(row.length_controlled_winrate is None for row in rows.values()):
            without_lc.append(file)
        findings += audit_board(file, rows)
    if without_lc:
        message = f"{count(len(without_lc), 'board')} of other judges have no length-controlled win rates at all."
        findings.append(
            Finding("no_lc_column", "note", None, "leaderboards", message, {"boards": without_lc})
        )
    if suites:
        path = package_file(_EVALUATORS)
        try:
            with path.open(encoding="utf-8", newline="") as file:
                findings += audit_evaluators(_EVALUATORS, list(csv.DictReader(file)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is not readable CSV: {error}.") from error
    return in_order(findings)


def audit_board(place: str, rows: dict[str, PublishedRow]) -> list[Finding]:
    """What is wrong with one board."""
    weighted = [row for row in rows.values() if _is_weighted(row)]
    known = [row for row in rows.values() if _counted_rate(row) is not None]
    unweighted_board = len(weighted) <= (1 - _MOST) * len(known)
    findings = [
        finding
        for row in rows.values()
        for finding in (
            *_counts(place, row),
            *_win_rate(place, row, unweighted=unweighted_board),
            *_standard_error(place, row, unweighted=not _is_weighted(row)),
        )
    ]
    if len(known) >= _FEWEST_ROWS and len(weighted) >= _MOST * len(known):
        findings += _unweighted_rows(place, rows, len(weighted))
    return findings + list(_missing_figures(place, rows)) + list(_lc_jumps(place, rows))


def _counted_rate(row: PublishedRow) -> float | None:
    """The discrete win rate that the counts give: (wins + draws / 2) / n, in percent."""
    if row.n_wins is None or row.n_draws is None or not row.n_total:
        return None
    return (row.n_wins + row.n_draws / 2) / row.n_total * 100


def _is_weighted(row: PublishedRow) -> bool:
    counted = _counted_rate(row)
    return (
        counted is not None
        and row.win_rate is not None
        and abs(row.win_rate - counted) > _TOLERANCE
    )


def _counts(place: str, row: PublishedRow) -> Iterator[Finding]:
    """Counts that do not add up, and a discrete win rate that is not theirs (upstream issue 471)."""
    counts = (row.n_wins, row.n_wins_base, row.n_draws, row.n_total)
    if None in counts:
        return
    wins, losses, draws, total = (n or 0 for n in counts)
    evidence = {"n_wins": wins, "n_wins_base": losses, "n_draws": draws, "n_total": total}
    if wins + losses + draws != total or min(wins, losses, draws) < 0:
        message = (
            f"{wins} wins, {losses} losses and {draws} draws are {wins + losses + draws} verdicts, "
            f"but n_total is {total}."
        )
        yield Finding("contradicts_counts", "error", row.model, place, message, evidence)
    counted = _counted_rate(row)
    published = row.discrete_win_rate
    if counted is None or published is None or abs(published - counted) <= _TOLERANCE:
        return
    message = (
        f"The discrete win rate {published:.3f} contradicts the row's own counts: {wins} wins and {draws} draws of "
        f"{total} are {counted:.3f}."
    )
    evidence |= {"discrete_win_rate": published, "from_counts": counted}
    yield Finding("contradicts_counts", "error", row.model, place, message, evidence)


def _win_rate(place: str, row: PublishedRow, *, unweighted: bool) -> Iterator[Finding]:
    """A win rate that no verdicts with these counts can have.

    A win is worth more than 1/2 and at most 1, a draw 1/2, a loss at least 0 and less than 1/2; for an unweighted
    judge a win is 1 and a loss 0.
    """
    counted = _counted_rate(row)
    if counted is None or row.win_rate is None or row.n_wins_base is None or not row.n_total:
        return
    if unweighted:
        low = high = counted
    else:
        low = ((row.n_wins or 0) + (row.n_draws or 0)) / 2 / row.n_total * 100
        high = counted + row.n_wins_base / 2 / row.n_total * 100
    if low - _TOLERANCE <= row.win_rate <= high + _TOLERANCE:
        return
    allowed = f"{low:.3f}" if low == high else f"{low:.2f} to {high:.2f}"
    message = (
        f"The win rate {row.win_rate:.3f} contradicts the row's own counts, which allow {allowed}."
    )
    evidence = {"win_rate": row.win_rate, "allowed_low": low, "allowed_high": high}
    yield Finding("contradicts_counts", "error", row.model, place, message, evidence)


def _standard_error(place: str, row: PublishedRow, *, unweighted: bool) -> Iterator[Finding]:
    """A standard error that verdicts with this win rate and these counts cannot have.

    SE^2 = (mean(x^2) - p^2) / (n - 1) for scores x in [0, 1] with mean p. Unweighted, mean(x^2) is known from the
    counts; weighted, x^2 <= x bounds it by p.
    """
    counted = _counted_rate(row)
    error, n = row.standard_error, row.n_total or 0
    if counted is None or row.win_rate is None or error is None or n < 2:
        return
    p = row.win_rate / 100
    squares = ((row.n_wins or 0) + (row.n_draws or 0) / 4) / n if unweighted else p
    bound = math.sqrt(max(0.0, squares - p * p) / (n - 1)) * 100
    if error <= bound + _TOLERANCE and (not unweighted or error >= bound - _TOLERANCE):
        return
    word = "give" if unweighted else "allow at most"
    message = f"The standard error {error:.5f} contradicts the row's own counts, which {word} {bound:.5f}."
    evidence = {"standard_error": error, "from_counts": bound}
    yield Finding("standard_error", "warning", row.model, place, message, evidence)


def _unweighted_rows(
    place: str, rows: dict[str, PublishedRow], n_weighted: int
) -> Iterator[Finding]:
    """Rows whose every verdict is 0, 1/2 or 1 on a board whose judge gives weights: another judge, or rounded.

    A draw on every row is what any judge gives a model against itself.
    """
    for row in rows.values():
        counted = _counted_rate(row)
        if counted is None or row.n_draws == row.n_total or row.win_rate in {None, 0.0, 100.0}:
            continue
        if _is_weighted(row):
            continue
        message = (
            f"The win rate {row.win_rate:.3f} is exactly that of its counts, so every verdict was a whole win, loss "
            f"or draw, while the judge of this board gives weights ({n_weighted} other rows): judged otherwise, "
            "or rounded."
        )
        evidence = {"win_rate": row.win_rate, "from_counts": counted, "n_weighted": n_weighted}
        yield Finding("unweighted_verdicts", "warning", row.model, place, message, evidence)


def _missing_figures(place: str, rows: dict[str, PublishedRow]) -> Iterator[Finding]:
    """Figures that some rows of the board lack, one finding per figure; a column that all lack is none here."""
    figures = {
        "win_rate": "win rate",
        "standard_error": "standard error",
        "length_controlled_winrate": "length-controlled win rate",
        "lc_standard_error": "standard error of the length-controlled win rate",
        "discrete_win_rate": "discrete win rate",
    }
    for field, words in figures.items():
        lacking = [name for name, row in rows.items() if getattr(row, field) is None]
        if not lacking or len(lacking) == len(rows):
            continue
        main = field in {"win_rate", "standard_error"}
        message = f"{len(lacking)} of {len(rows)} rows have no {words}: {names_text(lacking)}."
        evidence = {"figure": field, "models": lacking, "n_rows": len(rows)}
        severity = "warning" if main else "note"
        yield Finding("missing_figure", severity, None, place, message, evidence)


def _lc_jumps(place: str, rows: dict[str, PublishedRow]) -> Iterator[Finding]:
    """Rows that upstream's own rule of extreme changes by length control names."""
    sides: dict[str, list[PublishedRow]] = {"above": [], "below": []}
    for row in rows.values():
        if row.win_rate is not None and row.length_controlled_winrate is not None:
            side = lc_jump(row.win_rate, row.length_controlled_winrate)
            if side is not None:
                sides[side].append(row)
    for side, found in sides.items():
        if not found:
            continue
        found.sort(key=lambda row: -abs((row.length_controlled_winrate or 0) - (row.win_rate or 0)))
        first = found[0]
        named = [row.model for row in found]
        message = (
            f"Length control puts {count(len(found), 'model')} far {side} the raw win rate (upstream's rule of extreme "
            f"changes): {first.model} from {first.win_rate:.1f} to {first.length_controlled_winrate:.1f}"
            + (f", also {names_text(named[1:])}." if named[1:] else ".")
        )
        evidence = {
            "models": named,
            "win_rate": [row.win_rate for row in found],
            "lc_win_rate": [row.length_controlled_winrate for row in found],
        }
        severity = "warning" if side == "above" else "note"
        yield Finding(f"lc_far_{side}", severity, None, place, message, evidence)


def audit_evaluators(place: str, rows: list[dict[str, str]]) -> list[Finding]:
    """Judges whose row holds a figure in another unit than its column, or out of the board's order."""
    agreement = [_number(row.get("Human agreement")) for row in rows]
    findings = []
    for position, row in enumerate(rows):
        wrong = {
            column: value
            for column in _PERCENTAGES
            if (value := _number(row.get(column))) is not None and 0 < value <= 1
        } | {
            column: value
            for column in _FRACTIONS
            if (value := _number(row.get(column))) is not None and not 0 <= value <= 1
        }
        if not wrong:
            continue
        column, value = next(iter(wrong.items()))
        name = row.get("") or f"row {position + 1}"
        unit = "percent" if column in _PERCENTAGES else "fractions"
        message = f"{column} {value:.4g} is in another unit than the column ({unit})"
        evidence: dict[str, object] = {"columns": list(wrong), "values": list(wrong.values())}
        around = [agreement[i] for i in (position - 1, position + 1) if 0 <= i < len(rows)]
        if column == _PERCENTAGES[0] and all(figure is not None for figure in around):
            message += f": its neighbours on the sorted board have {' and '.join(f'{x:.2f}' for x in around)}"
            evidence["neighbours"] = around
        message += "; check the row's other figures too."
        findings.append(Finding("judge_row_units", "warning", name, place, message, evidence))
    return findings


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
