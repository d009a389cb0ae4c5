"""Names of contracts: read from what the contract says, silent where it doesn't, and one name for one contract."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.data.contracts import Contract
from cuadft.selfinstruct.naming import (
    contract_names,
    insert_name,
    possible_names,
    read_parties,
    rows_with_names,
    spoken_name,
)
from tests.small import ROWS

TITLE = "ACMECORP_05_12_2017-EX-10.1-STRATEGIC ALLIANCE AGREEMENT"
TEXT = (
    "STRATEGIC ALLIANCE AGREEMENT\n\nThis Agreement is made as of March 3, 2016 by and between Acme Corp., a Delaware\n"
    'corporation ("Acme"), and Energous GmbH, a German company ("Energous"). WHEREAS, Acme makes anvils, and Ohio, Inc.'
)


def alliance(text=TEXT, title=TITLE, kind="Strategic Alliance", filer="acme"):
    return possible_names(title, text, kind, filer)


def test_a_contract_is_named_from_its_filers_side():
    assert alliance() == [
        "the 2016 alliance with Energous",
        "the 2016 alliance with Acme",
        "Acme's 2016 strategic alliance agreement with Energous",
        "Acme's strategic alliance agreement of March 2016",
    ]


def test_the_other_party_is_the_one_that_did_not_file_whatever_their_order():
    turned = TEXT.replace("Acme Corp.", "X").replace("Energous GmbH", "Acme Corp.").replace("X,", "Energous GmbH,")
    assert alliance(turned)[0] == "the 2016 alliance with Energous"


def test_where_the_filer_is_neither_party_both_are_named():
    assert alliance(filer="binder")[0] == "the 2016 strategic alliance agreement between Acme and Energous"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Between you and me.",
        TEXT.replace("between", "for"),
        "This Agreement is made between the Company and the Contractor on March 3, 2016.",
        'made by and between [***], a Delaware corporation ("Acme"), and _______________ ("Energous").',
    ],
)
def test_a_contract_whose_parties_cannot_be_read_has_no_name(text):
    assert alliance(text) == []


def test_a_contract_of_no_known_kind_has_no_name():
    assert alliance(title="ACME - 2016", kind="") == []


def test_two_years_beside_the_parties_leave_the_year_out():
    found = alliance(TEXT.replace("by and between", "and amended as of June 1, 2014 by and between"))
    assert found[0] == "the alliance with Energous" and not re.search(r"\d", " ".join(found))


def test_a_contract_is_not_dated_after_it_was_filed():
    assert alliance(title=TITLE.replace("2017", "2015"))[0] == "the alliance with Energous"


def test_an_amendment_is_called_one_and_not_dated_like_what_it_amends():
    assert alliance(title=TITLE + " - First Amendment")[0] == "the amendment to the alliance with Energous"


def test_a_name_that_would_do_for_two_contracts_is_given_to_neither():
    other = TEXT.replace("March 3", "May 4")
    undated = TEXT.replace("as of March 3, 2016", "today")
    both = contract_names(
        [Contract("A", TEXT, "Strategic Alliance", "acme"), Contract("B", other, "Strategic Alliance", "acme")]
    )
    assert both == {
        "A": ["Acme's strategic alliance agreement of March 2016"],
        "B": ["Acme's strategic alliance agreement of May 2016"],
    }
    assert set(contract_names([Contract("A", TEXT, "Supply", "acme"), Contract("C", undated, "Supply", "acme")])) == {
        "A"
    }


@pytest.mark.parametrize(
    "opening, found",
    [
        (
            "between WPT Enterprises, Inc., with offices at 1 Main St, Irvine, CA, and ZYNGA INC.",
            ["WPT Enterprises", "Zynga"],
        ),
        (
            "by and between TENNESSEE GAS PIPELINE COMPANY, a Delaware corporation, "
            "and LOUISVILLE GAS AND ELECTRIC COMPANY, a",
            ["Tennessee Gas Pipeline", "Louisville Gas and Electric"],
        ),
        (
            'between Dialog Semiconductor (UK) Ltd., a corporation ("DIALOG") '
            'and LEO PHARMA A/S of Park 55 (the "Seller")',
            ["Dialog Semiconductor", "LEO Pharma"],
        ),
        ("between Adams Golf, Ltd. and TOM WATSON, (hereinafter", ["Adams Golf", "Tom Watson"]),
        (
            'among Morgan Stanley & Co. Incorporated ("MS"), iBio, Inc., and Ono Pharmaceutical Co., Ltd., a company',
            ["Morgan Stanley", "iBio", "Ono Pharmaceutical"],
        ),
        (
            "between the Company and the Agent. "
            'Later, by and between (1) drkoop.com, inc. ("dk"); and (2) Bachem AG, a',
            ["drkoop.com", "Bachem"],
        ),
    ],
)
def test_parties_are_read_with_forms_addresses_and_definitions_left_out(opening, found):
    assert [party.name for party in read_parties(opening + ' ("Other")')[0]] == found


@given(st.text(max_size=300), st.text(max_size=60), st.sampled_from(["Supply", "", "Odd"]), st.text(max_size=12))
def test_any_text_gets_names_that_fit_in_a_sentence_or_none(text, title, kind, filer):
    for name in possible_names(title, "by and between " + text, kind, filer):
        assert name == name.strip() and "\n" not in name and "  " not in name


@given(st.text(max_size=80))
def test_reading_parties_from_any_text_ends_and_stays_inside_it(text):
    found, place = read_parties(text)
    assert len(found) != 1 and len(found) <= 3 and -1 <= place <= len(text)
    assert all(" ".join(text.split()).find(party.full) >= 0 for party in found)


@pytest.mark.parametrize(
    "full, said",
    [
        ("ADAMS GOLF, LTD.", "Adams Golf"),
        ("IBM Corp.", "IBM"),
        ("The Boxlot Company", "Boxlot"),
        ("MARVELL OF OHIO LLC", "Marvell of Ohio"),
        ("E.PIPHANY, INC.", "E.PIPHANY"),
        ("WOMEN.COM, L.L.C.", "Women.com"),
        ("A-B/BRIDGE TRANSFER CO.", "A-B/Bridge Transfer"),
    ],
)
def test_a_party_is_spoken_of_without_its_legal_form(full, said):
    assert spoken_name(full) == said


NAME = "the 2016 alliance with Energous"


@pytest.mark.parametrize(
    "question, asked",
    [
        ("Does this Agreement contain a cap?", f"Does {NAME} contain a cap?"),
        ("What is the end date of this deal?", f"What is the end date of {NAME}?"),
        ("Can either side get the source code?", f"In {NAME}, can either side get the source code?"),
        ("IP owned by both?", f"In {NAME}, IP owned by both?"),
        ("governing law", f"governing law, {NAME}"),
        (
            "Expiration Date: On what date will the contract's initial term expire?",
            f"Expiration Date: In {NAME}, on what date will the contract's initial term expire?",
        ),
        (
            "Audit Rights: What are they? This includes: notice.",
            f"Audit Rights: In {NAME}, what are they? This includes: notice.",
        ),
    ],
)
def test_a_question_names_its_contract_once(question, asked):
    assert insert_name(question, NAME) == asked and asked.count(NAME) == 1


def test_rows_that_name_their_contract_keep_their_answers_and_tell_nothing_of_them():
    title = ROWS[0]["contract"]
    told = ROWS[0] | {"category": "Agreement Date"}
    made = rows_with_names([*ROWS, told], {title: ["the deal with Acme", "Acme's deal"]})
    own = [row for row in ROWS if row["contract"] == title]
    assert [row["id"] for row in made] == [f"{row['id']}~c{n}" for row in own for n in (1, 2)]
    assert all(row["source"] == "template" and re.search("Acme", row["question"]) for row in made)
    assert [row["answers"] for row in made[::2]] == [row["answers"] for row in own]
