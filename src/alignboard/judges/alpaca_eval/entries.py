"""One entry of an AlpacaEval configuration as a judge's spec.

What this module promises
    Every entry loads. What it says and what would change a reply is in the judge's spec, or the judge is
    ``unsupported`` and says why; a setting is never dropped without a word. Only what concerns the machine that
    upstream ran on (numbers of processes, tensor parallelism, prices) is left out, and the numeric type of a local
    model, which the engine takes from the checkpoint. A model that its provider no longer serves is ``retired``: the
    judge can be asked where another endpoint or another model is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.judges.parsing.alpaca_eval_parsers import UpstreamRule, check_parser
from alignboard.judges.prompting.prompts import package_text
from alignboard.judges.spec import Engine, JudgePrompt, PromptedSpec, Sampling
from alignboard.models.spec import EndpointOptions
from alignboard.workspace import is_there

ROOM: Final = "evaluators_configs"

RETIRED: Final[tuple[tuple[str, str], ...]] = (
    ("text-davinci-003", "OpenAI shut this model down on 2024-01-04"),
    ("gpt-3.5-turbo", "OpenAI has shut this model down"),
    ("gpt-4o", ""),
    ("gpt-4.1", ""),
    ("gpt-4", "OpenAI shut this model down by 2026-10-23"),
    ("claude-v1", "Anthropic retired this model on 2024-11-06"),
    ("claude-2", "Anthropic retired this model on 2025-07-21"),
    ("claude-3-opus-20240229", "Anthropic retired this model on 2026-01-05"),
    ("mistral-large-2402", "Mistral has retired this model"),
    ("meta-llama/Llama-3-70b-chat-hf", "Together names and serves this model no longer"),
)
"""the beginning of a model's name, and what its own endpoint has announced; the first that fits"""

_PUBLISHED: Final = {"Meta-Llama-3-70B-Instruct": "meta-llama/Meta-Llama-3-70B-Instruct"}
"""folders on upstream's machine, and what they hold"""
_KEYS: Final = {
    "https://api.together.xyz/v1": "TOGETHER_API_KEY",
    "https://api.mistral.ai/v1": "MISTRAL_API_KEY",
}
_ANTHROPIC: Final = "https://api.anthropic.com/v1"
_LOCAL_SERVER: Final = "http://localhost:8000/v1"

# Settings of the request's body that OpenAI's format has under the same name.
_BODY: Final = frozenset(
    {
        "frequency_penalty", "logit_bias", "max_completion_tokens", "presence_penalty", "reasoning_effort",
        "response_format", "stop", "user",
    }
)  # fmt: skip
_OF_THE_MACHINE: Final = frozenset(
    {
        "batch_size", "cache_dir", "is_fast_tokenizer", "is_strip", "logprobs", "n_retries", "num_procs",
        "price_per_token", "sleep_time",
    }
)  # fmt: skip
_OF_THE_ENGINE: Final = frozenset(
    {
        "device_map", "distributed_executor_backend", "dtype", "enable_chunked_prefill", "gpu_memory_utilization",
        "max_model_len", "max_num_seqs", "tensor_parallel_size", "tokenizer_mode", "torch_dtype", "trust_remote_code",
    }
)  # fmt: skip
_PROCESSORS: Final = frozenset(
    {"ChainOfThoughtProcessor", "JsonKeysToColumnProcessor", "PaddingForBatchesProcessor"}
)
"""those that change no verdict, and the padding that `prompts.render` does"""
_ENTRY: Final = frozenset(
    {
        "prompt_template", "fn_completions", "completions_kwargs", "fn_completion_parser", "completion_parser_kwargs",
        "completion_key", "batch_size", "is_randomize_output_order", "processors_to_kwargs", "pretty_name", "link",
        "is_shuffle",
    }
)  # fmt: skip


