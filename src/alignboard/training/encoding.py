"""Canonical rows as tokens, and which of them are trained.

Rows are rendered as TRL does it; test_train_preview holds them to the rows that TRL makes. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignboard.models.prompting import conversation_text
from alignboard.training.checks.preflight import TokenRow
from alignboard.training.sections import RecipeError

Messages = Sequence[Mapping[str, str]]


def encoded(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], *, whole: bool = False
) -> list[list[TokenRow]]:
    """The sequences of canonical rows of one form, not cut: one for each row, or the two sides of a pair.

    ``whole`` trains every token of a demonstration, not its replies alone.
    """
    if not rows:
        return []
    if "messages" in rows[0]:
        found = _conversations(tokenizer, [row["messages"] for row in rows], whole=whole)
        return [[one] for one in found]
    sides = [side for side in ("completion", "chosen", "rejected") if side in rows[0]]
    names = ["reply" if side == "completion" else side for side in sides]
    found = list[list[TokenRow]]()
    for prompt, *replies in _token_ids(tokenizer, rows, sides):
        start = 0 if whole else min(_common(prompt, ids) for ids in replies)
        found.append(
            [
                TokenRow(ids, [False] * start + [True] * (len(ids) - start), side=name)
                for name, ids in zip(names, replies, strict=True)
            ]
        )
    return found


def _text(tokenizer: Any, messages: Messages, *, generation_prompt: bool = False) -> str:
    return conversation_text(
        tokenizer,
        tokenizer.chat_template,
        [(message["role"], message["content"]) for message in messages],
        source=f"the training row that begins {messages[0]['content'][:40]!r}",
        generation_prompt=generation_prompt,
    )


def _token_ids(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], sides: Sequence[str]
) -> Iterator[list[list[int]]]:
    """For each row the tokens of its prompt, and of the prompt with the reply of each side.

    What the texts of a row share is tokenised once, up to a token at which the tokenizer divides every text: for long
    prompts and templates with such tokens this takes a third of the time.
    """
    marks, texts = _marks(tokenizer), list[str]()
    for row in rows:
        own = [_text(tokenizer, row["prompt"], generation_prompt=True)]
        own += [_text(tokenizer, [*row["prompt"], *row[side]]) for side in sides]
        cut, mark = max(((own[0].rfind(mark), mark) for mark in marks), default=(0, ""))
        if not all(one.startswith(mark, cut) and one[:cut] == own[0][:cut] for one in own):
            cut = 0
        texts += [own[0][:cut], *(one[cut:] for one in own)]
    tokens = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    ids = iter(tokens["input_ids"])
    for _ in rows:
        shared = next(ids)
        yield [shared + next(ids) for _ in range(1 + len(sides))]


def _marks(tokenizer: Any) -> list[str]:
    """Special tokens of the template at whose beginning a text may be divided without an effect on its tokens.

    The tokenizer finds them before anything else; they take no blank before them, and the beginning of none is inside
    another one.
    """
    added = list(tokenizer.added_tokens_decoder.values())
    named = {token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    return [
        one.content
        for one in added
        if (one.content in named or one.content in tokenizer.chat_template)
        and not (one.lstrip or one.normalized or one.single_word)
        and not any(one.content[0] in other.content[1:] for other in added)
    ]


def _conversations(
    tokenizer: Any, conversations: Sequence[Messages], *, whole: bool
) -> list[TokenRow]:
    """Conversations of which the replies are trained, or all."""
    template = None if whole else _marked_template(tokenizer)
    if template is not None:
        found = tokenizer.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            chat_template=template,
        )
        rows = zip(found["input_ids"], found["assistant_masks"], strict=True)
        return [TokenRow(ids, list(map(bool, marks))) for ids, marks in rows]
    texts = [_text(tokenizer, messages) for messages in conversations]
    if whole:
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [TokenRow(one, [True] * len(one)) for one in ids]
    replies = [
        _replies(tokenizer, messages, text)
        for messages, text in zip(conversations, texts, strict=True)
    ]
    found = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    rows = zip(found["input_ids"], found["offset_mapping"], replies, strict=True)
    return [
        TokenRow(
            ids,
            [any(start < last and first < end for start, end in own) for first, last in places],
        )
        for ids, places, own in rows
    ]


def _marked_template(tokenizer: Any) -> str | None:
    """The tokenizer's template if it marks replies, else with its marks from TRL; None where TRL does not know it."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return tokenizer.chat_template
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        return None


def _replies(tokenizer: Any, messages: Messages, text: str) -> list[tuple[int, int]]:
    """Where the replies of a conversation stand in its text: after what a model is given, up to the turn's end.

    A reply before the first prompt is none.
    """
    found = list[tuple[int, int]]()
    for n, message in enumerate(messages):
        if n == 0 or message["role"] != "assistant":
            continue
        before = _text(tokenizer, messages[:n], generation_prompt=True)
        through = _text(tokenizer, messages[: n + 1])
        if not (text.startswith(through) and through.startswith(before)):
            raise RecipeError(
                f"the training row that begins {messages[0]['content'][:40]!r}: the chat template writes the first "
                f"{n + 1} messages in another way where more follow, so that their replies are not found; give the "
                "recipe a chat_template with {% generation %} marks, or train_on: all."
            )
        found.append((len(before), len(through)))
    return found


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    if (
        other[: len(one)] == one
    ):  # as nearly always; the loop takes a quarter of a long prompt's time
        return len(one)
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n
