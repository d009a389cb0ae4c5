"""Properties of constrained decoding: what a model may write, what it can write, and what that costs in probability."""

import itertools
import math
import random
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processor import VerbatimLogits
from test_local import PROMPTS, SHARED, make_adapter

from cuadft.core.errors import InputError
from cuadft.core.text import without_marks
from cuadft.models import quoting, verbatim, weights
from cuadft.models.generator import Generator, _end_marks
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import Choices, QuoteSource, Vocabulary, cut_to_words, quote_format, token_bytes
from cuadft.rag import PlainAdapter

FEE = "The fee of Café Ltd (“the Fee”) is 2.5% – due in May. The term is two years; the fee isn't refunded."
REFUSAL = "No such clause."
END = 0  # id of the end mark in the vocabularies made here
BYTES = [None, *(bytes([byte]) for byte in range(256))]  # every byte is a token of its own
# Multi-byte pieces, pieces across the ends of words, of quotes and of characters, and two ids for one piece.
ODD = ["The", " f", "ee", "e\n", "e\nT", ".\n", "\n\n", "\n ", "y. The te", "é L", "fee", "fee"]
PIECES = [*BYTES, *(piece.encode() for piece in ODD), "é".encode()[1:] + b" Lt", b"f\xc3", "“".encode()[:2], b"\xff"]

# Letters of one to four bytes, an accent of its own, a vowel sign, marks, digits and every kind of white space.
LETTERS = "abAé ß中\u0301\u093f_9.,“-😀\u200d\ud800 \n\t\u00a0\u2028\x85"
texts = st.text(alphabet=LETTERS, max_size=24)
plain_texts = st.lists(st.sampled_from(["a", "b", "ab", "é", ",", " ", " "]), min_size=1, max_size=7).map("".join)
seeds = st.integers(0, 2**32)


def folded(text):
    return " ".join(text.encode("utf-8", "replace").decode().split())


def is_border(text, place):
    """The rule in other words: no border inside a word (accents are of it), nor before an accent.

    Where a fifth of a text's letters and digits is Chinese, each Chinese letter is a word.
    """
    if place in (0, len(text)) or " " in text[place - 1 : place + 1]:
        return True
    if "中" in text[place - 1 : place + 1] and 5 * text.count("中") >= sum(map(str.isalnum, text)):
        return unicodedata.category(text[place])[0] != "M"
    before, after = (c if unicodedata.category(c)[0] != "M" else "M" for c in text[place - 1 : place + 1])
    return after != "M" and not all(c.isalnum() or c == "_" for c in (before, after))


def pieces(text):
    """Return (start, end) of every piece that may be quoted."""
    borders = [i for i in range(len(text) + 1) if is_border(text, i)]
    pairs = itertools.combinations(borders, 2)
    return [(a, b) for a, b in pairs if text[a] != " " and text[b - 1] != " "]


def is_answer(answer, source):
    """Tell whether an answer is the refusal or lines that are pieces of the text, in order and apart."""
    if source.refusal is not None and answer == source.refusal:
        return True
    text, after = folded(source.text), 0
    for line in answer.split("\n"):
        ends = [b for a, b in pieces(text) if a >= after and text[a:b] == line]
        if not ends:
            return False
        after = min(ends)
    return True


def all_answers(source):
    text = folded(source.text)
    found, todo = set(), [("", 0)]
    while todo:
        written, after = todo.pop()
        for a, b in pieces(text):
            if a >= after:
                answer = written + "\n" * bool(written) + text[a:b]
                found.add(answer)
                todo.append((answer, b))
    return found | ({source.refusal} if source.refusal else set())


def scores_of(rows=1, spelled=PIECES):
    import torch

    return torch.randn(rows, len(spelled), generator=torch.Generator().manual_seed(0))


def logits_for(sources, spelled=PIECES, **settings):
    return VerbatimLogits(sources, Vocabulary(spelled, **settings), {END}, width=0)


def ids(rows):
    import torch

    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), -1)


