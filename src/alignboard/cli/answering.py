"""How the command line lets models answer: who is asked, what is shown meanwhile, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.cli.shared import progress
from alignboard.text import shown

if TYPE_CHECKING:
    from alignboard.data.instruction_sets import InstructionSet
    from alignboard.engines.rows import Decoding
    from alignboard.models.spec import ModelSpec
    from alignboard.pipeline.answerers import Served
    from alignboard.pipeline.answering import Answered, GenerationProgress, OnProgress
    from alignboard.results.journal import Journal

Answering = Callable[["ModelSpec", "Decoding"], "Answered"]


def answering(
    served: Served | None,
    asked: InstructionSet,
    journal: Journal,
    workspace: Path,
    *,
    remote_code: bool = False,
    replace: bool = False,
) -> Answering:
    """What lets one model after the other answer ``asked``: here where ``served`` is None, else behind an endpoint.

    ``replace`` allows a file with fewer rows to take the place of one with more.
    """
    from alignboard.pipeline.answerers import LocalModels
    from alignboard.pipeline.answering import outputs_path
    from alignboard.pipeline.generation import generate_here, generate_served
    from alignboard.pipeline.locks import held
    from alignboard.pipeline.store import Places

    models = LocalModels(remote_code=remote_code)

    def answer(spec: ModelSpec, decoding: Decoding) -> Answered:
        rest = (spec, asked, decoding, journal, workspace)
        if served is not None and (ends := served.retirement(spec)) is not None:
            print(f"alignboard: {ends}.", file=sys.stderr)
        product = str(outputs_path(Path(), spec.name, asked))
        with held(Places(workspace), product), showing() as listener:
            if served is None:
                return generate_here(models, *rest, listener, replace=replace)
            return generate_served(served, *rest, listener, replace=replace)

    return answer


def answered_text(one: Answered) -> str:
    """What came of one model, for the terminal."""
    n_new = one.n_rows - one.n_known - len(one.failures)
    speed = (
        f", {one.n_tokens / one.seconds:.0f} tokens/s" if one.n_tokens and one.seconds > 0 else ""
    )
    price = f", {one.price:.4f} US dollars" if one.price else ""
    lines = [
        f"{one.model}: {n_new} answered now in {one.seconds:.1f} s{speed}{price}, {one.n_known} known before"
    ]
    lines += _unfinished(one)
    lines += [f"  left out, too long: {text[:60]!r}" for text in one.too_long]
    lines += [
        f"  no answer to {fail.instruction[:60]!r}: {fail.reason} ({fail.tries} tries)"
        for fail in one.failures
    ]
    lines.append(
        f"  {len(one.failures)} to ask again, no file written" if one.failures else f"  {one.path}"
    )
    return "\n".join(map(shown, lines))


def _unfinished(one: Answered) -> list[str]:
    """What is said of responses that are empty or were cut off."""
    counts = ((one.n_empty, "empty"), (one.n_cut, "cut off at the limit of new tokens"))
    said = [
        f"{n} of {one.n_rows} responses {'is' if n == 1 else 'are'} {what}"
        for n, what in counts
        if n
    ]
    if not said:
        return []
    beware = "BEWARE: " if 2 * max(one.n_empty, one.n_cut) > one.n_rows else ""
    return [f"  {beware}{', '.join(said)}; a higher --max-new-tokens may mend it"]


@contextmanager
def showing() -> Iterator[OnProgress]:
    """How many answers, tokens per second, time left."""
    with progress("loading") as show:
        yield lambda now: show(now.model, now.done, now.total, _speed(now))


def _speed(now: GenerationProgress) -> str:
    return f"{now.n_tokens / now.seconds:.0f} tokens/s" if now.seconds > 0 else ""
