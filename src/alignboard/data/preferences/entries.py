"""LLaMA-Factory's `dataset_info.json`: the file or hub id of an entry, and its names of columns and roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Struct

from alignboard.errors import InputError, nearest
from alignboard.results.files import read_json_object
from alignboard.suites import convert
from alignboard.text import storable

if TYPE_CHECKING:
    from datasets import Dataset

MESSAGES: Final = ("conversations", "messages", "chosen", "rejected")
"""columns that hold messages, or texts"""


class EntryColumns(Struct, forbid_unknown_fields=True, frozen=True):
    """The columns of a file by LLaMA-Factory's names."""

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None
    tools: str | None = None
    images: str | None = None
    videos: str | None = None
    audios: str | None = None


class EntryTags(Struct, forbid_unknown_fields=True, frozen=True):
    """What a file calls the fields and the roles of a message."""

    role_tag: str | None = None
    content_tag: str | None = None
    user_tag: str | None = None
    assistant_tag: str | None = None
    system_tag: str | None = None
    function_tag: str | None = None
    observation_tag: str | None = None


class DataEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """An entry, as LLaMA-Factory declares them."""

    hf_hub_url: str | None = None
    file_name: str | None = None
    ms_hub_url: str | None = None
    om_hub_url: str | None = None
    script_url: str | None = None
    cloud_file_name: str | None = None
    formatting: Literal["alpaca", "sharegpt", "openai"] = "alpaca"
    ranking: bool = False
    subset: str | None = None
    split: str | None = None
    folder: str | None = None
    num_samples: int | None = None
    columns: EntryColumns = EntryColumns()
    tags: EntryTags = EntryTags()


@dataclass(frozen=True)
class MessageTags:
    """A file's names for the fields and the roles of a message, where they are not ours."""

    role: str | None = None
    content: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Any) -> Any:
        """Messages with our names; texts and what is no message as they are."""
        if isinstance(value, list):
            return [self.read(one) for one in value]
        if not isinstance(value, dict):
            return value
        role = value.get(self.role) if self.role else value.get("role") or value.get("from")
        content = value.get(self.content or "content")
        if content is None and self.content is None:
            content = value.get("value")
        return {"role": self.roles.get(str(role), role), "content": content}


def entry_text(file: Path, name: str) -> str:
    """An entry as text that is the same for equal entries: a part of what identifies the rows."""
    return json.dumps(_content(file, name), sort_keys=True)


def _content(file: Path, name: str) -> dict[str, Any]:
    entries = storable(read_json_object(file))
    if not isinstance(entries.get(name), dict):
        raise InputError(f"{file} has no entry {name!r}{nearest(name, entries) or '.'}")
    return entries[name]


def data_entry(file: Path, name: str) -> DataEntry:
    """The entry called ``name``; `InputError` for what is not read here, in a sentence."""
    entry = convert(f"{file}#{name}", _content(file, name), DataEntry, "an entry")
    what = f"{file}: the entry {name!r}"
    if entry.hf_hub_url is None and entry.file_name is None:
        raise InputError(
            f"{what} has neither file_name nor hf_hub_url; other places are not read from."
        )
    for column in ("tools", "images", "videos", "audios"):
        if getattr(entry.columns, column) is not None:
            raise InputError(
                f"{what} has columns.{column}, which no training here reads; take it out where the text alone is meant."
            )
    if entry.ranking and None in {entry.columns.chosen, entry.columns.rejected}:
        raise InputError(
            f"{what} has ranking: true, and pairs need columns.chosen and columns.rejected."
        )
    if entry.num_samples is not None:
        raise InputError(
            f"{what} has num_samples, a random choice by LLaMA-Factory's seed; take it out, and give the data of the "
            "recipe a share, or n for the first rows."
        )
    return entry


def column_names(entry: DataEntry) -> dict[str, str]:
    """The columns of an entry's file by our names."""
    given = {k: v for k, v in msgspec.structs.asdict(entry.columns).items() if v is not None}
    rated, alpaca = "kto_tag" in given, entry.formatting == "alpaca"
    if (
        rated
    ):  # its schemas have names of their own, also for what the entry leaves to LLaMA-Factory
        known = {"prompt": "instruction", "response": "output"}
        given = (known if alpaca else {"messages": "conversations"}) | given
    if alpaca:
        prompt, response = ("prompt", "completion") if rated else ("instruction", "output")
        names = {"prompt": prompt, "response": response, "query": "input", "kto_tag": "label"}
    elif rated or (given.get("messages") == "messages" and not entry.ranking):
        names = {"kto_tag": "label"}
    else:
        names = {"messages": "conversations"}
    return {names.get(ours, ours): theirs for ours, theirs in given.items()}


def message_tags(entry: DataEntry) -> MessageTags | None:
    """What an entry's file calls fields and roles; None where it says nothing."""
    tags = entry.tags
    if tags == EntryTags():
        return None
    ours = {"user": tags.user_tag, "assistant": tags.assistant_tag, "system": tags.system_tag}
    roles = {theirs: role for role, theirs in ours.items() if theirs is not None}
    return MessageTags(tags.role_tag, tags.content_tag, roles)


def retagged(rows: Dataset, tags: MessageTags) -> Dataset:
    """``rows`` with our names in their messages."""
    columns = [name for name in MESSAGES if name in rows.column_names]

    def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {name: [tags.read(value) for value in batch[name]] for name in columns}

    return rows.map(read, batched=True, load_from_cache_file=False)