def allowed_after(source, tokens, spelled=PIECES, **settings):
    """Return the ids that the processor lets through after some tokens, given one by one."""
    logits = logits_for([source], spelled, **settings)
    for length in range(len(tokens) + 1):
        masked = logits(ids([tokens[:length]]), scores_of(spelled=spelled))[0]
    return [i for i, score in enumerate(masked.tolist()) if score != -math.inf]


def write_at_random(source, rng, spelled=PIECES, limit=400):
    """Choose among the allowed tokens until the end mark; return the tokens before it."""
    logits, tokens = logits_for([source], spelled), []
    while len(tokens) < limit:
        choices = logits(ids([tokens]), scores_of(spelled=spelled))[0].isfinite().nonzero()[:, 0].tolist()
        assert choices
        token = rng.choice(choices)
        if token == END:
            return tokens
        tokens.append(token)
    raise AssertionError("an answer never ended")


def cut_at_random(data, rng, spelled=PIECES):
    """Return tokens that spell the data: one of all its tokenisations."""
    tokens = []
    while data:
        fitting = [i for i, token in enumerate(spelled) if token and data.startswith(token) and is_usable(token)]
        tokens.append(rng.choice(fitting))
        data = data[len(spelled[tokens[-1]]) :]
    return tokens


def is_usable(token):
    """Tell whether a token leads from no line into the next one: such tokens are never written."""
    return b"\n" not in token[:-1]


def spell(tokens, spelled=PIECES):
    return b"".join(spelled[token] for token in tokens).decode()


# --- what may be written


@given(text=texts, refusal=st.sampled_from([None, REFUSAL, "a"]), seed=seeds)
@example(text=FEE, refusal=REFUSAL, seed=1)
def test_whatever_the_model_prefers_its_answer_is_pieces_of_the_text_in_order(text, refusal, seed):
    source = QuoteSource(text, refusal)
    answer = spell(write_at_random(source, random.Random(seed)))
    assert is_answer(answer, source) or (answer == "" and not folded(text) and refusal is None)


@given(text=texts, seed=seeds)
@example(text=FEE, seed=2)
def test_every_choice_of_pieces_can_be_written_in_every_tokenisation(text, seed):
    rng, text = random.Random(seed), folded(text)
    chosen, after = [], 0
    for a, b in sorted(rng.sample(pieces(text), min(3, len(pieces(text))))):
        if a >= after:
            chosen, after = [*chosen, text[a:b]], b
    if not chosen:
        return
    tokens = cut_at_random("\n".join(chosen).encode(), rng)
    for length, token in enumerate([*tokens, END]):
        assert token in allowed_after(QuoteSource(text, REFUSAL), tokens[:length])


@settings(max_examples=30)
@given(text=plain_texts, refusal=st.sampled_from([None, "a b", "ab"]), seed=seeds)
@example(text="a a b", refusal=None, seed=0)  # no "a" is left behind the "b" of "a\nb\na"
def test_a_token_is_allowed_exactly_if_an_answer_goes_on_with_it(text, refusal, seed):
    source, spelled = (
        QuoteSource(text, refusal),
        [*BYTES, b"a b", b" b", b"b\n", b"b\na", b"ab\n", b",\n", b"a\nb\n", b"\n\n"],
    )
    answers = {answer.encode() for answer in all_answers(source)}
    tokens = write_at_random(source, random.Random(seed), spelled)
    for length in range(len(tokens) + 1):
        written = b"".join(spelled[token] for token in tokens[:length])
        usable = [i for i, t in enumerate(spelled) if t and is_usable(t)]
        expected = [i for i in usable if any(a.startswith(written + spelled[i]) for a in answers)]
        if written in answers or not answers:
            expected.append(END)
        assert allowed_after(source, tokens[:length], spelled) == sorted(expected)


