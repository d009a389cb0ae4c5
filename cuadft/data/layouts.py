"""The layouts that contracts and their questions are published in, brought into one: the documents of SQuAD 2.0.

CUAD is published as SQuAD documents (CUAD_v1.json; CUADv1.json, test.json and train_separate_questions.json in the
data.zip of its repository) and as rows of one question each (JSON lines, a JSON array or parquet). For example:

    documents, places = documents_in(Path("rows.jsonl").read_bytes(), "rows.jsonl")
    documents[0]["paragraphs"][0]["qas"][0]["question"], places[0, 0]   # "Highlight the ...", "line 1"
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
LAYOUT = (
    "expected the SQuAD 2.0 layout of CUAD_v1.json: {'data': [{'title', 'paragraphs': [{'context', 'qas'}]}]}; or rows "
    "with id, title, context, question and answers, as JSON lines, a JSON array or parquet"
)
ROWS_AT_ONCE = 256
_BLANK = re.compile(r"\s*")
_NOT_CONTRACTS = re.compile(r"(^|/)(\.|__MACOSX|dataset_\w+\.json$|state\.json$)")  # hidden, or beside `datasets`' rows


def contract_files(names: Iterable[str]) -> list[str]:
    """Return the files of contracts among the names in an archive or folder.

    CUAD_v1.json (or CUADv1.json) holds all contracts of the files beside it; of several copies the outermost is taken.
    """
    paths = {name: PurePosixPath(name) for name in sorted(names)}
    found = [name for name, path in paths.items() if path.suffix.lower() in SUFFIXES]
    found = [name for name in found if not _NOT_CONTRACTS.search(str(paths[name]))]
    whole = [name for name in found if fold_letters(paths[name].name) == "cuadv1json"]
    return [min(whole, key=lambda name: name.count("/"))] if whole else found


def documents_in(raw: bytes, name: str) -> tuple[list[Any], dict[tuple[int, int], str]]:
    """Return a file's documents, not yet checked, and the place ("line 7") of each question that came as a row.

    Rows of one title and context make one document. Raises InputError if the file is damaged or holds no contracts.
    """
    documents: list[Any] = []
    places: dict[tuple[int, int], str] = {}
    numbers: dict[tuple[str, str], int] = {}
    for where, item in _items(raw, name):
        if not _is_contract(item) or "paragraphs" in item:
            documents.append(item)
            continue
        title = item.get("title") or str(item.get("id", "")).rpartition("__")[0]
        number = numbers.setdefault((str(title), str(item["context"])), len(documents))
        if number == len(documents):
            documents.append({"title": title, "paragraphs": [{"context": item["context"], "qas": []}]})
        qas = documents[number]["paragraphs"][0]["qas"]
        places[number, len(qas)] = where
        known = {key: item[key] for key in ("id", "question", "answers", "is_impossible") if key in item}
        qas.append({"id": f"{title}__{item.get('category', where)}"} | known)
    return documents, places


def spans_of(answers: Any) -> Any:
    """Return a question's answers as a list of spans, from a mapping of lists or of one span; without blank spans."""
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list):
            answers = [answers] if texts is not None else []
        elif isinstance(starts, list) and len(starts) == len(texts):
            answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    if not isinstance(answers, list):
        return answers
    texts = [span.get("text") if isinstance(span, dict) else None for span in answers]
    return [span for span, text in zip(answers, texts) if not isinstance(text, str) or text.strip()]


def _items(raw: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the documents or rows of a file, each with its place."""
    if raw.startswith(b"PAR1"):
        yield from _parquet_rows(raw, name)
        return
    values = _json_values(raw, name)
    first = values[0][1]
    inner = first.get("data") if isinstance(first, dict) and "data" in first else first
    if isinstance(inner, list) and len(values) == 1:
        values = [(f"row {number}", item) for number, item in enumerate(inner, 1)]
    named_data = isinstance(inner, list) and inner is not first
    if not values or not (named_data or any(_is_contract(item) for _, item in values)):
        raise InputError(f"{name} holds no contracts but {short(first)}; {LAYOUT}")
    yield from values


def _json_values(raw: bytes, name: str) -> list[tuple[str, Any]]:
    """Return the JSON values that stand one after the other in a file, mostly one a line, each with its line."""
    decoder, at, line, values = json.JSONDecoder(), 0, 1, []
    try:
        text = raw.decode(json.detect_encoding(raw))
        while not values or at < len(text):
            begin = _BLANK.match(text, at).end()
            line += text.count("\n", at, begin)
            value, end = decoder.raw_decode(text, begin)
            values.append((f"line {line}", value))
            line, at = line + text.count("\n", begin, end), _BLANK.match(text, end).end()
            line += text.count("\n", end, at)
    except (ValueError, RecursionError) as error:  # of the encoding or of JSON; nested too deeply
        raise InputError(f"{name} is not whole UTF-8 JSON ({error}); fetch or save it again. {LAYOUT}") from error
    return values


def _parquet_rows(raw: bytes, name: str) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet

    try:  # in parts: each row of a contract repeats its text
        batches = pyarrow.parquet.ParquetFile(io.BytesIO(raw)).iter_batches(batch_size=ROWS_AT_ONCE)
        for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
            if number == 1 and not _is_contract(row):
                raise InputError(f"{name} holds no contracts but columns {', '.join(row)}; {LAYOUT}")
            yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{name} is not a whole parquet file ({error}); fetch or save it again") from error


def _is_contract(item: Any) -> bool:
    """Tell whether a JSON value is a document or a row."""
    return isinstance(item, dict) and ("paragraphs" in item or "context" in item)


def short(value: Any, length: int = 60) -> str:
    """Return a value as Python writes it, its middle cut out if it is longer than `length` characters."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 15]}...{shown[-12:]}"
