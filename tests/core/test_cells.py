"""Lists and mappings in cells: what pandas, numpy, datasets and JSON write is read; other text stays text."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.cells import number_of, spelled_value
from cuadft.core.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["it's", 'say "no"', "a\nb", "[***]", "x', 'y", "['a']", "\\", "a\\'", "", "#", "30 days", ", ", "u'", "]"]
)
SPELLINGS = {
    "JSON": json.dumps,
    "JSON with letters": lambda items: json.dumps(items, ensure_ascii=False, indent=1),
    "Python": repr,
    "a tuple": lambda items: repr((*items, "")),
    "numpy": lambda items: str(np.array(items, dtype=object)),
    "numpy, typed": lambda items: repr(np.array(items, dtype=object)),
    "numpy's own strings": lambda items: repr([np.str_(item) for item in items]),
    "an array in a list": lambda items: repr([np.array(items, dtype=object)]),
    "a mapping": lambda items: repr({"text": np.array(items, dtype=object), "start": np.arange(len(items))}),
}
UNWRAPPED = {"a tuple": lambda found: found[:-1], "an array in a list": lambda found: found[0]} | {
    "a mapping": lambda found: found["text"] if found["start"] == [*range(len(found["text"]))] else None
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(items=st.lists(TEXT, max_size=5))
def test_a_list_is_read_from_every_way_to_spell_it(spelling, items):
    found = spelled_value(SPELLINGS[spelling](items), strict="a.csv, row 1")
    assert UNWRAPPED.get(spelling, list)(found) == items


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[***]",
            "[ * ]",
            "[Company]",
            "[X] yes",
            "(a) the fee",
            "(a)",
            "('a')",
            "{name}",
            "[1] The fee is due.",
            "[•]",
        ),
        *('["Fee"] means the fee.', '["Fee"], as used here, means it', "['Fee' means it]", "array of sensors", "7", ""),
        "['a', open('b')]",
    ],
)
def test_other_texts_stay_texts(text):
    assert spelled_value(text, strict="a.csv, row 1") is text


@pytest.mark.parametrize(
    "text",
    [
        *("['a' 'b' ... 'z']", "['a', ...]", "['a', 'b'", "['a',", "['a very long te", '["a", "b', "array(['a'"),
        *("{'text': ['a'", "[{'text': 'a'}, {'te", "['the licensor's right']"),
    ],
)
def test_a_list_that_cannot_be_read_is_shown_where_it_must_be_one(text):
    with pytest.raises(InputError, match="a.csv, row 1 begins as a list") as caught:
        spelled_value(text, strict="a.csv, row 1")
    assert repr(text) in str(caught.value)
    assert spelled_value(text) is text  # where any text may stand, such as an answer


@pytest.mark.parametrize(
    "cell, number",
    [
        *[(1.5, 1.5), ("1.5", 1.5), (" 1,5 ", 1.5), ("0,125", 0.125), ("1e-3", 0.001), ("2", 2), ("350 ms", 0.35)],
        *[("1.5s", 1.5), ("0:00:01.5", 1.5), ("0 days 00:01:00", 60)],
        *[(blank, math.nan) for blank in ("", None, math.nan, "NaN", "null", "-", "<NA>")],
    ],
)
def test_numbers_are_read_as_people_write_them(cell, number):
    assert number_of(cell, "a.csv, row 1: the seconds") == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("cell", ["fast", "1,500", "1.234,5", "inf", [1], True])
def test_a_number_that_is_none_or_may_be_two_is_shown(cell):
    with pytest.raises(InputError, match="row 1: the seconds is "):
        number_of(cell, "a.csv, row 1: the seconds")