@pytest.mark.parametrize(
    "written, more",
    [
        ("The fe", "e\n"),  # to the end of a quote
        ("in Ma", "y. The te"),
        ("Ca", b"f\xc3"),  # into the middle of a character ...
        (b"Caf\xc3", "é".encode()[1:] + b" Lt"),  # ... and out of it
    ],
)
def test_a_token_may_cross_words_quotes_and_characters(written, more):
    written, more = (part.encode() if isinstance(part, str) else part for part in (written, more))
    tokens = cut_at_random(written, random.Random(0), BYTES)
    assert PIECES.index(more) in allowed_after(QuoteSource(FEE), tokens)


@pytest.mark.parametrize(
    "written, refused",
    [
        ("", "ee"),  # inside a word
        ("", " f"),  # white space first
        ("", "\n"),
        ("", None),  # the end mark first
        ("The f", None),
        ("The ", None),
        ("The f", "\n"),
        ("The fee\n", "\n"),  # an empty line
        ("The fee", "\n\n"),
        ("The fee\n", None),
        ("The term", "\nThe"),  # backwards
        ("The fe", ".\n"),
        ("refunded.", "\n"),  # nothing is left to quote
        ("The fee", b"\xff"),
    ],
)
def test_no_token_leaves_the_grammar(written, refused):
    refused = None if refused is None else refused if isinstance(refused, bytes) else refused.encode()
    tokens = cut_at_random(written.encode(), random.Random(0), BYTES)
    tokens_allowed = allowed_after(QuoteSource(FEE, REFUSAL), tokens, [*PIECES, b"\nThe"])
    assert [*PIECES, b"\nThe"].index(refused) not in tokens_allowed


def test_two_ids_of_one_piece_are_both_allowed():
    tokens = cut_at_random(b"The ", random.Random(0), BYTES)
    twice = [i for i, token in enumerate(PIECES) if token == b"fee"]
    assert len(twice) == 2 and set(twice) <= set(allowed_after(QuoteSource(FEE), tokens))


def test_a_repeated_word_is_quoted_as_often_as_it_stands_there():
    source, fee = QuoteSource("fee, fee"), BYTES.index(b"f")
    assert fee in allowed_after(source, cut_at_random(b"fee\n", random.Random(0), BYTES), BYTES)
    assert allowed_after(source, cut_at_random(b"fee\nfee", random.Random(0), BYTES), BYTES) == [END]


def test_an_accent_stays_with_its_letter():
    source = QuoteSource("cafe\u0301s")
    assert END not in allowed_after(source, cut_at_random(b"cafe", random.Random(0), BYTES), BYTES)
    assert len(allowed_after(source, [], BYTES)) == 1  # "s" behind the accent begins nothing


@given(text=texts, seed=seeds, kept=st.sets(st.integers(1, len(PIECES) - 1), max_size=200))
@example(text="ab é", seed=0, kept={PIECES.index(b"a"), PIECES.index(b"b"), PIECES.index(b" ")})
@example(text=".9", seed=0, kept={PIECES.index(b".\n")})  # nothing could be written after it
def test_a_vocabulary_that_lacks_bytes_never_leads_into_a_dead_end(text, seed, kept):
    source = QuoteSource(text)
    some = [token if i in kept else None for i, token in enumerate(PIECES)]
    tokens = write_at_random(source, random.Random(seed), some)
    assert not tokens or is_answer(spell(tokens), source)


# --- the refusal, and nothing to quote


def test_a_refusal_is_written_only_if_it_is_offered_and_then_ends():
    tokens = cut_at_random(REFUSAL.encode(), random.Random(0), BYTES)
    first = tokens[0]
    assert first not in allowed_after(QuoteSource(FEE), [], BYTES)
    assert allowed_after(QuoteSource(FEE, REFUSAL), tokens, BYTES) == [END]
    for length in range(1, len(tokens)):  # no newline, no end, no way back to the text
        assert allowed_after(QuoteSource(FEE, REFUSAL), tokens[:length], BYTES) == [tokens[length]]


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_without_words_leaves_only_the_refusal_or_the_end(text):
    assert allowed_after(QuoteSource(text), [], BYTES) == [END]
    assert allowed_after(QuoteSource(text, REFUSAL), [], BYTES) == [BYTES.index(b"N")]


