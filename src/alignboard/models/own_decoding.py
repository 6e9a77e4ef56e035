"""What a checkpoint's own generation configuration says of decoding, and which of it is followed.

Followed: the texts that end a reply, and whatever changes the logits of the next token (a repetition penalty, words
that are suppressed), as transformers does it. Not followed: how to sample and how long, which the entry and the
command say; other ways of searching (beams), which are named wherever responses are made.

Nothing heavy is imported. `alignboard.engines.local.shaping` applies what is followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from alignboard.errors import InputError

SHAPING: Final[Mapping[str, Any]] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "watermarking_config": None,
}
"""fields that change logits, each with the value that changes nothing"""
SAMPLING: Final = (
    *("do_sample", "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff"),
)
"""fields that entry and command decide"""
OTHERWISE: Final[Mapping[str, Any]] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "constraints": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "penalty_alpha": None,
    "dola_layers": None,
    "token_healing": False,
    "forced_eos_token_id": None,
    "max_time": None,
}
"""fields that would give other responses and are not followed, each with the value that changes nothing"""


@dataclass(frozen=True)
class OwnDecoding:
    """What a generation configuration says."""

    stop: tuple[str, ...] = ()
    """texts that end a reply"""
    shaping: Mapping[str, Any] = field(default_factory=dict)
    """of `SHAPING` what changes something"""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """of `SAMPLING` what is set"""
    otherwise: Mapping[str, Any] = field(default_factory=dict)
    """of `OTHERWISE` what would change something"""

    def identity(self) -> dict[str, Any]:
        """All of it that determines a response; nothing where it says nothing, so older keys stay as they are."""
        found: dict[str, Any] = {}
        if self.stop:
            found["own_stop"] = sorted(self.stop)
        if self.shaping:
            found["own_decoding"] = {name: str(value) for name, value in self.shaping.items()}
        return found

    def followed(self) -> dict[str, Any]:
        """What is followed, for people."""
        return ({"stop_strings": list(self.stop)} if self.stop else {}) | dict(self.shaping)


def read_own_decoding(config: Mapping[str, Any], source: object) -> OwnDecoding:
    """Read the fields of a generation configuration; raises `InputError` that names ``source`` and the field."""

    def changing(fields: Mapping[str, Any]) -> dict[str, Any]:
        set_here = {name: config[name] for name in fields if config.get(name) is not None}
        return {name: one for name, one in set_here.items() if one not in (fields[name], [], {})}

    return OwnDecoding(
        _stops(config.get("stop_strings"), source),
        changing(SHAPING),
        {name: config[name] for name in SAMPLING if config.get(name) not in (None, False)},
        changing(OTHERWISE),
    )


def _stops(given: Any, source: object) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(listed, Sequence) or any(
        not isinstance(one, str) or not one for one in listed
    ):
        raise InputError(
            f"{source}: generation_config.json has stop_strings {given!r}; a text or a list of texts was expected, "
            "none of them empty."
        )
    return tuple(dict.fromkeys(listed))


def not_followed(own: OwnDecoding) -> str:
    """What is said of fields that are not followed."""
    return (
        f"its generation configuration says {in_words(own.otherwise)}, which is not followed here: responses are those "
        "of plain decoding."
    )


def in_words(fields: Mapping[str, Any]) -> str:
    """Fields and their values on a line; long ones only by name.

    >>> in_words({"repetition_penalty": 1.1, "suppress_tokens": list(range(90))})
    'repetition_penalty 1.1, suppress_tokens'
    """
    said = ((name, str(value)) for name, value in fields.items())
    return ", ".join(f"{name} {value}" if len(value) <= 40 else name for name, value in said)
