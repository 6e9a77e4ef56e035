"""What is compared: verdicts and ratings of one judge, and lm-eval's samples, as families of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.published.ranks import shared_prompts
from alignboard.published.scores import AlignedControl
from alignboard.records import Annotations, TextId, text_id
from alignboard.reports.comparison import FamilyOfTests, pairs_of
from alignboard.reports.samples import TaskSamples
from alignboard.results.ratings import RatedOutputs
from alignboard.results.raw_rows import raw_rows
from alignboard.stats.paired import (
    PairedDifference,
    influence_difference,
    mean_of_strata,
    paired_difference,
)

Array = NDArray[np.float64]

WIN_RATE, LC_WIN_RATE, RATING = "win_rate", "lc_win_rate", "rating"


def verdict_families(
    tables: Mapping[str, Annotations],
    *,
    controlled: Mapping[str, AlignedControl] | None = None,
    sampling: Mapping[str, Array] | None = None,
    cluster: str | None = None,
    all_pairs: bool = False,
) -> list[FamilyOfTests]:
    """Differences of win rates, and of length-controlled ones, on the instructions that two models have in common.

    Parameters
    ----------
    tables
        Annotations by model: of one judge, against one baseline.
    controlled
        By model: its length-controlled fit; adds length-controlled differences.
    sampling
        By model with repeated runs: (n,) the variance of each row's mean over its draws.
    cluster
        A column of the annotations: rows with the same value are dependent.
    all_pairs
        Whether the other models are compared with each other, too.

    Raises
    ------
    InputError
        For fewer than two models, two judges or two baselines.
    """
    pairs = pairs_of(list(tables), all_pairs=all_pairs)
    _require_one_column(tables)
    union = shared_prompts(tables.values())
    paths = [Path(table.path) for table in tables.values()]
    names = union.astype(object) if cluster is None else _clusters(paths, union, cluster)
    _, group = np.unique(names, return_inverse=True)
    score = {name: _spread(table, table.balanced - 1, union) for name, table in tables.items()}
    found = [paired_difference(score[a], score[b], group, estimated=True) for a, b in pairs]
    units = _units(score, pairs, group)
    drawn = {name: _spread(tables[name], own, union) for name, own in (sampling or {}).items()}
    shares = [
        _sampling_share(one, [drawn.get(name) for name in pair], score[pair[0]] - score[pair[1]])
        for one, pair in zip(found, pairs, strict=True)
    ]
    raw = FamilyOfTests(WIN_RATE, pairs, found, units, sampling=shares)
    if controlled is None:
        return [raw]
    rate = {name: fit.win_rate for name, fit in controlled.items()}
    psi = {name: _spread(tables[name], fit.influence, union) for name, fit in controlled.items()}
    differences = [influence_difference(rate[a], rate[b], psi[a], psi[b], group) for a, b in pairs]
    everywhere = [np.arange(group.max() + 1)] * len(pairs)
    C = {name: fit.C for name, fit in controlled.items()}
    return [raw, FamilyOfTests(LC_WIN_RATE, pairs, differences, everywhere, C)]


def rating_family(
    rated: Mapping[str, RatedOutputs],
    scale: tuple[float, float],
    *,
    cluster: str | None = None,
    all_pairs: bool = False,
) -> FamilyOfTests:
    """Differences of mean ratings by one judge, as fractions of its ``scale``, on the prompts that two models share.

    The turns of a conversation are one cluster, unless ``cluster`` names a column. Raises `InputError` for two judges,
    and for a rating outside of the scale.
    """
    pairs = pairs_of(list(rated), all_pairs=all_pairs)
    by_text = {
        text: opening
        for one in rated.values()
        for text, opening in zip(one.instruction, one.conversation, strict=True)
    }
    place = {text: number for number, text in enumerate(by_text)}
    names = np.array(list(by_text.values()), dtype=object)
    if cluster is not None:
        texts = np.array([text_id(text) for text in by_text], dtype=np.uint64)
        names = _clusters([one.path for one in rated.values()], texts, cluster)
    _, group = np.unique(names, return_inverse=True)
    score = {name: np.full(len(place), np.nan) for name in rated}
    for name, one in rated.items():
        score[name][[place[text] for text in one.instruction]] = one.fraction(scale)
    found = [paired_difference(score[a], score[b], group) for a, b in pairs]
    return FamilyOfTests(RATING, pairs, found, _units(score, pairs, group), scale=scale)


def sample_families(
    samples: Mapping[str, Sequence[TaskSamples]],
    *,
    all_pairs: bool = False,
    any_prompt: bool = False,
) -> list[FamilyOfTests]:
    """Differences of lm-eval's metrics per task, paired by document, and their mean over tasks.

    Raises `InputError` where a document was asked in two prompts (another chat template, few-shot count or version of
    the task), unless ``any_prompt``, and where the models share no task.
    """
    pairs = pairs_of(list(samples), all_pairs=all_pairs)
    by_key = {model: {one.key: one for one in found} for model, found in samples.items()}
    keys = [
        key for key in next(iter(by_key.values())) if all(key in found for found in by_key.values())
    ]
    if not keys:
        raise InputError(
            "The models share no task with the same metric and filter: "
            + "; ".join(
                f"{model}: {', '.join(sorted({' '.join(key) for key in found})) or 'none'}"
                for model, found in by_key.items()
            )
            + "."
        )
    families = []
    for key in keys:
        of_pairs = [
            _sampled(by_key[a][key], by_key[b][key], any_prompt=any_prompt) for a, b in pairs
        ]
        families.append(
            FamilyOfTests(
                _quantity(key),
                pairs,
                [one for one, _ in of_pairs],
                [units for _, units in of_pairs],
            )
        )
    return families + _means(keys, families)


def _means(
    keys: Sequence[tuple[str, str, str]], families: Sequence[FamilyOfTests]
) -> list[FamilyOfTests]:
    """The mean over tasks of every metric that several tasks have."""
    means = []
    for metric, filter_name in dict.fromkeys((metric, name) for _, metric, name in keys):
        members = [
            family
            for (_, own, name), family in zip(keys, families, strict=True)
            if (own, name) == (metric, filter_name)
        ]
        if len(members) < 2:
            continue
        pairs = members[0].pairs
        found = [mean_of_strata([one.found[k] for one in members]) for k in range(len(pairs))]
        units = [
            np.concatenate(
                [np.char.add(f"{t:04}/", one.units[k].astype(str)) for t, one in enumerate(members)]
            )
            for k in range(len(pairs))
        ]
        name = _quantity((f"mean of {len(members)} tasks", metric, filter_name))
        means.append(FamilyOfTests(name, pairs, found, units))
    return means


def _sampled(
    a: TaskSamples, b: TaskSamples, *, any_prompt: bool
) -> tuple[PairedDifference, NDArray]:
    if None not in {a.version, b.version} and a.version != b.version:
        raise InputError(
            f"{a.path} and {b.path}: {a.task} has version {a.version} in one and {b.version} in the other, which are "
            "two tasks; repeat one run with the other's lm-eval."
        )
    union = sorted({*a.documents, *b.documents})
    place = {document: number for number, document in enumerate(union)}
    scores = np.full((2, len(union)), np.nan)
    labels = np.array(union, dtype=object)
    prompts: dict[str, str] = {}
    for side, one in enumerate((a, b)):
        for document, prompt, score, label in zip(
            one.documents, one.prompts, one.score, one.clusters, strict=True
        ):
            scores[side, place[document]] = score
            labels[place[document]] = label
            if prompts.setdefault(document, prompt) != prompt and not any_prompt:
                raise InputError(
                    f"{a.path} and {b.path}: document {document} of {a.task} was asked in two prompts (another chat "
                    "template, few-shot count or version of the task), so that the scores cannot be compared; run both "
                    "alike, or give --any-prompt where each model is to have its own template."
                )
    names, group = np.unique(labels.astype(str), return_inverse=True)
    found = paired_difference(scores[0], scores[1], group)
    return found, names[np.unique(group[~np.isnan(scores[0] - scores[1])])]


def _quantity(key: tuple[str, str, str]) -> str:
    task, metric, filter_name = key
    return f"{task} {metric}" + (f" ({filter_name})" if filter_name != "none" else "")


def _units(
    score: Mapping[str, Array], pairs: Sequence[tuple[str, str]], group: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    """The clusters that each pair's difference rests on."""
    return [np.flatnonzero(np.bincount(group[~np.isnan(score[a] - score[b])])) for a, b in pairs]


