"""Compare exported weights with those of the run: do they answer the run's own test prompts with the same words?

    agreement(system, source, folder, 20)  # ["model/ gave the run's answer to 20 of 20 prompts ...", ...]

The prompts are those of the passages that the system read for its test questions. All are answered greedily and freely,
without the grammar that holds the run's quotes to the passage, so that every word is the weights' own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core.files import read_jsonl

if TYPE_CHECKING:
    from cuadft.rag.systems import System
    from cuadft.review.export_card import Source

BATCH = 8  # prompts at once


def prompt(made: System, question: str, passage: str) -> list[dict[str, str]]:
    """Return the chat messages that a system sends about a passage: the instructions, the demos, the question."""
    from cuadft.data.passages import Passage
    from cuadft.retrieval.retriever import Hit

    return made.program.messages(question, Hit(Passage("", 0, 0, len(passage), passage), 0.0), "")[:-1]


def agreement(made: System, source: Source, folder: Path, count: int) -> list[str]:
    """Return a sentence on each exported form: how many prompts it answered as the run's weights do."""
    from cuadft.models.local import LocalEngine

    engine, name = made.lm.engine, made.name if made.name in made.lm.engine.adapters else ""
    asked = list(itertools.islice(_spread(list(_read_passages(source)), count), count))
    if not asked:
        return [
            "The exported weights were not compared with the run's: it has no test questions whose passages it read."
        ]
    messages = [prompt(made, question, passage) for question, passage in asked]
    tokens, longest = [engine.tokenize(each) for each in messages], made.lm.kwargs["max_tokens"]
    expected = list(_answers(engine, tokens, name, longest))
    merged = _answers(LocalEngine(folder / "model"), tokens, "", longest)
    same = sum(own == other for own, other in zip(expected, merged, strict=True))
    notes = [f"model/ gave the run's greedy answer to {same} of {len(asked)} test prompts."]
    for path in sorted((folder / "gguf").glob("*.gguf")):
        notes.append(_gguf_agreement(path, engine, messages, tokens, expected, longest))
    return notes


def _read_passages(source: Source) -> Iterator[tuple[str, str]]:
    """Yield question and passage of each prompt of a run's test answers."""
    if not source.answers.is_file():
        return
    for row in read_jsonl(source.answers, torn_ok=True):
        for passage in row["passages"]:
            if passage["read"] and row["contract"] in source.texts:
                yield row["question"], source.texts[row["contract"]][passage["start"] : passage["end"]]


def _spread(items: Sequence[Any], count: int) -> Iterable[Any]:
    """Return some `count` items from all over a sequence."""
    return items[:: max(1, len(items) // max(count, 1))]


def _answers(engine: Any, tokens: Sequence[list[int]], adapter: str, longest: int) -> Iterator[list[int]]:
    """Yield the tokens of each greedy answer."""
    for start in range(0, len(tokens), BATCH):
        made = engine.generator.generate(tokens[start : start + BATCH], adapter=adapter, max_tokens=longest)
        yield from (each.tokens for each in made)


def _gguf_agreement(
    path: Path,
    engine: Any,
    messages: Sequence[Sequence[Mapping[str, str]]],
    tokens: Sequence[list[int]],
    expected: Sequence[list[int]],
    longest: int,
) -> str:
    """Return a sentence on a GGUF file, as llama.cpp reads it, where llama-cpp-python is installed."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return f"gguf/{path.name} was not compared: llama-cpp-python is not installed here."

    llama = Llama(str(path), n_ctx=max(map(len, tokens)) + longest + 1, verbose=False)
    texts = [engine.tokenizer.decode(each) for each in tokens]
    cut = sum(llama.tokenize(text.encode(), add_bos=False, special=True) == own for text, own in zip(texts, tokens))
    ends = {llama.token_eos(), engine.tokenizer.eos_token_id}
    same = sum(_llama_answer(llama, own, ends, longest) == answer for own, answer in zip(tokens, expected, strict=True))
    return (
        f"gguf/{path.name} gave the run's greedy answer to {same} of {len(tokens)} test prompts in llama.cpp, "
        f"which cut {cut} of them into the same tokens."
    )


def _llama_answer(llama: Any, tokens: list[int], ends: set[int], longest: int) -> list[int]:
    written = llama.generate(tokens, temp=0.0, repeat_penalty=1.0)
    return list(itertools.takewhile(lambda token: token not in ends, itertools.islice(written, longest)))
