"""Properties of excerpts: marks stand where the offsets say, nothing is invented, and no text is taken for markup."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.text import clean_text
from cuadft.evaluation import excerpts
from cuadft.evaluation.excerpts import LONGEST_PIECE, Piece, excerpt, marked_html

TEXT = " ".join(f"word{i}" for i in range(300))


class Reader(HTMLParser):
    """Read a page as a browser would: its text, and the names of its elements."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags = "", set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def shown(text, start=0, end=None, **spans):
    pieces = excerpt(text, start, len(text) if end is None else end, **{"gold": []} | spans)
    return re.sub("</?mark[^>]*>", "|", marked_html([pieces]))


@st.composite
def drawn_spans(draw):
    text = draw(st.text(st.sampled_from("ab \n."), min_size=1, max_size=LONGEST_PIECE))
    span = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted).map(tuple)
    return (text, *draw(span), draw(st.lists(span, max_size=3)), draw(st.lists(span, max_size=3)))


@pytest.mark.parametrize("around", [0, 20])
@given(drawn=drawn_spans())
def test_marked_characters_are_those_of_the_offsets_and_the_rest_is_the_text_with_gaps(drawn, around):
    text, start, end, gold, cited = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(excerpts, "AROUND", around)
        pieces = excerpt(text, start, end, gold=gold, cited=cited)
    for name, spans in (("gold", gold), ("cited", cited)):
        wanted = "".join(c for i, c in enumerate(text[start:end], start) if any(a <= i < b for a, b in spans))
        assert "".join(piece.text for piece in pieces if getattr(piece, name)) == wanted
    parts = "".join(piece.text for piece in pieces).split(" … ")
    assert re.search(".*?".join(map(re.escape, parts)), text[start:end], re.DOTALL)


def test_text_far_from_the_marks_is_left_out(monkeypatch):
    monkeypatch.setattr(excerpts, "AROUND", 20)
    at = TEXT.index("word150")
    assert shown(TEXT, gold=[(at, at + 7)]) == " … word147 word148 word149 |word150| word151 word152 word153 … "
    assert shown("One clause.", gold=[(4, 10)]) == "One |clause|."


def test_passage_without_a_mark_shows_its_beginning(monkeypatch):
    monkeypatch.setattr(excerpts, "AROUND", 10)
    assert shown(TEXT) == "word0 word1 word2 word3 … " and shown("One clause.") == "One clause."


def test_gold_and_cited_are_told_apart_where_they_overlap():
    pieces = excerpt("abcdef", 0, 6, gold=[(1, 4)], cited=[(2, 6)])
    assert [piece.text for piece in pieces] == ["a", "b", "cd", "ef"]
    assert [piece[1:] for piece in pieces] == [(False, False), (True, False), (True, True), (False, True)]
    assert re.sub(' style="[^"]*"', "", marked_html([pieces])) == "a<mark>b</mark><mark><u>cd</u></mark><u>ef</u>"


def test_very_long_mark_is_cut_in_its_middle():
    (piece,) = excerpt("x" * 5000, 0, 5000, gold=[(0, 5000)])
    assert len(piece.text) == LONGEST_PIECE and "…" in piece.text


@given(st.text() | st.sampled_from(["<script>x</script>", "</mark>", "&lt;", "'\"><img src=x>"]), *[st.booleans()] * 2)
def test_html_shows_the_text_itself(text, gold, cited):
    read = Reader(marked_html([[Piece(text, gold, cited)], [Piece(text)]]))
    assert read.text == clean_text(text) * 2 and read.tags <= {"mark", "u", "br"}