def _clusters(paths: Sequence[Path], union: TextId, cluster: str) -> NDArray:
    """(U,) the value of column ``cluster`` of each instruction; the same in every file."""
    known: dict[int, str] = {}
    for path in paths:
        for number, row in enumerate(raw_rows(path), start=1):
            value = row.get(cluster)
            if value is None:
                raise InputError(
                    f"{path}, row {number}, field {cluster!r}: missing; --cluster needs a column that every row "
                    f"has, such as {', '.join(sorted(row))}."
                )
            if known.setdefault(text_id(row["instruction"]), str(value)) != str(value):
                raise InputError(
                    f"{path}, row {number}, field {cluster!r}: {value!r}, but another file says "
                    f"{known[text_id(row['instruction'])]!r} for the same instruction."
                )
    return np.array([known[int(one)] for one in union], dtype=str)


def _spread(table: Annotations, values: Array, union: TextId) -> Array:
    """(U,) ``values`` (n,) at the places of their instructions, NaN where the model has none."""
    spread = np.full(len(union), np.nan)
    spread[np.searchsorted(union, table.instruction)] = values
    return spread


def _sampling_share(
    found: PairedDifference, drawn: Sequence[Array | None], difference: Array
) -> float:
    """The share of a difference's variance that repetitions without end would remove; NaN without repetitions.

    References: Miller, arXiv 2411.00640, section 3.2.
    """
    known = [np.nan_to_num(one) for one in drawn if one is not None]
    if not known or not found.standard_error > 0:
        return math.nan
    total = np.where(np.isnan(difference), 0.0, np.sum(known, axis=0)).sum() / found.n**2
    return min(1.0, float(total) / found.standard_error**2)


def _require_one_column(tables: Mapping[str, Annotations]) -> None:
    first, *others = tables.values()
    for other in others:
        for field in ("annotator", "baseline"):
            mine, theirs = getattr(first, field), getattr(other, field)
            if mine != theirs:
                raise InputError(
                    f"{first.path} and {other.path} have two {field}s, {mine!r} and {theirs!r}: "
                    "their verdicts cannot be compared."
                )
