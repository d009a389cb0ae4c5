"""Foldings of texts: idempotent, and blind to what they leave out, in any script."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.core.text import (
    MARKS,
    clean_text,
    fold,
    fold_letters,
    fold_name,
    fold_words,
    is_unspaced,
    quotable,
    quotable_places,
    shorten,
    spaced,
    split_words,
)

MARKED = re.compile(rf"(?:[^\W_]|[{MARKS}])+")  # letters and digits with their accents and vowel signs
FOLDINGS = [fold, fold_letters, fold_name, lambda text: " ".join(fold_words(text))]
WORDS = st.lists(st.text(min_size=1, max_size=6).filter(lambda text: text.split() == [text]), max_size=5)
BLANKS = st.text(" \t\n\r\u00a0\u2003", min_size=1, max_size=3)
SIGNS = st.text(".,;:-–—_/()[]\"“”'’§*|\n\t ", min_size=1, max_size=3)
# Turkish dotless i is a letter of its own in lower case, and no other letter's capital: "ı".upper() is "I".
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="ı"), max_size=30)


@pytest.mark.parametrize("folding", FOLDINGS)
@given(text=st.text())
@example(text="İstanbul ﬁling STRASSE ß µ")
def test_a_folded_text_stays_as_it_is(folding, text):
    assert folding(folding(text)) == folding(text)


@pytest.mark.parametrize("folding", FOLDINGS)
@given(text=TEXT)
@example(text="ΟΔΟΣ straße ﬂow")
def test_case_makes_no_difference(folding, text):
    assert folding(text) == folding(text.upper()) == folding(text.casefold())


@pytest.mark.parametrize("folding", FOLDINGS)
@given(words=WORDS, data=st.data())
def test_kind_and_length_of_blanks_make_no_difference(folding, words, data):
    text = "".join(part for word in words for part in (word, data.draw(BLANKS)))
    assert folding(data.draw(BLANKS) + text) == folding(" ".join(words))


@given(words=st.lists(st.text(st.characters(categories=["L", "Nd"]), min_size=1), max_size=5), data=st.data())
def test_words_are_the_runs_of_letters_and_digits_between_signs(words, data):
    folded = [part for word in words for part in fold_words(word)]
    text = "".join(part for word in words for part in (word, data.draw(SIGNS)))
    assert fold_words(data.draw(SIGNS) + text) == folded
    assert fold_letters(text) == "".join(folded) and fold_name(text) == "_".join(folded)


@given(text=st.text())
def test_words_hold_all_letters_and_digits_and_nothing_else(text):
    assert fold_letters(text) == "".join(c for c in text.casefold() if c.isalnum())
    assert all(word[0].isalnum() and MARKED.fullmatch(word) for word in fold_words(text))


ODD = st.lists(
    st.sampled_from(["<b>", "<<b", "<", "[INST]", "[/INST] ", "x", "\n \u2028", " \x1c", "\u0301", "\ud800"])
)


@given(text=st.builds(lambda parts, rest: "".join(parts) + rest, ODD, st.text(max_size=8)))
@example(text=" <b>x  <\n/b>[INST]\u00a0 5 < 6 ")
def test_each_character_of_a_quotable_text_points_to_the_one_that_it_stands_for(text):
    made, places = quotable_places(text)
    assert made == quotable(text) and len(places) == len(made)
    assert places == sorted(places) and all(made[n] == text[place] for n, place in enumerate(places) if made[n] != " ")
    for n in (n for n, char in enumerate(made) if char == " "):  # a blank of the text, or one put in behind a mark
        assert text[places[n]].isspace() or places[n] == places[n - 1] != places[n + 1]
    assert {place for place, char in enumerate(text) if not char.isspace()} <= set(places)


def test_examples():
    assert fold(" Governing\n\u00a0LAW ") == "governing law"
    assert fold("Anti-Assignment") != fold("Antiassignment")
    assert fold_words("Co-Branding_Deal, 2019 (Zürich)") == ["co", "branding", "deal", "2019", "zürich"]
    assert fold_letters("Non-Compete / No_Solicit") == "noncompetenosolicit"
    assert fold_name(" Answer – A ") == "answer_a"
    assert fold_words("[***] _____") == [] and fold_letters("…") == fold_name("…") == ""
    assert fold_words("a\ud800b") == ["a", "b"], "some PDFs yield half of a character"


@given(st.text(), st.integers(1, 30))
def test_shortened_text_keeps_its_ends(text, longest):
    short = shorten(text, longest)
    assert short == text if len(text) <= longest else len(short) == longest and "…" in short


def test_cleaned_text_holds_no_control_characters():
    assert clean_text("\x1b[31mred\u202e\r\n next\u200b") == "[31mred next"


def test_a_script_without_blanks_has_a_word_a_letter_and_signs_stay_with_their_letters():
    assert spaced("租期3年。").split() == ["租", "期", "3", "年", "。"] and spaced("Zürich, GmbH") == "Zürich, GmbH"
    assert spaced("คำ").split() == ["คำ"] and spaced("が").split() == ["が"]
    assert fold_words("नियम और शर्तें, Mu\u0308ller") == ["नियम", "और", "शर्तें", "mu\u0308ller"]


def test_a_foreign_name_makes_no_text_one_without_blanks():
    assert is_unspaced("ABC公司的注册地址") and is_unspaced("สัญญาเช่า") and not is_unspaced("계약 기간은 삼 년")
    assert (
        not is_unspaced("JingWei HengTong Technology (经纬恒通科技)") and not is_unspaced("") and not is_unspaced("Ä")
    )
    assert len(split_words("租期三年")) == 4 and split_words("made by Leju (乐居)")[2:] == ["Leju", "(乐居)"]


@given(st.text())
@example("甲方 ABC，30日")
def test_spaced_words_lose_and_change_no_character(text):
    assert "".join(spaced(text).split()) == "".join(text.split())
