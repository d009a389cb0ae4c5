"""Properties of excerpts: marks stand where the offsets say, nothing is invented, and no text is taken for markup."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from cuadft.evaluation.excerpts import (
    LONGEST_SPAN,
    ExcerptPage,
    Piece,
    clean_text,
    excerpt,
    html_text,
    piece_html,
    shorten,
)

TEXT = " ".join(f"word{i}" for i in range(300))


def piece_plain(pieces):
    return html_text(piece_html(pieces)).strip()


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


@st.composite
def marked(draw):
    text = draw(st.text(st.sampled_from("ab \n."), min_size=1, max_size=400))
    place = st.integers(0, len(text))
    span = st.tuples(place, place).map(sorted).map(tuple)
    start, end = draw(span)
    return (
        text,
        start,
        end,
        draw(st.lists(span, max_size=3)),
        draw(st.lists(span, max_size=3)),
        draw(st.integers(0, 50)),
    )


@given(marked())
def test_marked_characters_are_those_of_the_offsets(drawn):
    text, start, end, gold, cited, around = drawn
    pieces = excerpt(text, start, end, gold=gold, cited=cited, around=around)
    for name, spans in (("gold", gold), ("cited", cited)):
        wanted = "".join(c for i, c in enumerate(text[start:end], start) if any(a <= i < b for a, b in spans))
        assert "".join(p.text for p in pieces if getattr(p, name)) == wanted


@given(marked())
def test_excerpt_is_the_text_with_parts_left_out(drawn):
    text, start, end, gold, cited, around = drawn
    parts = "".join(p.text for p in excerpt(text, start, end, gold=gold, cited=cited, around=around)).split(" … ")
    assert re.search(".*?".join(map(re.escape, parts)), text[start:end], re.DOTALL)


def test_text_far_from_the_marks_is_left_out():
    place = TEXT.index("word150")
    shown = piece_plain(excerpt(TEXT, 0, len(TEXT), gold=[(place, place + 7)], around=20))
    assert shown == "… word147 word148 word149 ⟦word150⟧ word151 word152 word153 …"


def test_more_is_kept_by_parameter():
    place = TEXT.index("word150")
    lengths = [len(piece_plain(excerpt(TEXT, 0, len(TEXT), gold=[(place, place + 7)], around=n))) for n in (0, 50, 200)]
    assert lengths == sorted(lengths) and lengths[0] < 60 and 400 < lengths[2] < 460


def test_passage_without_a_mark_shows_its_beginning():
    shown = piece_plain(excerpt(TEXT, 0, len(TEXT), around=20))
    assert shown.startswith("word0 word1") and shown.endswith(" …") and len(shown) < 60


def test_short_passage_is_shown_whole():
    assert piece_plain(excerpt("One clause.", 0, 11, gold=[(4, 10)])) == "One ⟦clause⟧."


def test_gold_and_cited_are_told_apart_where_they_overlap():
    pieces = excerpt("abcdef", 0, 6, gold=[(1, 4)], cited=[(2, 6)])
    assert [tuple(p) for p in pieces] == [
        ("a", False, False),
        ("b", True, False),
        ("cd", True, True),
        ("ef", False, True),
    ]
    assert piece_plain(pieces) == "a⟦b«cd»⟧«ef»"
    assert "<mark" in piece_html(pieces) and "<ins" in piece_html(pieces)


def test_very_long_mark_is_cut_in_its_middle():
    pieces = excerpt("x" * 5000, 0, 5000, gold=[(0, 5000)])
    assert len(pieces) == 1 and len(pieces[0].text) == LONGEST_SPAN


@given(st.text(), st.integers(1, 30))
def test_shortened_text_keeps_its_ends(text, longest):
    short = shorten(text, longest)
    assert short == text if len(text) <= longest else len(short) == longest and "…" in short


@given(st.text(), st.booleans(), st.booleans())
def test_html_shows_the_text_itself(text, gold, cited):
    read = Reader(piece_html([Piece(text, gold, cited)]))
    assert read.text == clean_text(text) and read.tags <= {"mark", "ins", "span"}


@given(st.text())
def test_page_takes_no_text_for_markup(text):
    read = Reader(ExcerptPage([(text, [(text, [Piece(text, True, True)])])])._repr_html_())
    assert read.tags <= {"p", "b", "div", "table", "tr", "th", "td", "mark", "ins", "span"}
    assert read.text.count(clean_text(text)) >= 3


def test_dollar_signs_do_not_become_mathematics():
    assert not re.search(r"\$[^<]*\$", piece_html([Piece("from $100 to $200")]))


def test_terminal_is_sent_no_control_characters():
    page = str(ExcerptPage([("\x1b[31mred", [("a\u202eb", [Piece("\x07bell\r\nnext\u200b")])])]))
    assert all(c.isprintable() or c == "\n" for c in page) and "bell next" in page


def test_page_without_cards_says_so():
    assert "No such answers" in str(ExcerptPage([])) and "No such answers" in ExcerptPage([])._repr_html_()


def test_page_is_the_same_in_a_notebook_without_html():
    page = ExcerptPage([("Heading", [("Label", [Piece("text " * 60)])])])
    assert repr(page) == str(page) and max(map(len, str(page).splitlines())) <= 110