class AnnotatorEntry:
    """One annotator of a configuration on its way to a spec; collects what cannot be asked."""

    def __init__(
        self, path: Path, root: Path, name: str, entry: dict[str, Any], *, packaged: bool
    ) -> None:
        self.path, self.root, self.name, self.entry, self.packaged = (
            path,
            root,
            name,
            entry,
            packaged,
        )
        self.kwargs = dict(
            mapping(path, "completions_kwargs", entry.get("completions_kwargs") or {})
        )
        self.client = str(entry.get("fn_completions", "openai_completions"))
        self.missing: list[str] = []

    def spec(self) -> PromptedSpec:
        """The judge that the entry declares."""
        unknown = [key for key in self.entry if key not in _ENTRY]
        if unknown:
            hint = nearest(unknown[0], _ENTRY)
            raise InputError(f"{self.path}: {self.name} has no field {unknown[0]!r}{hint or '.'}")
        clients = {
            "openai_completions": self._openai,
            "anthropic_completions": self._anthropic,
            "huggingface_api_completions": self._transformers,
            "huggingface_local_completions": self._transformers,
            "vllm_local_completions": self._vllm,
        }
        model = str(self.kwargs.pop("model_name", ""))
        fields = clients.get(self.client, self._other)(model)
        left = [key for key in self.kwargs if key not in _OF_THE_MACHINE]
        if left and not self.missing:
            self.missing.append(f"its setting {left[0]} has no counterpart here")
        return PromptedSpec(
            name=self.name,
            title=f"AlpacaEval's {self.name}",
            verdict=self._verdict(),
            order="coin" if self.entry.get("is_randomize_output_order", True) else "given",
            unsupported=self.missing[0] if self.missing else None,
            retired=_retired(fields["model"]),
            source=f"alpaca-eval, {ROOM}/{self.path.parent.name}/{self.path.name}",
            **fields,
        )

    # One method for each of upstream's clients: what it makes of the settings, with its defaults.

    def _openai(self, model: str) -> dict[str, Any]:
        in_turns = ("instruct" not in model) and not model.startswith("text-")
        in_turns = bool(self.kwargs.pop("requires_chatml", in_turns and _newer_than_gpt_3(model)))
        if not in_turns:
            self.missing.append(f"{model} takes prompts without turns, not sent here")
        base_url, key = self._client_of()
        if Path(model).is_absolute():
            model, base_url, key = self._published(model), base_url or _LOCAL_SERVER, None
        for tokens in ("tokens_to_avoid", "tokens_to_favor"):
            if self.kwargs.pop(tokens, None):
                self.missing.append(f"its setting {tokens} needs {model}'s own tokenizer")
        return {
            **self._shared(model, "openai", "max_tokens", temperature=0.7, in_turns=in_turns),
            "tool": self._tool(),
            "base_url": base_url,
            "api_key_env": key,
        }

    def _anthropic(self, model: str) -> dict[str, Any]:
        native = self.kwargs.pop("client_function_name", "messages")
        if native != "messages" or not self.kwargs.pop("requires_chatml", True):
            self.missing.append(
                "it asks Anthropic's text completions API, which no model answers now"
            )
        text = self._text()
        chatty = text.lstrip().startswith("<|im_start|>")
        if not chatty:
            self.missing.append(
                "its prompt is text without turns, which Anthropic's messages do not take"
            )
        return {
            **self._shared(
                model, "openai", "max_tokens_to_sample", temperature=0.7, in_turns=chatty
            ),
            "base_url": _ANTHROPIC,
            "api_key_env": "ANTHROPIC_API_KEY",
        }

    def _transformers(self, model: str) -> dict[str, Any]:
        sampled = bool(self.kwargs.pop("do_sample", False))
        self._engine_settings()
        adapter = self.kwargs.pop("adapters_name", None)
        self.kwargs.pop("remove_ending", None)
        if not sampled:
            self.kwargs["temperature"] = 0.0
        shared = self._shared(model, "local", "max_new_tokens", temperature=1.0, in_turns=False)
        return {**shared, "chat": False, "adapter": adapter, "api_key_env": None}

    def _vllm(self, model: str) -> dict[str, Any]:
        in_turns = bool(self.kwargs.pop("is_chatml_prompt", False))
        self._engine_settings()
        model = self._published(model) if Path(model).is_absolute() else model
        shared = self._shared(model, "local", "max_new_tokens", temperature=1.0, in_turns=in_turns)
        return {**shared, "chat": in_turns, "api_key_env": None}

    def _other(self, model: str) -> dict[str, Any]:
        names = {
            "bedrock_anthropic_completions": "Amazon Bedrock",
            "cohere_completions": "Cohere",
            "google_completions": "Google",
            "replicate_completions": "Replicate",
            "jina_chat_completions": "JinaChat",
        }
        provider = names.get(self.client, self.client)
        self.missing.append(f"it asks {provider}'s own API, which is not spoken here")
        chatty = self._text().lstrip().startswith("<|im_start|>")
        limit = "max_tokens_to_sample" if "max_tokens_to_sample" in self.kwargs else "max_tokens"
        return self._shared(model, "openai", limit, temperature=0.7, in_turns=chatty) | {
            "api_key_env": None
        }

    def _shared(
        self, model: str, engine: Engine, limit: str, *, temperature: float, in_turns: bool
    ) -> dict[str, Any]:
        take = self.kwargs.pop
        extra = {key: take(key) for key in sorted(_BODY & set(self.kwargs))}
        sampling = {
            "max_new_tokens": take(limit, 2048),
            "temperature": take("temperature", temperature),
            "top_p": take("top_p", 1.0),
            "seed": take("seed", 0),
            "top_logprobs": take("top_logprobs", 0),
        }
        endpoint = {"extra": {**extra, **(take("extra_body", None) or {})}}
        try:
            drawn = msgspec.convert(sampling, Sampling)
            options = msgspec.convert(endpoint, EndpointOptions)
        except msgspec.ValidationError as error:
            raise InputError(f"{self.path}: completions_kwargs of {self.name}: {error}.") from error
        return {
            "model": model,
            "engine": engine,
            "prompt": self._prompt(in_turns=in_turns),
            "sampling": drawn,
            "endpoint": options,
        }

    def _client_of(self) -> tuple[str | None, str | None]:
        client = dict(self.kwargs.pop("client_kwargs", None) or {})
        base_url = client.pop("base_url", None)
        for key in ("timeout", "max_retries"):
            client.pop(key, None)
        if client:
            self.missing.append(f"its client setting {next(iter(client))} has no counterpart here")
        return base_url, "OPENAI_API_KEY" if base_url is None else _KEYS.get(base_url.rstrip("/"))

    def _engine_settings(self) -> None:
        """Drop what concerns the machine; name what changes the weights."""
        settings = self.kwargs.pop("model_kwargs", None) or {}
        other = [key for key in settings if key not in _OF_THE_ENGINE]
        if other:
            self.missing.append(f"its model setting {other[0]} has no counterpart here")

    def _published(self, model: str) -> str:
        name = Path(model).name
        if name not in _PUBLISHED and not Path(model).is_dir():
            self.missing.append(f"its model is the folder {model} of another machine")
        return model if Path(model).is_dir() else _PUBLISHED.get(name, model)

    def _tool(self) -> dict[str, Any] | None:
        tools, choice = self.kwargs.pop("tools", None), self.kwargs.pop("tool_choice", None)
        if tools is None:
            return None
        named = [
            one
            for one in tools
            if choice == {"type": "function", "function": {"name": _function(one)}}
        ]
        if len(tools) != 1 or not named:
            self.missing.append("it leaves the choice of a function to the model")
        return tools[0]

    def _prompt(self, *, in_turns: bool) -> JudgePrompt:
        batch = self.entry.get("batch_size", 1)
        if not isinstance(batch, int) or batch < 1:
            raise InputError(
                f"{self.path}: batch_size of {self.name} is {batch!r}; expected 1 or more."
            )
        if self.packaged:
            file = f"alpaca_eval:{ROOM}/{self.entry.get('prompt_template')}"
            return JudgePrompt(file=file, chatml=in_turns, batch=batch)
        return JudgePrompt(text=self._text(), chatml=in_turns, batch=batch)

    def _text(self) -> str:
        """The prompt's text: beside the configuration, or else in the package, as upstream looks it up."""
        relative = str(self.entry.get("prompt_template", ""))
        if "\0" in relative:
            raise InputError(
                f"{self.path}: prompt_template of {self.name} is {relative!r}, no path."
            )
        path = (self.root / relative).resolve()
        own = not self.packaged and path.is_relative_to(self.root.resolve()) and is_there(path)
        if own and path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"The prompt file {path} cannot be read: {error}.") from error
        return package_text(f"alpaca_eval:{ROOM}/{relative}")

    def _verdict(self) -> UpstreamRule:
        name = self.entry.get("fn_completion_parser", "regex_parser")
        kwargs = mapping(
            self.path, "completion_parser_kwargs", self.entry.get("completion_parser_kwargs") or {}
        )
        given = self.entry.get("processors_to_kwargs") or {}
        for processor in mapping(self.path, "processors_to_kwargs", given):
            if processor not in _PROCESSORS:
                self.missing.append(f"its processor {processor} is not known here")
        try:
            check_parser(str(name), kwargs)
        except KeyError as error:
            self.missing.append(f"its parser {error.args[0]} is not one of AlpacaEval's")
        except TypeError as error:
            raise InputError(
                f"{self.path}: completion_parser_kwargs of {self.name}: {error}."
            ) from error
        return UpstreamRule(str(name), kwargs, self.entry.get("completion_key", "completions"))


def mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    """``value``, where it is a mapping; raises `InputError` otherwise."""
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} is a mapping of names to values.")
    return value


def _newer_than_gpt_3(model: str) -> bool:
    return "gpt-3" not in model or "turbo" in model


def _function(tool: Any) -> str | None:
    return tool.get("function", {}).get("name") if isinstance(tool, dict) else None


def _retired(model: str) -> str | None:
    name = model.removeprefix("anthropic.")
    return next((why for start, why in RETIRED if name.startswith(start)), None) or None
