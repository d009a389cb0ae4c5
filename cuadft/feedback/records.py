"""What a judgement is: its fields and their checks, and how the same pair of answers is recognised.

A person sees two answers to one question and says which one is better. What is said goes through the files of this room
under five names:

- A *judgement* is one person's record on two answers: a dict with the keys of `FIELDS`. Its `verdict` is one of
  `VERDICTS`; "a" means that answer_a is better, wherever it stood on the screen (`shown_first` says where).
- A *vote* is the same in another program's file, before its training question is known (`formats.Vote`).
- A *ruling* is what the majority of the annotators decided on a pair (`agreement.Ruling`).
- A *grade* is a score of one answer from 0 to 1, given by the gold spans or by a judge (`candidates.GradedAnswer`).
- A *choice* is a text to prefer and a text to reject, made of a ruling or of two grades (`candidates.Choice`).

For example:

    said = {"annotator": "anna", "id": "q1", "contract": "Acme", "question": "Which law?", "answer_a": "Ohio",
            "answer_b": "Texas", "verdict": "a"}
    checked_judgement(said)   # with all FIELDS, a new uid and the time

A stored judgement is never changed. An undo is a judgement of its own whose `revokes` holds the uid of the judgement
that it takes back; `current_judgements` leaves both out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictInt, StrictStr, ValidationError

from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.core.text import fold, without_surrogates

Rows = Sequence[Mapping[str, Any]]
Verdict = Literal["a", "b", "tie", "both_wrong", "skip"]
VERDICTS = Verdict.__args__
OTHER_SIDE = {"a": "b", "b": "a"}
MAX_NAME_LENGTH = 100  # characters of an annotator's name
CLOCK_TOLERANCE = timedelta(days=1)  # the latest judgement counts: one dated in the far future could not be corrected


def _one_line(name: str) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"give a name of 1 to {MAX_NAME_LENGTH} characters")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def time_in_utc(time: str) -> str:
    """Return an ISO 8601 time in UTC; raises ValueError for another text, without a zone, and for a future time."""
    given = datetime.fromisoformat(time)
    if given.tzinfo is None or given.replace(tzinfo=UTC) > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise ValueError("give a time with its zone that is not in the future, such as 2026-05-04T09:30:00+00:00")
    return given.astimezone(UTC).isoformat(timespec="microseconds")


def _ascending(span: list[int]) -> list[int]:
    if len(span) != 2 or not 0 <= span[0] < span[1]:
        raise ValueError("give [start, end] in characters of the contract, 0 <= start < end")
    return span


def _writable(value: Any) -> Any:
    return without_surrogates(value) if isinstance(value, str) else value


Text = Annotated[StrictStr, BeforeValidator(_writable)]
NotBlank = Annotated[Text, Field(pattern=r"\S")]
Uid = Annotated[StrictStr, Field(pattern="^[0-9a-f]{32}$")]


class Message(BaseModel):
    """Hold one message of a prompt or of an answer."""

    role: Text
    content: Text


class _Judgement(BaseModel, extra="forbid"):
    """The fields of a judgement."""

    uid: Uid = Field(default_factory=lambda: uuid.uuid4().hex)
    time: Annotated[StrictStr, AfterValidator(time_in_utc)] = Field(default_factory=_now)
    annotator: Annotated[Text, AfterValidator(_one_line)]
    id: NotBlank  # of the training question
    contract: NotBlank
    question: NotBlank
    answer_a: Text
    answer_b: Text
    system_a: Text = ""
    system_b: Text = ""
    shown_first: Literal["a", "b"] | None = None  # None where that is not known
    verdict: Verdict
    edited: Text | None = None  # the better answer as the annotator corrected it
    span: Annotated[list[StrictInt], AfterValidator(_ascending)] | None = None  # of the evidence that was marked
    comment: Text = ""
    seconds: float | None = Field(None, strict=True, ge=0, allow_inf_nan=False)
    prompt: list[Message] | None = Field(None, min_length=1)  # the messages to which the answers were given
    source: Text = Field("widget", pattern="^(widget$|import:)")  # "widget" or "import:<file name>"
    revokes: Uid | None = None  # the uid of the judgement that this one takes back


FIELDS = tuple(_Judgement.model_fields)
REQUIRED = tuple(name for name, field in _Judgement.model_fields.items() if field.is_required())


def checked_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judgement with all `FIELDS`, in their order; uid and time are filled in where they are missing.

    An optional field that is left out or None becomes "" (system_a, system_b, comment), "widget" (source) or None (all
    others). NUL and lone surrogates become "?". Raises InputError on a missing, unknown or invalid field, and on two
    equal answers.
    """
    given = {str(key): value for key, value in judgement.items() if value is not None or key not in FIELDS}
    try:
        found = _Judgement.model_validate(given).model_dump()
    except ValidationError as error:
        raise InputError(_message(error.errors(include_url=False)[0], given)) from None
    if found["answer_a"] == found["answer_b"]:
        raise InputError(f"Both answers are {found['answer_a']!r:.60}: there is nothing to choose, leave the pair out.")
    return found | {"edited": found["edited"] if (found["edited"] or "").strip() else None}


def _message(error: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the first fault that pydantic found as one sentence: the value and what is allowed."""
    name = error["loc"][0]
    if name not in given:
        return f"The judgement has no {name!r}: give {', '.join(REQUIRED)}."
    return f"Invalid {name} {given[name]!r:.60} of a judgement: {error['msg'].removeprefix('Value error, ')}."


def pair_key(record: Mapping[str, Any]) -> str:
    """Return the key of a judgement's or task's pair, 24 hexadecimal digits.

    It depends on the question's id and on the texts of the two answers: neither on their order nor on their systems.
    """
    answers = sorted(fold(without_surrogates(record[f"answer_{side}"])) for side in "ab")
    return value_hash([without_surrogates(record["id"]), answers])[:24]


def swapped_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same judgement with answer_a and answer_b in each other's place."""
    swapped = {f"{key}_{side}": judgement[f"{key}_{OTHER_SIDE[side]}"] for key in ("answer", "system") for side in "ab"}
    swapped |= {key: OTHER_SIDE.get(judgement[key], judgement[key]) for key in ("verdict", "shown_first")}
    return dict(judgement) | swapped


def current_judgements(judgements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the judgements that count now, of judgements in stored order.

    Undone judgements and undos are left out, and of each annotator the latest judgement on a pair counts. In all
    judgements on one pair answer_a is the same answer, so that their verdicts can be compared as they are.
    """
    rows = list(judgements)
    revoked = {row.get("revokes") for row in rows} - {None}
    answer_a: dict[str, str] = {}  # pair -> answer_a of its first judgement
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row.get("time") or ""):  # stable: rows of one instant keep the stored order
        if row.get("revokes") or row.get("uid") in revoked:
            continue
        pair, answer = pair_key(row), fold(row["answer_a"])
        as_first = answer_a.setdefault(pair, answer) == answer
        latest.pop((row["annotator"], pair), None)  # so that the later judgement stands at the end of the dict
        latest[row["annotator"], pair] = dict(row) if as_first else swapped_judgement(row)
    return list(latest.values())
