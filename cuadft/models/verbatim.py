"""Verbatim quotes: let a language model write pieces of a given text, one a line, or a fixed refusal, and nothing else.

The rule holds for characters, not for tokens, since a piece rarely has the same tokens inside and outside its text. For
example, with a `Generator`:

    source = QuoteSource("The fee is due in May. The term is two years.", refusal="No such clause.")
    (made,) = generator.generate([prompt], max_tokens=48, sources=[source])
    generator.vocabulary.spell(made.tokens)                  # say "fee is due in May\\ntwo years"
    lm("When is it due?", response_format=quote_format(source))   # the same through DSPy, with `LocalEngine`

An answer is either the refusal or one or more quotes with a newline between them. A quote starts and ends at a word
border, never with white space. In a text without blanks between words, such as a Chinese one, each letter is a word.
Quotes stand in the order of the text and do not overlap, so that an answer ends.
A token may end a line with its last byte (as ".\\n" of Qwen and Llama 3 does), but none leads from one line into the
next: no tokenizer that is known has such tokens but for white space.

The file goes in this order: sources, the grammar of answers, tokens as bytes, what may follow.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from cuadft.core.errors import InputError
from cuadft.core.text import LETTER, is_unspaced

APART = b"\xff"  # no UTF-8 text holds this byte: it stands between text and refusal, and no token leads across it
BLANK_BYTE, BLANK_PIECE = "Ġ", "▁"  # for a blank in byte-level and in sentencepiece vocabularies
BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")  # a byte in a sentencepiece vocabulary
SCHEMA = {"type": "array", "items": {"type": "string"}}  # of `quote_format`, besides what may be quoted


# --- sources


@dataclass(frozen=True)
class QuoteSource:
    """What one answer may quote: pieces of `text`; `refusal`, if given, is the one other answer.

    White space in `text` counts as single blanks, none at its start and end; a lone surrogate counts as "?". `refusal`
    is one line of words with single blanks.
    """

    text: str
    refusal: str | None = None


def quote_format(source: QuoteSource) -> dict[str, Any]:
    """Return a source as the `response_format` of a DSPy call that `LocalEngine` answers.

    The form is the JSON schema of a list, since DSPy lets no other through. The reply itself is lines, not JSON.
    """
    schema = {**SCHEMA, "text": source.text, "refusal": source.refusal}
    return {"type": "json_schema", "json_schema": {"name": "quotes", "schema": schema}}


def read_quote_format(received: Mapping[str, Any]) -> QuoteSource:
    """Return the source in a request's `response_format`; raises InputError if it is not one of `quote_format`."""
    schema = received.get("schema") if received.get("name") == "quotes" else None
    if not isinstance(schema, Mapping) or "text" not in schema:
        got = str(dict(received))[:200]
        raise InputError(f"The local model takes no response_format {got}: give that of quote_format, or none.")
    return QuoteSource(schema["text"], schema["refusal"])


def cut_to_words(text: str, source: QuoteSource) -> str:
    """Return a cut answer up to the last place where it could have ended; "" if there is none."""
    grammar = Grammar(source)
    state, complete = grammar.start, 0
    for length, char in enumerate(text, 1):
        state = grammar.advance(state, char.encode("utf-8", "replace"))
        if not state.places:
            break
        if grammar.may_end(state):
            complete = length
    return text[:complete]