# --- rows


def test_a_row_without_a_source_and_a_row_that_has_ended_keep_their_scores():
    logits = logits_for([None, QuoteSource("a b"), QuoteSource("b")], BYTES)
    a, b = BYTES.index(b"a"), BYTES.index(b"b")
    scores = scores_of(3, BYTES)
    for tokens in ([[], [], []], [[7], [a], [b]], [[7, 9], [a, END], [b, END]], [[7, 9, 9], [a, END, 5], [b, END, 5]]):
        masked = logits(ids(tokens), scores)
        assert masked[0].equal(scores[0])
    assert masked.equal(scores)


def test_allowed_scores_are_left_as_they_are():
    scores = scores_of(2)
    masked = logits_for([QuoteSource(FEE), QuoteSource("a", REFUSAL)])(ids([[], []]), scores)
    kept = masked.isfinite()
    assert masked[kept].equal(scores[kept]) and kept.sum(1).tolist()[1] == 2


def test_rows_do_not_depend_on_their_neighbours():
    sources = [QuoteSource(FEE), QuoteSource(FEE, REFUSAL), QuoteSource("two years"), QuoteSource(FEE)]
    rows = [cut_at_random(text, random.Random(0)) for text in (b"The", REFUSAL.encode()[:3], b"two", b"fee")]
    together, length = logits_for(sources), min(map(len, rows))
    for step in range(length + 1):
        masked = together(ids([row[:step] for row in rows]), scores_of(4))
    for i, row in enumerate(rows):
        assert masked[i].isfinite().nonzero()[:, 0].tolist() == allowed_after(sources[i], row[:length])


def test_a_token_that_was_not_allowed_is_an_error_not_a_silent_answer():
    with pytest.raises(RuntimeError, match="Row 0 went on with token 3"):
        allowed_after(QuoteSource("a"), [3], BYTES)


# --- answers that were cut


@given(text=texts, refusal=st.sampled_from([None, REFUSAL]), seed=seeds, cut=st.floats(0, 1))
@example(text=FEE, refusal=REFUSAL, seed=3, cut=0.7)
def test_a_cut_answer_is_cut_back_to_the_longest_answer_in_it(text, refusal, seed, cut):
    source = QuoteSource(text, refusal)
    tokens = write_at_random(source, random.Random(seed))
    written = Vocabulary(PIECES).spell(tokens[: int(cut * len(tokens))])
    complete = [written[:i] for i in range(1, len(written) + 1) if is_answer(written[:i], source)]
    assert cut_to_words(written, source) == (complete[-1] if complete else "")


@pytest.mark.parametrize(
    "written, left",
    [
        ("The term is", "The term is"),
        ("The term i", "The term"),
        ("The fee ", "The fee"),
        ("The fee\n", "The fee"),
        ("The fee\ndu", "The fee"),  # an unfinished line is dropped ...
        ("The fee\nis du", "The fee\nis"),
        ("Ca", ""),  # ... unless it is the only one
        ("No such", ""),
        (REFUSAL, REFUSAL),
        ("Caf\ufffd", ""),
        ("The fee\ufffd", "The fee"),
        ("", ""),
    ],
)
def test_what_is_left_of_a_cut_answer(written, left):
    assert cut_to_words(written, QuoteSource(FEE, REFUSAL)) == left


def test_an_empty_line_ends_what_is_left_of_a_cut_answer():
    assert cut_to_words("a\n\nb", QuoteSource("a,b")) == "a"  # although one quote ends where the next one starts


# --- what tokens spell


