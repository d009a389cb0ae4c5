"""Dates: the same day is found in every usual form, and a text that says more is no bare date."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.evaluation.evidence import dates_in, same_date

FORMS = [
    "{name} {d}, {y}",
    "{short}. {d}, {y}",
    "{d} {name} {y}",
    "the {d}th day of {name}, {y}",
    "{y}-{m:02}-{d:02}",
    "{m}/{d}/{y}",
    "{m:02}.{d:02}.{y}",
    "{y}, {name} {d}",
]


def written(day, form):
    name = day.strftime("%B")
    return form.format(name=name, short=name[:3], d=day.day, m=day.month, y=day.year)


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_every_form_of_a_day_is_the_same_date(day, one, other):
    assert (day.year, day.month, day.day) in dates_in(f"made on {written(day, one)} by the parties")
    assert same_date(written(day, one), written(day, other))


@pytest.mark.parametrize(
    "text", ["", "November 2016", "12.3.4", "Section 11.2(a)", "1,000,000", "may 12 persons", "2016"]
)
def test_no_date_is_found_where_there_is_none(text):
    assert dates_in(text) == set() and not same_date(text, text)


def test_a_date_among_other_words_is_no_bare_date():
    assert not same_date("signed on November 6, 2016", "November 6, 2016")
