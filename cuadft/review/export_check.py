"""Compare exported weights with those of the run: do they answer the run's own test prompts with the same words?

    agreement(system, source, folder, 20)  # ["model/ gave the run's greedy answer to 20 of 20 test prompts.", ...]

The prompts are those of the passages that the system read for its test questions. All are answered greedily and freely,
without the grammar that holds the run's quotes to the passage, so that every word is the weights' own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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

    found = list(_read_passages(source))
    asked = found[:: max(1, len(found) // count)][:count]  # from all over the test contracts
    if not asked:
        return ["No form was compared with the run's weights: these have read no passage for a test question."]
    engine, adapter = made.lm.engine, made.name if made.name in made.lm.engine.adapters else ""
    tokens = [engine.tokenize(prompt(made, *each)) for each in asked]
    expected = list(_answers(engine, tokens, adapter, source.max_tokens))
    merged = _answers(LocalEngine(folder / "model"), tokens, "", source.max_tokens)
    notes = [f"model/ gave the run's greedy answer to {_same(merged, expected)} of {len(asked)} test prompts."]
    for path in sorted((folder / "gguf").glob("*.gguf")):
        notes.append(f"gguf/{path.name} {_in_llama(path, engine.tokenizer, tokens, expected, source.max_tokens)}.")
    return notes


def _read_passages(source: Source) -> Iterator[tuple[str, str]]:
    """Yield question and passage of each prompt of the system's test answers."""
    path = source.made_in.path("predictions", f"{source.system}.test.jsonl")
    texts = {record["title"]: record["text"] for record in source.contracts}
    for row in read_jsonl(path, torn_ok=True) if path.is_file() else ():
        for passage in row["passages"]:
            if passage["read"] and row["contract"] in texts:
                yield row["question"], texts[row["contract"]][passage["start"] : passage["end"]]


def _answers(engine: Any, tokens: Sequence[list[int]], adapter: str, longest: int) -> Iterator[list[int]]:
    """Yield the tokens of each greedy answer."""
    for start in range(0, len(tokens), BATCH):
        made = engine.generator.generate(tokens[start : start + BATCH], adapter=adapter, max_tokens=longest)
        yield from (each.tokens for each in made)


def _same(made: Iterator[list[int]], expected: Sequence[list[int]]) -> int:
    return sum(one == other for one, other in zip(made, expected, strict=True))


def _in_llama(path: Path, tokenizer: Any, tokens: list[list[int]], expected: list[list[int]], longest: int) -> str:
    """Return how a GGUF file answers where llama-cpp-python is installed, as the end of a sentence."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return "was not compared: llama-cpp-python is not installed here"
    llama = Llama(str(path), n_ctx=max(map(len, tokens)) + longest + 1, verbose=False)
    cut = (llama.tokenize(tokenizer.decode(own).encode(), add_bos=False, special=True) for own in tokens)
    ends = {llama.token_eos(), tokenizer.eos_token_id}

    def answer(own: list[int]) -> list[int]:
        written = itertools.islice(llama.generate(own, temp=0.0, repeat_penalty=1.0), longest)
        return list(itertools.takewhile(lambda token: token not in ends, written))

    same, alike = _same(map(answer, tokens), expected), _same(cut, tokens)
    return f"gave it to {same} of {len(tokens)} in llama.cpp, which cut {alike} of the prompts into the same tokens"