def sentencepiece(strip=True):
    """Return a tokenizer as Llama 2 has it: '▁' for a blank, <0xAB> for other bytes, a blank before the first word."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = ["▁", *"Thefisdu", "▁T", "▁f", "he", "ee", "▁The", "▁fee", "▁is"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = [("▁", "T"), ("▁", "f"), ("h", "e"), ("e", "e"), ("▁T", "he"), ("▁f", "ee")]
    made = Tokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    made.add_special_tokens(tokens[:3])
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    last = [decoders.Strip(" ", 1, 0)] if strip else []
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def metaspace(scheme):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁fee", -1.0), ("▁", -2.0), ("s", -2.0)], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


@pytest.fixture(scope="module")
def byte_level(tiny):
    """Return the byte-level tokenizers at hand, each with what its tokens spell: the tiny model's, maybe SmolLM2's."""
    from transformers import AutoTokenizer

    found = [AutoTokenizer.from_pretrained(folder) for folder in (tiny, smollm()) if folder]
    return [(tokenizer, token_bytes(tokenizer)) for tokenizer in found]


def smollm():
    """Return the folder of SmolLM2 if it is on this machine."""
    kept = weights.cache_dir() / "models" / "HuggingFaceTB--SmolLM2-135M-Instruct"
    return kept if kept.is_dir() else weights.cached_model("HuggingFaceTB/SmolLM2-135M-Instruct")


@given(text=st.text(max_size=40))
@example(text=FEE)
@example(text=" The\n\tfee  中文 😀e\u0301")
@example(text="The fee<|im_end|> is due<|endoftext|>")
def test_byte_level_tokens_spell_the_text_that_they_were_cut_from(byte_level, text):
    for tokenizer, spelled in byte_level:
        plain = without_marks(text, tokenizer.all_special_tokens)  # as every prompt is written
        tokens = tokenizer(plain, add_special_tokens=False)["input_ids"]
        lacking = any(bytes([byte]) not in spelled for byte in plain.encode())  # SmolLM2 has no token for some bytes
        assert lacking or b"".join(spelled[token] for token in tokens) == plain.encode()


def test_a_draft_ends_before_a_special_token_that_a_source_writes_out(byte_level):
    for tokenizer, spelled in byte_level:
        choices = Choices(QuoteSource("The fee<|im_end|> is due in May."), Vocabulary.of(tokenizer))
        row = quoting.QuotedRow(choices, choices.grammar.start)
        row.add(next(token for token, text in enumerate(spelled) if text == b"T"), 0.0, [])
        row.look_ahead(tokenizer, 12, [tokenizer.eos_token_id])
        assert b"".join(spelled[token] for token in row.draft) == b"he fee"


def test_tokens_spell_what_the_tokenizer_decodes_and_special_ones_nothing(byte_level):
    rng, made = random.Random(0), sentencepiece()
    for tokenizer, spelled in [*byte_level, (made, token_bytes(made))]:
        assert len(spelled) == len(tokenizer)
        assert all(spelled[i] is None for i in tokenizer.all_special_ids)
        whole = [i for i, token in enumerate(spelled) if token and token.isascii()]
        for _ in range(50):
            tokens = rng.choices(whole, k=6)
            text = b"".join(spelled[token] for token in tokens).decode()
            decoded = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            assert decoded == (text.removeprefix(" ") if tokenizer is made else text)


def test_sentencepiece_tokens_spell_blanks_and_bytes():
    tokenizer = sentencepiece()
    spelled = token_bytes(tokenizer)
    assert spelled[:3] == [None] * 3
    assert spelled[3:259] == [bytes([byte]) for byte in range(256)]
    assert spelled[tokenizer.convert_tokens_to_ids("▁fee")] == b" fee"
    assert Vocabulary.of(tokenizer).spell(tokenizer("The fee é", add_special_tokens=False)["input_ids"]) == "The fee é"
    assert token_bytes(metaspace("always"))[1:] == [b" fee", b" ", b"s"]


@pytest.mark.parametrize(
    "tokenizer, drops",
    [
        (sentencepiece, True),
        (lambda: sentencepiece(strip=False), False),
        (lambda: metaspace("always"), True),
        (lambda: metaspace("first"), True),
        (lambda: metaspace("never"), False),
    ],
)
def test_a_blank_before_the_first_word_is_allowed_exactly_if_the_tokenizer_drops_it(tokenizer, drops):
    vocabulary = Vocabulary.of(tokenizer())
    blank, word = vocabulary.spelled.index(b" "), vocabulary.spelled.index(b" fee")
    logits = VerbatimLogits([QuoteSource("(fee) fee")], vocabulary, {0}, width=0)
    first = logits.allowed(0)
    assert (word in first, blank in first) == (drops, False)
    if drops:
        logits(ids([[word]]), scores_of(spelled=vocabulary.spelled))  # stands for either fee, and is complete
        assert 0 in logits.allowed(0)
        assert vocabulary.spell([word]) == "fee"


def word_piece():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece({"[UNK]": 0, "fee": 1, "##s": 2}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def test_a_tokenizer_that_does_not_tell_its_bytes_is_refused():
    with pytest.raises(InputError, match="need a byte-level or sentencepiece tokenizer.*choose another"):
        token_bytes(word_piece())


# --- the generator


SOURCES = [QuoteSource(FEE), None, QuoteSource(FEE, REFUSAL), QuoteSource("two years"), None, QuoteSource("", REFUSAL)]


@pytest.fixture(scope="module")
def generator(tiny):
    return Generator(tiny, dtype="float32")


def tokens_of(generator, prompts):
    return [generator.tokenizer(prompt)["input_ids"] for prompt in prompts]


def text_of(generator, made):
    return generator.vocabulary.spell(made.tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("prefix", ["", SHARED])
def test_a_batch_obeys_each_of_its_sources(generator, temperature, prefix):
    prompts = tokens_of(generator, [prefix + prompt for prompt in PROMPTS[:6]])
    made = generator.generate(prompts, max_tokens=200, temperature=temperature, sources=SOURCES, logprobs=True)
    for continuation, source in zip(made, SOURCES, strict=True):
        assert len(continuation.logprobs) == len(continuation.tokens) + continuation.ended
        if source:
            assert continuation.ended and is_answer(text_of(generator, continuation), source)
    if not temperature:
        free = generator.generate(prompts, max_tokens=200)
        assert [m.tokens for m, source in zip(made, SOURCES) if not source] == [free[1].tokens, free[4].tokens]
        alone = [
            generator.generate([p], max_tokens=200, sources=[s])[0].tokens for p, s in zip(prompts, SOURCES)
        ]  # also without the cache of the shared prefix
        assert alone == [m.tokens for m in made]


def test_draws_repeat_with_their_seed_and_differ_with_another(generator):
    prompts = tokens_of(generator, PROMPTS[:6])

    def draw(seed):
        return generator.generate(prompts, max_tokens=60, temperature=2.0, seed=seed, sources=SOURCES)

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logprobs_are_those_of_the_path_among_the_allowed_tokens(generator, temperature):
    import torch

    prompts = tokens_of(generator, PROMPTS[:6])
    made = generator.generate(prompts, max_tokens=60, temperature=temperature, sources=SOURCES, logprobs=True)
    ends = _end_marks(generator.use(), generator.tokenizer)
    for prompt, source, continuation in zip(prompts, SOURCES, made, strict=True):
        path = [*continuation.tokens, *([min(ends)] if continuation.ended else [])]
        with torch.inference_mode():
            scores = generator.use()(torch.tensor([prompt + path])).logits[0, len(prompt) - 1 : -1].float()
        limit = VerbatimLogits([source], generator.vocabulary, ends, len(prompt))
        total = 0.0
        for step, token in enumerate(path):
            masked = limit(torch.tensor([prompt + path[:step]]), scores[step : step + 1])[0] / (temperature or 1.0)
            chances = masked.log_softmax(-1)
            kept = chances[sorted(set(limit.allowed(0)))] if source else chances
            assert kept.exp().sum().item() == pytest.approx(1, abs=1e-5)
            total += chances[token].item()
        assert sum(continuation.logprobs) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("draft", [0, 1, 5, 30])
@pytest.mark.parametrize("prefix", ["", SHARED])
def test_drafts_change_no_answer_and_are_those_of_the_processor(generator, monkeypatch, draft, prefix):
    prompts = tokens_of(generator, [prefix + prompt for prompt in PROMPTS[:4]])
    sources = [source for source in SOURCES if source]
    monkeypatch.setattr(quoting, "DRAFT", draft)
    drafted = generator.generate(prompts, max_tokens=200, sources=sources, logprobs=True)
    for prompt, source, made in zip(prompts, sources, drafted, strict=True):
        model, ends = generator.use(), _end_marks(generator.use(), generator.tokenizer)
        limit = VerbatimLogits([source], generator.vocabulary, ends, len(prompt))
        asked = {"do_sample": False, "max_new_tokens": 200, "logits_processor": [limit], "pad_token_id": 0}
        (plain,) = model.generate(ids([prompt]), attention_mask=ids([[1] * len(prompt)]), **asked)
        assert made.tokens == [token for token in plain[len(prompt) :].tolist() if token not in ends]


def test_a_drawn_token_is_as_likely_with_drafts_as_without(generator, monkeypatch):
    """Chi-squared over 600 draws each way of a short answer, at a temperature that makes several answers common."""
    from scipy.stats import chi2_contingency

    source, (prompt,) = QuoteSource("two years now", REFUSAL), tokens_of(generator, PROMPTS[:1])

    def draw(draft):
        monkeypatch.setattr(quoting, "DRAFT", draft)
        made = generator.generate([prompt] * 600, max_tokens=40, temperature=1.0, seed=draft, sources=[source] * 600)
        return Counter(text_of(generator, continuation) for continuation in made)

    plain, drafted = draw(0), draw(8)
    answers = sorted(plain | drafted)
    assert len(answers) > 2
    assert chi2_contingency([[drawn[answer] for answer in answers] for drawn in (plain, drafted)]).pvalue > 0.001


def test_a_model_that_scales_its_scores_is_asked_whole(generator, monkeypatch):
    prompts = tokens_of(generator, PROMPTS[:6])
    plain = generator.generate(prompts, max_tokens=60, sources=SOURCES, logprobs=True)
    assert generator._has_plain_head
    monkeypatch.setattr(generator, "_has_plain_head", False)
    whole = generator.generate(prompts, max_tokens=60, sources=SOURCES, logprobs=True)
    for one, other in zip(plain, whole, strict=True):
        assert one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_logprobs_are_kept_only_if_asked_for_and_change_nothing(generator):
    prompts = tokens_of(generator, PROMPTS[:6])
    without = generator.generate(prompts, max_tokens=20, sources=SOURCES)
    with_them = generator.generate(prompts, max_tokens=20, sources=SOURCES, logprobs=True)
    assert [m.tokens for m in without] == [m.tokens for m in with_them]
    assert not any(m.logprobs for m in without) and all(m.logprobs for m in with_them)


def test_adapters_obey_sources_too(tiny, tmp_path):
    generator = Generator(tiny, dtype="float32")
    generator.add_adapter("one", make_adapter(tiny, tmp_path / "one", 1))
    prompts = tokens_of(generator, PROMPTS[:6])
    answers = {name: generator.generate(prompts, adapter=name, max_tokens=200, sources=SOURCES) for name in ("", "one")}
    assert answers[""] != answers["one"]
    for made, source in zip(answers["one"], SOURCES, strict=True):
        assert source is None or is_answer(text_of(generator, made), source)


def test_a_real_vocabulary_writes_what_it_is_forced_to():
    if not (folder := smollm()):
        pytest.skip("SmolLM2 is not on this machine")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary, source = Vocabulary.of(tokenizer), QuoteSource(FEE, REFUSAL)
    end = tokenizer.eos_token_id
    for answer in ("The fee of Café Ltd", "2.5%\ndue in May\nthe fee isn't refunded.", "“the Fee”\nterm", REFUSAL):
        logits = VerbatimLogits([source], vocabulary, {end}, width=0)
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        for length, token in enumerate([*tokens, end]):
            masked = logits(ids([tokens[:length]]), scores_of(spelled=vocabulary.spelled))
            assert masked[0, token].isfinite()
        assert vocabulary.spell(tokens) == answer


# --- through DSPy


@pytest.fixture(scope="module")
def engine(tiny):
    return LocalEngine(tiny, dtype="float32")


def predict(engine, config, **settings):
    with dspy.context(lm=engine.lm(**{"max_tokens": 200} | settings), adapter=PlainAdapter()):
        return dspy.Predict("passage, question -> answer")(passage=FEE, question="When?", config=config)


def test_a_prediction_quotes_and_carries_its_logprobs(engine):
    for source in (QuoteSource(FEE), QuoteSource(FEE, REFUSAL), QuoteSource("", REFUSAL)):
        made = predict(engine, {"response_format": quote_format(source), "logprobs": True})
        assert is_answer(made.answer, source)
        entries = made.logprobs["content"]
        assert "".join(entry["token"] for entry in entries) == made.answer
        assert entries[-1]["token"] == "" and all(entry["logprob"] <= 0 for entry in entries)
        assert b"".join(bytes(entry["bytes"]) for entry in entries[:-1]) == made.answer.encode()


def test_calls_with_and_without_a_source_share_a_batch_and_keep_their_answers(engine):
    lm, sources = engine.lm(max_tokens=100), [*SOURCES, SOURCES[0]]

    def ask(pair):
        prompt, source = pair
        settings = {"response_format": quote_format(source)} if source else {}
        (output,) = lm(prompt, **settings)
        return output["text"] if isinstance(output, dict) else output

    pairs = list(zip(PROMPTS[:7], sources))
    alone, before = [ask(pair) for pair in pairs], engine.batches
    with engine.expect(len(pairs)), ThreadPoolExecutor(len(pairs)) as pool:
        together = list(pool.map(ask, pairs))
    assert together == alone and engine.batches == before + 1
    assert all(is_answer(answer, source) for answer, source in zip(together, sources) if source)


@pytest.mark.parametrize("max_tokens", range(1, 40, 4))
def test_a_truncated_reply_is_verbatim_and_counted_or_fails_to_parse(engine, max_tokens):
    source, cut = QuoteSource(FEE), engine.truncated
    try:
        made = predict(engine, {"response_format": quote_format(source)}, max_tokens=max_tokens, temperature=1.0)
        assert is_answer(made.answer, source)
    except AdapterParseError as error:
        assert "empty" in str(error)
        assert engine.truncated > cut
    assert engine.truncated - cut <= 1


def test_nothing_to_quote_fails_to_parse_and_does_not_pass_as_an_answer(engine):
    with pytest.raises(AdapterParseError, match="empty"):
        predict(engine, {"response_format": quote_format(QuoteSource(""))})


@pytest.mark.parametrize(
    "config, message",
    [
        ({"response_format": {"type": "json_object"}}, "takes no response_format.*quote_format"),
        ({"response_format": quote_format(QuoteSource("a")) | {"type": "json_object"}}, "json_object|keys|key"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "other", "schema": {}}}}, "takes no"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "quotes", "schema": {}}}}, "takes no"),
        ({"logprobs": True, "top_logprobs": 3}, "takes no logprobs"),
    ],
)
def test_other_formats_and_alternatives_are_refused(engine, config, message):
    with pytest.raises(Exception, match=message):
        predict(engine, config)


@given(text=texts, refusal=st.sampled_from([None, REFUSAL]))
def test_a_source_comes_back_from_its_format(text, refusal):
    source = QuoteSource(text, refusal)
    format_ = quote_format(source)["json_schema"] | {"type": "json_schema"}
    assert verbatim.read_quote_format(format_) == source
