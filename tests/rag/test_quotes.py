"""Quotes of replies: where they stand in the contract, how sure the model was, and what the edge of a passage cut."""

import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.core.text import MARKS, quotable
from cuadft.data.passages import Passage
from cuadft.evaluation.text_scores import NO_CLAUSE, is_refusal
from cuadft.rag.quotes import (
    LEAST_LOGPROB,
    LEAST_SENTENCE,
    Quote,
    join_quotes,
    quote_of_sentence,
    quotes_of_reply,
    with_sentences,
    with_votes,
)

PARTS = ["<b>", "</passage>", "<|im_end|>", "[INST]", "[/INST]", "< 5", "the", "this", "is", "Is", "e", "n\u0303o", "İ"]
PARTS += ["ß", "中文", "(a)", "“fee”", "2.5%", "_", "-", "\u0301", "\ud800", "😀"]
BLANKS = [" ", "  ", "\n\n", "\t", "\u00a0", "\u2028", "\x1c", "\r\n", ""]
odd_texts = st.lists(st.tuples(st.sampled_from(PARTS) | st.text(max_size=3), st.sampled_from(BLANKS))).map(
    lambda pairs: "".join(word + blank for word, blank in pairs)
)
WORDS = [f"word{n}" for n in range(60)]


def passage_of(text: str, start: int = 0, index: int = 0) -> Passage:
    return Passage("C", index, start, start + len(text), text)


def bare(text: str) -> str:
    """Return a text without blanks, half a character as a model sees it."""
    return "".join(text.encode("utf-8", "replace").decode().split())


def check_places(quotes: list[Quote], passage: Passage) -> None:
    """Check that the words of every placed quote are those at its place, and lie in the passage."""
    for quote in (quote for quote in quotes if quote.span):
        start, end = quote.span
        assert passage.start <= start < end <= passage.end
        cut = passage.text[start - passage.start : end - passage.start]
        assert quote.text == " ".join(cut.split()) != "" and not cut[0].isspace() and not cut[-1].isspace()


# --- places


@st.composite
def quoted_passages(draw: st.DrawFn) -> tuple[Passage, list[str]]:
    """Return a passage and pieces of what a model sees of it, in order: runs of its words and signs."""
    passage = passage_of(draw(odd_texts), draw(st.integers(0, 999)))
    signs = [sign.span() for sign in re.finditer(rf"\w[\w{MARKS}]*|[^\w\s][{MARKS}]*", quotable(passage.text))]
    cuts = sorted(draw(st.sets(st.integers(0, len(signs)), max_size=6)))
    pairs = list(zip(cuts[::2], cuts[1::2]))
    return passage, [quotable(passage.text)[signs[a][0] : signs[b - 1][1]] for a, b in pairs]


@given(quoted_passages())
@example((passage_of("the <b>\n\n fee", 7), ["the < b", "fee"]))
@example((passage_of("this is\x1cit"), ["is", "it"]))
@example((passage_of("a\ud800b"), ["a?b"]))
def test_a_reply_of_pieces_of_the_passage_is_quoted_piece_by_piece_in_order(given):
    passage, pieces = given
    reply = "\n".join(pieces).encode("utf-8", "replace").decode()
    quotes = quotes_of_reply(reply, passage)
    if is_refusal(reply):
        assert quotes == []
        return
    check_places(quotes, passage)
    assert all(quote.span for quote in quotes) and len(quotes) == len(pieces)
    assert [bare(quote.text) for quote in quotes] == [bare(piece) for piece in pieces]
    assert all(first.span[1] <= second.span[0] for first, second in zip(quotes, quotes[1:]))
    assert [quote.evidence["line"] for quote in quotes] == list(map(float, range(len(pieces))))


def test_a_quote_of_one_word_is_that_word_and_no_piece_of_another():
    for reply, span in (("is", (5, 7)), ("s", None), ("THIS", (0, 4)), ("IT", (8, 10)), ("is\nis", (5, 7))):
        (quote,) = quotes_of_reply(reply, passage_of("this is it"))
        assert quote.span == span


@given(odd_texts, odd_texts)
def test_whatever_the_reply_says_a_place_holds_the_words_of_its_quote(reply, text):
    quotes = quotes_of_reply(reply, passage_of(text, 5))
    check_places(quotes, passage_of(text, 5))
    assert all(
        quote.text in [" ".join(line.split()) for line in reply.splitlines()] for quote in quotes if not quote.span
    )
    assert len({quote.span for quote in quotes if quote.span}) == sum(quote.span is not None for quote in quotes)


@pytest.mark.parametrize("reply", [NO_CLAUSE, "There is no such clause", "", " \n", "The contract contains no cap."])
def test_a_refusal_has_no_quotes(reply):
    assert quotes_of_reply(reply, passage_of(f"{NO_CLAUSE} The contract contains no cap.")) == []


# --- snapping