def _fold(text: str) -> str:
    """Return a text with single blanks, and with "?" for what UTF-8 cannot spell."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


# --- the grammar of answers


class State(NamedTuple):
    """Where an answer stands: byte offsets at which its last line may go on.

    `fresh` tells that the line is still empty, so that neither the line nor the answer may end.
    """

    places: tuple[int, ...]
    fresh: bool


class Grammar:
    """The answers that a source allows, byte by byte.

    `data` is the text and behind it the refusal. An offset in it is a place. Of the places at which a quote can have
    ended, the first decides where the next quote may start: whatever could follow a later one can follow this one too.
    """

    def __init__(self, source: QuoteSource) -> None:
        text = _fold(source.text)
        self.starts, ends = _borders(text)
        self.ends, self.data = frozenset(ends), text.encode()
        self.answer_ends, first = self.ends, tuple(self.starts)
        if source.refusal is not None:
            first += (len(self.data) + len(APART),)
            self.data += APART + source.refusal.encode()
            self.answer_ends |= {len(self.data)}
        self.start = State(first, fresh=True)

    def advance(self, state: State, spelled: bytes) -> State:
        """Return the state after one or more bytes; it has no places if they are not allowed."""
        head = spelled.removesuffix(b"\n")
        ended = tuple(p + len(head) for p in state.places if self.data.startswith(head, p))
        if head == spelled:
            return State(ended, fresh=False)
        first = None if state.fresh and not head else min(self.ends.intersection(ended), default=None)
        starts = [] if first is None else self.starts[bisect_left(self.starts, first) :]
        return State(tuple(starts), fresh=True)

    def rest_of_line(self, state: State) -> bytes:
        """Return what stands behind the first place of a line that was begun, b"" for a new line."""
        if state.fresh or not state.places:
            return b""
        return self.data[state.places[0] :].partition(APART)[0]

    def may_end(self, state: State) -> bool:
        """Tell whether the answer is complete as it stands."""
        return not state.fresh and not self.answer_ends.isdisjoint(state.places)


def _borders(text: str) -> tuple[list[int], list[int]]:
    """Return where quotes of a folded text may start and may end, as byte offsets in order."""
    starts, ends, place, before, apart = [], [], 0, " ", is_unspaced(text)
    for char in text:
        if not belong_together(before, char, apart):
            if before != " ":
                ends.append(place)
            if char != " ":
                starts.append(place)
        before, place = char, place + len(char.encode())
    return starts, ends + [place] * (before != " ")


def belong_together(before: str, after: str, apart: bool) -> bool:
    """Tell whether no quote ends or starts between two characters: inside a word, and before an accent of its own.

    apart: the text is written without blanks, so that a letter of a script without them is a word of its own.
    """
    if before == " " or after == " ":
        return False
    if _is_mark(after):
        return True
    parted = apart and (LETTER.match(before) or LETTER.match(after))
    return not parted and _is_of_word(before) and _is_of_word(after)


def _is_of_word(char: str) -> bool:
    return char.isalnum() or char == "_" or _is_mark(char)


def _is_mark(char: str) -> bool:
    """Tell whether a character combines with the one before it, as an accent or a vowel sign does."""
    return unicodedata.category(char).startswith("M")


# --- tokens as bytes


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """Return what each token id spells; None for added tokens (special ones too) and for ids that spell nothing.

    Raises InputError unless the tokenizer spells text by bytes (GPT-2, Llama 3, Qwen, SmolLM2) or by pieces with a mark
    for the blank (sentencepiece: Llama 2, Mistral, Gemma).
    """
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    if BLANK_PIECE in vocabulary:  # first: a piece may also be the letter that a byte-level tokenizer has for a blank
        spell = _piece_bytes
    elif BLANK_BYTE in vocabulary:
        spell = _byte_level_bytes
    else:
        kind = type(tokenizer).__name__
        raise InputError(f"Quotes need a byte-level or sentencepiece tokenizer, not {kind}: choose another model.")
    spelled: list[bytes | None] = [None] * (max([*vocabulary.values(), *added]) + 1)
    for token, number in vocabulary.items():
        if token and number not in added:
            spelled[number] = spell(token)
    return spelled


def _byte_level_bytes(token: str) -> bytes | None:
    alphabet = _byte_alphabet()
    return bytes(alphabet[char] for char in token) if alphabet.keys() >= set(token) else None


@cache
def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's table of the letters that stand for bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {char: byte for byte, char in bytes_to_unicode().items()}


def _piece_bytes(token: str) -> bytes:
    """Return what a sentencepiece token spells: <0xAB> one byte, others their characters with blanks for the marks."""
    if BYTE_PIECE.fullmatch(token):
        return bytes.fromhex(token[3:5])
    return token.replace(BLANK_PIECE, " ").encode("utf-8", "replace")


def _drops_first_blank(tokenizer: Any) -> bool:
    """Tell whether a tokenizer puts a blank before a text's first word, and drops it when it decodes."""
    words = [number for token, number in tokenizer.get_vocab().items() if token[:1] == BLANK_PIECE != token]
    return bool(words) and not tokenizer.decode(words[:1]).startswith(" ")


