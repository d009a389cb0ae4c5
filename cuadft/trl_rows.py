"""TRL's preference rows as votes: prompt, chosen and rejected, or prompt, completion and label; as text or as messages.

Formats: https://huggingface.co/docs/trl/dataset_formats ("preference", "unpaired preference", standard or conversational;
the prompt may be implicit, as the part that chosen and rejected share).
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cuadft.cells import Refused, text
from cuadft.tables import Record
from cuadft.training_rows import question_of

TRUE, FALSE = ("true", "1", "1.0", "yes", "up", "good"), ("false", "0", "0.0", "no", "down", "bad")
MACHINE = ("gold", "ai", "judge", "synthetic")  # sources of pairs that no person preferred
_ANSWER = re.compile(r".*(?:\A|\n)\s*(?:answer|assistant)\s*:", re.DOTALL | re.IGNORECASE)
Messages = list[dict[str, str]]


def fits(columns: Collection[str]) -> bool:
    """Tell whether a file has TRL's columns."""
    return {"chosen", "rejected"} <= set(columns) or {"completion", "label"} <= set(columns)


def votes(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row's vote; raises `Refused` where an answer is missing or of another type."""
    values = record.values
    source = str(values.get("source") or "").casefold()
    if source in MACHINE:
        raise Refused(f"it is no person's preference (source {source})")
    yield _pair(values) if values.get("chosen") not in (None, "") or "completion" not in values else _thumb(values)


def _pair(values: Mapping[str, Any]) -> dict[str, Any]:
    prompt, chosen, rejected = (_parsed(values.get(name), name) for name in ("prompt", "chosen", "rejected"))
    if prompt in ("", []):
        asked = any(values.get(name) for name in ("question", "question_id", "row_id", "id"))
        prompt, chosen, rejected = _implicit(chosen, rejected, asked=asked)
    answers = {"answer_a": _answer(chosen, "chosen"), "answer_b": _answer(rejected, "rejected")}
    systems = {"system_a": text(values.get("system_chosen")), "system_b": text(values.get("system_rejected"))}
    return answers | systems | _asked(prompt, values) | {"verdict": "a"}


def _thumb(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thumb as a vote with an empty second answer: "a" is thumbs up, "both_wrong" thumbs down."""
    label = str(values.get("label")).strip().casefold()
    if label not in (*TRUE, *FALSE):
        raise Refused(f"its label {label[:20]!r} is neither true nor false")
    answer = {"answer_a": _answer(_parsed(values.get("completion"), "completion"), "completion"), "answer_b": ""}
    systems = {"system_a": text(values.get("system")), "system_b": ""}
    pair = {"pair": text(values["pair"])} if values.get("pair") not in (None, "") else {}
    return answer | systems | pair | _asked(_parsed(values.get("prompt"), "prompt"), values) | {
        "verdict": "a" if label in TRUE else "both_wrong"}  # fmt: skip


def _asked(prompt: str | Messages, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the question that a prompt ends with and, of one in messages, the messages too if they hold more than that."""
    kept = _parsed(values.get("messages"), "messages") or prompt
    texts = [m["content"] for m in kept] if isinstance(kept, list) else [kept]
    users = [m["content"] for m in kept if m["role"] == "user"] if isinstance(kept, list) else texts
    question = question_of(users[-1]) if users else ""
    bare = isinstance(kept, str) or kept == [] or texts in ([text(values.get("question"))], [question])
    return {"prompt_question": question, "prompt": None if bare else kept, "prompt_text": "\n".join(texts)}


def _implicit(chosen: str | Messages, rejected: str | Messages, *, asked: bool) -> tuple[Any, Any, Any]:
    """Split off the prompt that both answers begin with.

    Shared messages are the prompt. Shared text is, up to its last "Answer:" or "Assistant:"; without such a mark, as in
    TRL, up to its last blank, unless the row says itself what was `asked`: then the texts are answers that begin alike.
    """
    if isinstance(chosen, list) and isinstance(rejected, list):
        n = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
        return chosen[:n], chosen[n:], rejected[n:]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise Refused("one of its answers is text, the other messages")
    shared = os.path.commonprefix([chosen, rejected])
    marked = _ANSWER.match(shared)
    n = marked.end() if marked else 0 if asked else shared.rfind(" ") + 1
    return chosen[:n], chosen[n:].strip(), rejected[n:].strip()


def _parsed(value: Any, name: str) -> str | Messages:
    """Return text or messages; a cell may hold messages as JSON or, as pandas writes them, as a Python literal."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _literal(value)
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if isinstance(value, list):
        if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
            raise Refused(f"its {name} is a list of something else than messages with role and content")
        return [{"role": m["role"], "content": _content(m.get("content"), name)} for m in value]
    return text(value, name)


def _literal(cell: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(m, dict) and "role" in m for m in found):
            return found
    return cell


def _content(value: Any, name: str) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(text(part.get("text"), name) for part in value)
    return text(value, name)


def _answer(value: str | Messages, name: str) -> str:
    """Return an answer's text: that of the last message, which must be the assistant's; Refused if it is blank."""
    if isinstance(value, list):
        if value and value[-1]["role"] != "assistant":
            raise Refused(f"the last message of its {name} is not the assistant's")
        value = value[-1]["content"] if value else ""
    if not value.strip():
        raise Refused(f"its {name} is empty")
    return value
