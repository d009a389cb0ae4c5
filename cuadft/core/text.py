"""Fold texts so that they can be compared, and break up marks that a prompt or a tokenizer takes as structure.

Everything that compares texts or names folds them here:

    fold(" Governing   LAW ")         # "governing law": equal texts
    fold_words("Co-Branding, 2019")    # ["co", "branding", "2019"]: shared words
    fold_letters("Anti-Assignment")    # "antiassignment": two spellings of one name
    fold_name("Answer A")              # "answer_a": the name of a column
    spaced("租期3年")                   # " 租  期 3 年 ": scripts without blanks, a word a character

Three foldings are fixed by what others published, and stand beside the measures that need them: SQuAD's in
`evaluation.text_scores.normalise_answer`, ROUGE's in `evaluation.text_scores.rouge_tokens`, and CUAD's in
`evaluation.metrics.span_words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# the start of a tag or of a chat model's special token ("<|im_start|>", "</s>"), and Mistral's in square brackets
MARK = re.compile(r"[<＜﹤](?=[^\s\d<=])|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])")
# runs that fence what a judge reads, and DSPy's field headers; a wide or small form of the sign is no better
RUNS = re.compile(r"[<＜﹤]{2,}|[>＞﹥]{2,}|[\[［]{2,}|[\]］]{2,}")
# characters without width and marks of direction: they hide text from a reader, or split a mark to hide it from us
UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets run what begins so
# Inside a character class: accents and vowel signs, which Python's \w leaves out (with the letters of India's scripts)
MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u06df-\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u0dff\u0e31\u0e33-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb3-\u0ebc\u0ec8-\u0ece\u102b-\u103e"
    "\u1056-\u1059\u17b4-\u17d3\u3099\u309a\ufe00-\ufe0f"
)
# ... and letters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Chinese
UNSPACED = (
    "\u0e01-\u0e30\u0e32\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0ec0-\u0ec6\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3\u3005-\u3007\u3021-\u3029"
    "\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9d\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
LETTER = re.compile(f"[{UNSPACED}][{MARKS}]*")  # of such a script, with its marks
WORD = re.compile(rf"[^\W_]+(?:[{MARKS}]+[^\W_]*)*")  # a run of letters and digits of any script
LEAST_UNSPACED = (
    0.2  # share of such letters from which a text is one without blanks; a foreign name in a text stays whole
)


def fold(text: str) -> str:
    """Return a text case-folded and with single blanks: equal for texts that differ in case and white space alone."""
    return " ".join(text.split()).casefold()


def fold_words(text: str) -> list[str]:
    """Return the words of a text in order, case-folded: its runs of letters and digits."""
    return WORD.findall(text.casefold())


def fold_letters(text: str) -> str:
    """Return the letters and digits of a text, case-folded: what two spellings of one name share."""
    return "".join(fold_words(text))


def fold_name(text: str) -> str:
    """Return the words of a name, case-folded and joined by "_": "Answer A" becomes "answer_a"."""
    return "_".join(fold_words(text))


def is_unspaced(text: str) -> bool:
    """Tell whether a text is written without blanks between words, by the share of letters of such scripts."""
    found = 0 if text.isascii() else len(LETTER.findall(text))
    return found > 0 and found >= LEAST_UNSPACED * sum(char.isalnum() for char in text)


def spaced(text: str) -> str:
    """Return a text with blanks around each letter of a script without blanks, so that each is a word of its own."""
    return text if text.isascii() else LETTER.sub(r" \g<0> ", text)


def split_words(text: str) -> list[str]:
    """Return what stands between blanks; where a text is written without blanks, each of its characters."""
    return (spaced(text) if is_unspaced(text) else text).split()


def shorten(text: str, longest: int) -> str:
    """Return a text of at most `longest` characters, with an ellipsis for its middle where it was longer."""
    head = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def clean_text(text: str) -> str:
    """Return a text with single blanks and without control, zero-width and direction characters."""
    return "".join(c for c in re.sub(r"\s+", " ", text) if c.isprintable())


def as_cell(text: str) -> str:
    """Return a text for a cell of a spreadsheet: with an apostrophe before what would be taken for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) and text.strip() else text


def of_cell(text: str) -> str:
    """Return the text that `as_cell` made a cell of, without blanks at its ends."""
    text = text.strip()
    return text[1:].strip() if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text


def break_marks(text: str) -> str:
    """Return a text with a blank inside every mark, so that it neither opens nor ends a tag or a chat turn."""
    return MARK.sub(lambda mark: f"{mark[0]} ", text)


def quote_safely(text: str) -> str:
    """Return a text to stand between fences: without unseen characters, no run of brackets, no mark left whole."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate (some PDFs yield them) can't be sent
    return break_marks(RUNS.sub(lambda run: " ".join(run[0]), UNSEEN.sub("", text)))


def without_marks(text: str, tokens: Iterable[str]) -> str:
    """Return a text in which none of a tokenizer's special tokens stands; each that did has a blank after its start."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def quotable(text: str) -> str:
    """Fold white space and break up marks that a tokenizer or a prompt would take as structure."""
    return break_marks(" ".join(text.split()))


def quotable_places(text: str) -> tuple[str, list[int]]:
    """Return `quotable(text)`, and for each of its characters the place in `text` of the character that it stands for.

    A blank that was put in has the place of the character before it.
    """
    folded, places = [], []
    for word in re.finditer(r"\S+", text):
        if folded:
            folded.append(" ")
            places.append(word.start() - 1)
        folded.append(word[0])
        places += range(word.start(), word.end())
    whole, made, kept, last = "".join(folded), [], [], 0
    for mark in MARK.finditer(whole):
        made += [whole[last : mark.end()], " "]
        kept += [*places[last : mark.end()], places[mark.end() - 1]]
        last = mark.end()
    return "".join([*made, whole[last:]]), [*kept, *places[last:]]


def without_surrogates(text: str) -> str:
    """Return a text without NUL and lone surrogates, which no file can hold, of the same length."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()
