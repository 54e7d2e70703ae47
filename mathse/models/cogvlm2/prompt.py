"""CogVLM2's prompts from questions: the published templates, as a function and as a chat template."""

from __future__ import annotations

from collections.abc import Sequence

from mathse.errors import ConfigError

TEMPLATES = ("base", "chat", "vqa")
_ANSWER = {"chat": "Answer:", "vqa": "Short answer:"}

# All images come first, in whichever turn they are. The processor expands each padding token to the image's tokens.
_HEAD = """{{- bos_token -}}
{%- for message in messages if message['content'] is not string -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- pad_token -}}{%- endfor -%}
{%- endfor -%}
{%- macro text(message) -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}{%- endmacro -%}
"""
_BASE = "{{- text((messages | selectattr('role', 'equalto', 'user') | list)[-1]) -}}"
_TURNS = """{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{- 'Question: ' + text(message) + ' ANSWER' -}}
{%- elif message['role'] == 'assistant' -%}{{- ' ' + text(message) + '\\n' -}}
{%- else -%}{{- raise_exception('CogVLM2 knows the roles user and assistant, not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}"""


def build_prompt(query: str, history: Sequence[tuple[str, str]] = (), template: str = "chat") -> str:
    """Return the text after BOS and the image.

    Args:
        query: the question.
        history: earlier (question, answer) turns; ``base`` ignores them, as published.
        template: base (only the query), chat ("Question: ... Answer:") or vqa ("Question: ... Short answer:").

    Raises ConfigError for another template.
    """
    check_template(template)
    if template == "base":
        return query
    answer = _ANSWER[template]
    turns = "".join(f"Question: {question} {answer} {reply}\n" for question, reply in history)
    return f"{turns}Question: {query} {answer}"


def build_chat_template(template: str = "chat") -> str:
    """Return ``build_prompt`` as a Jinja template for servers, with BOS and a padding token for each image first."""
    check_template(template)
    return _HEAD + (_BASE if template == "base" else _TURNS.replace("ANSWER", _ANSWER[template]))


def check_template(template: str) -> None:
    """Raise ConfigError for an unknown template."""
    if template not in TEMPLATES:
        raise ConfigError(f"CogVLM2 template {template!r}: must be one of {', '.join(TEMPLATES)}")
