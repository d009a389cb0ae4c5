"""Read cells that hold lists, messages or a conversation in text, and find the prompt to which answers were given.

    cell_value("[{'role': 'user', 'content': 'Which law?'}]")   # the list, as datasets and pandas write it into CSV
    messages_of("Human: Which law?\\n\\nAssistant: Ohio", "chosen", "assistant")   # two messages
    prompt_of({"prompt": [...]}, before, answers)   # never with an answer at its end

A column often repeats the whole conversation, answer and all. A prompt is what was said before the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from cuadft.core.cells import spelled_value
from cuadft.core.text import fold
from cuadft.feedback.records import Text
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

Messages = list[dict[str, str]]
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_TURN = re.compile(r"(?:\A|\n\n)\s*(human|user|assistant|system):[ \t]*|<\|im_start\|>(\w+)\n", re.IGNORECASE)


class _Part(BaseModel):
    text: Text


class _Message(BaseModel):
    """One message, under the names of chat APIs, of ShareGPT or of Label Studio."""

    role: Text = Field(validation_alias=AliasChoices("role", "from", "author"))
    content: Text | list[_Part] = Field(validation_alias=AliasChoices("content", "value", "text"))

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": ROLES.get(self.role.lower(), self.role), "content": text}


_MESSAGES = TypeAdapter(list[_Message])


def cell_value(cell: Any) -> Any:
    """Return the list or mapping that a cell spells (see `core.cells`), and any other value as it is.

    Lists of anything but texts, lists and mappings are left as text, for "[1]" may be an answer.
    """
    found = spelled_value(cell)
    plain = isinstance(found, list) and found and not any(isinstance(item, (str, list, dict)) for item in found)
    return cell if plain else found


def plain_text(value: Any, name: str) -> str:
    """Return a value as text, "" for None; raises RowRefused for lists, dicts and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise RowRefused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def messages_of(value: Any, name: str, role: str) -> Messages:
    """Return the messages of a cell: a list of them, one alone, a conversation in text, or a text that `role` says.

    A list of texts is one text, an item a line. Raises RowRefused for a list or mapping of something else.
    """
    value = cell_value(value)
    value = [value] if isinstance(value, dict) else value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if not isinstance(value, list):
        text = plain_text(value, name).replace("<|im_end|>", "")
        return _turns(text, role) or ([{"role": role, "content": text}] if text else [])
    try:
        return [message.plain() for message in _MESSAGES.validate_python(value)]
    except ValidationError:
        raise RowRefused(f"its {name} is a list of something else than messages with role and content") from None


def _turns(text: str, role: str) -> Messages:
    """Return the messages of a text in which every turn begins with its speaker; [] for another text."""
    before, *parts = _TURN.split(text)
    said = [((a or b).lower(), content.strip()) for a, b, content in zip(*[iter(parts)] * 3, strict=True)]
    found = [{"role": ROLES.get(who, who), "content": content} for who, content in said if content]
    known = not before.strip() and any(message["role"] == role for message in found)
    return found if known else []


def prompt_and_answer(row: Mapping[str, Any], name: str) -> tuple[Messages, str]:
    """Return the messages of a column before the assistant's last one, and the text of that one."""
    *before, last = messages_of(row.get(name), name, "assistant") or [{"role": "assistant", "content": ""}]
    if last["role"] != "assistant":
        raise RowRefused(f"the last message of its {name} is not the assistant's")
    if not last["content"].strip():
        raise RowRefused(f"its {name} is empty")
    return before, last["content"]


def prompt_of(row: Mapping[str, Any], before: Messages, answers: Sequence[str]) -> dict[str, Any]:
    """Return the question that was asked (`prompt_question`) and the prompt, None where it says nothing more.

    before: messages that the columns of the answers begin with. What they repeat of the prompt counts once, and neither
    an answer nor another message of the assistant stands at the end.
    """
    given = messages_of(row.get("prompt"), "prompt", "user")
    ends = set(map(fold, answers))
    while given and given[-1]["role"] == "assistant" and fold(given[-1]["content"]) in ends:
        given.pop()
    known = {fold(text) for one in before for text in (one["content"], question_of_prompt(one["content"]))}
    found = [one for one in given if fold(one["content"]) not in known] + before
    while found and (found[-1]["role"] == "assistant" or fold(found[-1]["content"]) in ends):
        found.pop()
    if found:
        found[-1] = found[-1] | {"content": _without_answer(found[-1]["content"], answers)}
    users = [one["content"] for one in found if one["role"] == "user"]
    question = question_of_prompt(users[-1] if users else "")
    only_asks = [one["content"].strip() for one in found] in ([], [row.get("question")], [question])
    return {"prompt_question": question, "prompt": None if only_asks else found}


def _without_answer(text: str, answers: Sequence[str]) -> str:
    """Return a prompt's text without an answer that ends it, on a line after a "?" or after "Answer:"."""
    ends = "|".join(re.escape(answer.strip()) for answer in answers if answer.strip())
    pattern = rf"(\?\s*\n|\b(?:answer|assistant|response):)\s*(?:{ends})\s*\Z"
    return re.sub(pattern, r"\1", text, flags=re.IGNORECASE) if ends else text
