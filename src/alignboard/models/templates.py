"""The prompt forms that models were tuned on, as Jinja chat templates that registry entries name.

What this module promises
    A form is the bytes that its models have seen; `test_templates` holds each against a published prompt or a
    string written out. No form writes a BOS unless its models' own template does (Llama-2, Gemma): whether there is
    one is the entry's ``bos``, counted on token ids (`alignboard.models.prompting`). A form that has no system turn
    refuses one instead of dropping it.
    Everything that determines a prompt is in one text, the system turn included, so its hash names the prompt.

The handed-out `alpaca_eval` prompts hold text for a tokenizer that adds BOS; those of Llama-2-chat and a few more
write ``<s>`` themselves, so upstream's transformers decoder sends two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

CLOCK: Final = "strftime_now"
"""the function by which a template reads the date"""
INSTRUCTION: Final = "{instruction}"
"""where the instruction goes in a text form"""

_NO_SYSTEM: Final = (
    "{% if message['role'] == 'system' %}{{ raise_exception('it has no system turn') }}{% endif %}"
)

CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""OpenAI's Chat Markup Language: the Dolphin models, phixtral."""

ZEPHYR: Final = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
"""The tags are plain text. Published answers were made with an empty system turn (``system: ''``)."""

ALPACA: Final = (
    "{{ 'Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\\n\\n' }}"
    "{% for message in messages %}" + _NO_SYSTEM + "{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Response:' + message['content'] + eos_token + '\\n\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Response:' }}{% endif %}"
)
"""Stanford Alpaca's form without an input field."""

INSTRUCT_OUTPUT: Final = (
    "{% for message in messages %}" + _NO_SYSTEM + "{% if message['role'] == 'user' %}"
    "{{ 'Instruct: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Output: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"
)
"""The question form on the card of Phi-2, as our recipes train it, too."""

LLAMA_2: Final = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""Writes BOS, one per exchange; the system text stands inside the first instruction."""

GEMMA: Final = (
    "{{ bos_token }}{% for message in messages %}" + _NO_SYSTEM + "{{ '<start_of_turn>' + "
    "('model' if message['role'] == 'assistant' else 'user') + '\\n' + message['content'] | trim + "
    "'<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Writes BOS, without which Gemma talks nonsense."""

HUMAN_BOT: Final = (
    "{% for message in messages %}" + _NO_SYSTEM + "{% if message['role'] == 'user' %}"
    "{{ '<human>: ' + message['content'] + '\\n' }}"
    "{% else %}{{ '<bot>:' + message['content'] + eos_token + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot>:' }}{% endif %}"
)
"""llmware's BLING models; the passage to answer from stands before the question, inside the instruction."""

HUMAN_ASSISTANT: Final = (
    "{{ 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.\\n' }}"
    "{% for message in messages %}" + _NO_SYSTEM + "{% if message['role'] == 'user' %}"
    "{{ 'Human: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Assistant:' + message['content'] + eos_token + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""What LLaMA-Factory called ``default`` in December 2023."""

TEMPLATES: Final[Mapping[str, str]] = {
    "chatml": CHATML,
    "zephyr": ZEPHYR,
    "alpaca": ALPACA,
    "instruct-output": INSTRUCT_OUTPUT,
    "llama-2": LLAMA_2,
    "gemma": GEMMA,
    "human-bot": HUMAN_BOT,
    "human-assistant": HUMAN_ASSISTANT,
}


TRAINED: Final[Mapping[str, str]] = {
    "gemma": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' }}"
        "{% generation %}{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endgeneration %}"
        "{% elif message['role'] == 'user' %}"
        "{{ '<start_of_turn>user\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% else %}"
        "{{ raise_exception('Gemma has no ' + message['role'] + ' role') }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "instruct-output": (
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ 'Output:' }}"
        "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
        "{% elif message['role'] == 'user' %}{{ 'Instruct: ' + message['content'] + '\\n' }}{% else %}"
        "{{ message['content'] + '\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"
    ),
    "llama-2": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}"
        "{{ raise_exception('this template takes no system message; put it into the first user message') }}"
        "{% elif message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}{% else %}"
        "{% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}"
        "{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ '<|assistant|>\\n' }}"
        "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
        "{{ '\\n' }}{% else %}"
        "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
}
"""Forms as recipes train them (``chat_template: zephyr``): the same texts, with marks around each reply.

Gemma's and Llama-2's refuse a system turn; Zephyr's writes BOS, which the handbook's tokenisation adds."""


def from_text(text: str) -> str:
    r"""A chat template of one turn from a text with one ``{instruction}``.

    >>> print(from_text("Q: {instruction}\nA:").partition("{% endif %}")[2])
    {{ "Q: " + messages[0]['content'] + "\nA:" }}
    """
    before, _, after = text.partition(INSTRUCTION)
    return (
        "{% if messages | length != 1 or messages[0]['role'] != 'user' %}"
        "{{ raise_exception('it is a text for one instruction and takes no other turns') }}{% endif %}"
        f"{{{{ {_literal(before)} + messages[0]['content'] + {_literal(after)} }}}}"
    )


def with_variables(template: str, variables: Mapping[str, str | bool | int]) -> str:
    r"""``template`` with variables set in its first lines, so that they are part of its text and of its hash.

    ``strftime_now`` is a function of templates that read the clock; it then always gives the one text.

    >>> with_variables("{{ messages }}", {"enable_thinking": False})
    '{% set enable_thinking = false %}\n{{ messages }}'
    """
    parts = []
    for name, value in variables.items():
        if name == CLOCK:
            text = _literal(str(value))
            parts.append(f"{{% macro {CLOCK}(format) %}}{{{{ {text} }}}}{{% endmacro %}}\n")
        else:
            parts.append(f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}\n")
    return "".join(parts) + template


def with_system(template: str, system: str) -> str:
    """``template`` with a system turn put before conversations that have none; an empty text is an empty turn.

    The line break after it is the template's own beginning of a line again, which white-space control depends on.
    """
    return (
        "{% if messages[0]['role'] != 'system' %}{% set messages = "
        f"[{{'role': 'system', 'content': {_literal(system)}}}] + messages %}}{{% endif %}}\n{template}"
    )


def with_bos(template: str) -> str:
    """``template`` with BOS written in front; the comment lets it begin on a line of its own."""
    return f"{{{{ bos_token }}}}{{# bos: once #}}\n{template}"


def _literal(text: str) -> str:
    """A string literal of Jinja: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