@given(st.integers(0, 10**6), st.integers(8, 20))
def test_a_stretch_with_few_changed_words_is_put_where_it_stands(seed, length):
    draw = random.Random(seed)
    words = [word if n % 4 else draw.choice(["the", "of", "a"]) for n, word in enumerate(draw.sample(WORDS, 50))]
    first = draw.randrange(50 - length)
    own = words[first : first + length]
    for place in draw.sample(range(length), length // 6):
        own[place] = f"changed{place}"
    passage = passage_of("\n".join(words), 11)
    (quote,) = quotes_of_reply(" ".join(own), passage)
    check_places([quote], passage)
    start = 11 + len("\n".join(words[:first])) + (first > 0)
    end = start + len("\n".join(words[first : first + length]))
    shared = min(end, quote.span[1]) - max(start, quote.span[0])  # of few ends: a common word beside it may come along
    assert shared >= 0.6 * (max(end, quote.span[1]) - min(start, quote.span[0]))


def test_a_common_word_that_also_stands_far_away_does_not_keep_a_line_from_its_stretch():
    text = f"the {' '.join(WORDS)} under the law of Ohio alone as it stands"
    (quote,) = quotes_of_reply("the contract law of Ohio alone as it stands", passage_of(text))
    assert quote.text == "the law of Ohio alone as it stands"


@given(st.lists(st.sampled_from(WORDS), min_size=4, max_size=30, unique=True), st.integers(1, 10))
def test_invented_words_are_kept_without_a_place(words, n):
    line = " ".join([*(f"invented{i}" for i in range(n)), *words[: n // 2]])
    assert quotes_of_reply(line, passage_of(" ".join(words))) == [Quote(line, None, evidence={"line": 0.0})]


# --- how sure the model was

tokens = st.tuples(st.sampled_from(["fee", " law", "term "]), st.floats(-40, 0))


@given(st.lists(st.tuples(st.lists(tokens, min_size=1, max_size=4), st.floats(-40, 0), st.booleans()), min_size=1))
def test_each_line_has_the_log_probabilities_of_its_own_tokens_and_of_its_end(lines):
    given, text = [], []
    for number, (own, end, joined) in enumerate(lines):
        last = number == len(lines) - 1
        given += [{"token": token, "logprob": value} for token, value in own]
        given.append({"token": "" if last else ".\n" if joined else "\n", "logprob": end})
        text.append("".join(token for token, _ in own) + "." * (joined and not last))
    for ended in (True, False):  # without an end mark the reply was cut
        quotes = quotes_of_reply("\n".join(text), passage_of("x"), given if ended else given[:-1])
        assert len(quotes) == len(lines)
        for number, (quote, (own, end, _)) in enumerate(zip(quotes, lines)):
            values = [max(value, LEAST_LOGPROB) for _, value in own]
            cut = number == len(lines) - 1 and not ended
            assert quote.evidence == pytest.approx(
                {
                    "line": number,
                    "first": values[0],
                    "mean": sum(values) / len(values),
                    "sum": max(sum(values), LEAST_LOGPROB),
                    "end": 0.0 if cut else max(end, LEAST_LOGPROB),
                }
            )


def test_a_token_of_several_lines_ends_each_of_them():
    given = [("a", -1.0), ("\nb\n", -2.0), ("c", -3.0), ("", -4.0)]
    quotes = quotes_of_reply("a\nb\nc", passage_of("a b c"), [{"token": t, "logprob": p} for t, p in given])
    assert [quote.evidence["end"] for quote in quotes] == [-2.0, -2.0, -4.0]
    assert [quote.evidence["sum"] for quote in quotes] == [-1.0, 0.0, -3.0]


# --- what a passage's edge cut


def parted(text: str, cuts: list[int]) -> list[Passage]:
    edges = [0, *cuts, len(text)]
    return [passage_of(text[a:b], a, n) for n, (a, b) in enumerate(zip(edges, edges[1:]))]


@given(st.data())
def test_what_an_edge_between_two_passages_cut_is_joined_and_nothing_else(data):
    text = data.draw(st.text("ab \n", min_size=1, max_size=24))
    passages = parted(text, sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=4)) - {len(text)}))
    runs = data.draw(st.sets(st.integers(0, len(text)), max_size=8).map(sorted))
    quotes = []
    for passage in passages:
        for a, b in zip(runs[::2], runs[1::2]):
            a, b = max(a, passage.start), min(b, passage.end)
            if a < b and text[a:b].strip():
                start = a + len(text[a:b]) - len(text[a:b].lstrip())
                end = start + len(text[a:b].strip())
                quotes.append((passage, Quote(" ".join(text[start:end].split()), (start, end), 0.5)))
    read = data.draw(st.permutations([p for p in passages if data.draw(st.booleans())]))
    own = [(passage, quote) for passage, quote in quotes if passage in read]
    wanted: list[tuple[int, int]] = []
    last = None
    for passage, quote in own:
        if last is not None and passage.index == last + 1 and not text[wanted[-1][1] : quote.span[0]].strip():
            wanted[-1] = wanted[-1][0], quote.span[1]
        else:
            wanted.append(quote.span)
        last = passage.index
    joined = join_quotes(data.draw(st.permutations([quote for _, quote in own])), read)
    assert [quote.span for quote in joined] == wanted
    assert [quote.text for quote in joined] == [" ".join(text[a:b].split()) for a, b in wanted]


def test_a_word_that_the_edge_cut_is_one_word_again():
    (whole,) = join_quotes([Quote("the la", (0, 6)), Quote("w of", (6, 10))], parted("the law of", [6]))
    assert (whole.text, whole.span) == ("the law of", (0, 10))


def test_a_passage_between_two_quotes_keeps_them_apart_in_whatever_order_they_were_read():
    first, second, third = parted("one two.\n\nthree four.\n\nfive six.", [10, 23])
    quotes = [Quote("one two.", (0, 8)), Quote("five six.", (23, 32))]
    for read in ([first, second, third], [second, third, first], [third, second, first]):
        assert join_quotes(quotes, read) == quotes


def test_a_joined_quote_keeps_the_evidence_of_its_surer_part_and_is_shown_if_one_part_is():
    read = parted("one two three", [4])
    surer = Quote("two three", (4, 13), math.nan, False, {"passage_p": 0.9, "sum": -1.0})
    other = Quote("one", (0, 3), math.nan, True, {"passage_p": 0.2, "sum": -9.0})
    (whole,) = join_quotes([surer, other], read)
    assert (whole.text, whole.span, whole.quoted, whole.evidence) == ("one two three", (0, 13), True, surer.evidence)


def test_quotes_without_a_place_stay_and_come_last():
    nowhere, placed = Quote("invented", None), Quote("one", (0, 3))
    assert join_quotes([nowhere, placed], parted("one two", [4])) == [placed, nowhere]


def test_a_record_holds_all_of_a_quote_in_five_decimals():
    record = Quote("a b", (3, 7), 0.1234567, False, {"sum": -1.5}).record()
    assert record == {"text": "a b", "span": [3, 7], "p": 0.12346, "quoted": False, "evidence": {"sum": -1.5}}
    assert Quote("a", None, 1.0).record()["span"] is None


# --- sentences that the classifiers found

spans = st.tuples(st.integers(0, 80), st.integers(1, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))
found_sentences = st.lists(st.tuples(spans, st.floats(0.02, 0.99)), max_size=5).map(
    lambda pairs: [Quote("s", span, p, quoted=False, evidence={"found": 1.0, "sentence_p": p}) for span, p in pairs]
)
model_quotes = st.lists((st.none() | spans).map(lambda span: Quote("q", span, evidence={"line": 0.0})), max_size=4)


@given(model_quotes, found_sentences)
def test_a_quote_is_told_the_likeliest_sentence_that_it_shares_words_with(quotes, sentences):
    made = with_sentences(quotes, sentences)
    assert [quote.text for quote in made[: len(quotes)]] == ["q"] * len(quotes)
    for before, after in zip(quotes, made):
        inside = [s.p for s in sentences if before.span and before.span[0] < s.span[1] and s.span[0] < before.span[1]]
        assert replace(after, evidence=before.evidence) == before
        assert after.evidence.get("sentence_p") == (max(inside, default=LEAST_SENTENCE) if sentences else None)


@given(model_quotes, found_sentences)
def test_a_sentence_is_a_quote_of_its_own_unless_the_model_quoted_it(quotes, sentences):
    added = with_sentences(quotes, sentences)[len(quotes) :]
    assert all(quote in sentences for quote in added)
    for sentence in sentences:
        assert sentence not in added or all(quote.span != sentence.span for quote in quotes)
        far = all(
            not quote.span or quote.span[0] >= sentence.span[1] or quote.span[1] <= sentence.span[0] for quote in quotes
        )
        assert sentence in added or not far


@given(st.text(alphabet="ab \n\u00a0.", min_size=1).filter(str.strip), st.integers(0, 99))
def test_a_sentence_is_quoted_with_its_exact_place(text, start):
    quote = quote_of_sentence(Passage("C", 0, start, start + len(text), text), 0.5)
    cut = text[quote.span[0] - start : quote.span[1] - start]
    assert quote.text == " ".join(cut.split()) and cut == cut.strip() and (quote.p, quote.quoted) == (0.5, False)


def test_the_votes_of_a_quote_are_the_share_of_the_draws_that_made_it():
    drawn = [Quote("a b", (0, 3)), Quote("c", (5, 6)), Quote("a b", (0, 3)), Quote("x", None), Quote("x", None)]
    found = with_votes(drawn, 5)
    assert [(q.text, q.evidence["votes"]) for q in found] == [("a b", 0.4), ("c", 0.2), ("x", 0.4)]
    other = [Quote("a", (0, 1), evidence={"mean": -1.0}), Quote("a", (0, 1), evidence={"mean": -2.0})]
    assert with_votes(other, 5) == with_votes(other[::-1], 5)  # whichever draw came first