class Vocabulary:
    """The tokens of a tokenizer by the bytes that they spell: made once for a tokenizer, then used for every source.

    spelled: what each id spells (see `token_bytes`). drops_blank: the answer's first token may have a blank before it,
    which does not count.
    """

    def __init__(self, spelled: Sequence[bytes | None], drops_blank: bool = False) -> None:
        self.spelled = [token if token and APART not in token else None for token in spelled]
        self.drops_blank = drops_blank
        # Bytes with which a token starts -> the tokens that end there: a trie in one table.
        self.prefixes: dict[bytes, tuple[int, ...]] = {}
        self.opening: dict[bytes, tuple[int, ...]] = {}  # the same without a first blank, for the first token
        self.ending: dict[bytes, tuple[int, ...]] = {}  # bytes before a newline at the end -> tokens
        for number, token in enumerate(self.spelled):
            if token is None:
                continue
            head, newline, rest = token.partition(b"\n")
            if newline:
                if not rest:
                    self.ending[head] = (*self.ending.get(head, ()), number)
                continue
            _add(self.prefixes, token, number)
            if drops_blank and token.startswith(b" ") and len(token) > 1:
                _add(self.opening, token[1:], number)

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Return the vocabulary of a tokenizer; raises InputError if that does not tell what its tokens spell."""
        return cls(token_bytes(tokenizer), _drops_first_blank(tokenizer))

    def spell(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens, without a character of which bytes are missing."""
        text = b"".join(self.spelled[token] or b"" for token in tokens)
        return (text.removeprefix(b" ") if self.drops_blank else text).decode("utf-8", "ignore")


def _add(table: dict[bytes, tuple[int, ...]], token: bytes, number: int) -> None:
    for length in range(1, len(token)):
        table.setdefault(token[:length], ())
    table[token] = (*table.get(token, ()), number)


# --- what may follow


class Choices:
    """The tokens of a vocabulary that may follow in each state of a source's grammar.

    What a set of places allows is what each of them allows alone, so that tokens are looked up once a place.
    """

    def __init__(self, source: QuoteSource, vocabulary: Vocabulary) -> None:
        self.grammar, self.vocabulary = Grammar(source), vocabulary
        size = len(self.grammar.data)
        # A place is alive if tokens lead from it to an end: not every vocabulary spells every byte alone.
        self._alive = bytearray(size + 1)
        self._within: list[list[int]] = [[] for _ in range(size + 1)]
        for place in range(size, -1, -1):
            self._within[place] = self._spell_on(place, vocabulary.prefixes)
            self._alive[place] = bool(self._within[place]) or place in self.grammar.answer_ends
        # The last place from which a further quote can be written, and how much tokens spell before a newline
        self._last = max((place for place in self.grammar.starts if self._within[place]), default=-1)
        self._lengths = sorted({len(head) for head in vocabulary.ending})
        self._end_line = cache(self._end_line)

    def allowed(self, state: State) -> list[int]:
        """Return the ids of the tokens that may follow, some perhaps twice; the end mark is not among them."""
        found = [token for place in state.places for token in self._within[place]]
        found += [token for place in state.places for token in self._end_line(place, state.fresh)]
        if state is self.grammar.start and self.vocabulary.opening:
            found += [token for place in state.places for token in self._spell_on(place, self.vocabulary.opening)]
        return found

    def advance(self, state: State, token: int) -> State:
        """Return the state after a token; it has no places if the token is not allowed."""
        spelled = self.vocabulary.spelled[token] if token < len(self.vocabulary.spelled) else None
        if spelled and self.vocabulary.drops_blank and state is self.grammar.start:
            spelled = spelled.removeprefix(b" ")
        return self.grammar.advance(state, spelled) if spelled else State((), fresh=False)

    def _spell_on(self, place: int, tokens: dict[bytes, tuple[int, ...]]) -> list[int]:
        """Return the tokens that go on from a place inside its line and end at a place that is alive."""
        data, found, end = self.grammar.data, [], place + 1
        while end <= len(data) and (ending := tokens.get(data[place:end])) is not None:
            if ending and self._alive[end]:
                found += ending
            end += 1
        return found

    def _end_line(self, place: int, fresh: bool) -> list[int]:
        """Return the tokens that end the line some bytes after a place, if a further quote can follow."""
        found, data = [], self.grammar.data
        for end in (place + length for length in self._lengths if length or not fresh):
            if end in self.grammar.ends and end <= self._last:
                found += self.vocabulary.ending.get(data[place:end], ())
        return found
