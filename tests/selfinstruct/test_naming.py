"""Names of contracts: their type and parties as annotated, else their title, and one name for one contract."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.data.contracts import Contract
from cuadft.data.schema import packaged_schema
from cuadft.selfinstruct.templates import contract_names, insert_name


def alliance(*parties, title="ACMECORP_05_12_2017-EX-10.1-STRATEGIC ALLIANCE AGREEMENT", kind="Strategic Alliance"):
    spans = [{"text": party, "start": 0} for party in parties]
    return Contract(title, "text", kind, "acme", ({"category": "Parties", "answers": spans},))


def names(*contracts):
    return list(contract_names(contracts, packaged_schema()).values())


def test_a_contract_is_named_by_its_type_and_its_first_two_annotated_parties():
    found = names(alliance("Acme Corp.", "Energous\n  GmbH,", "Third Party, Inc."))
    assert found == ["the Strategic Alliance agreement between Acme Corp and Energous GmbH"]
    assert names(alliance("Acme Corp.", "Bolt & Co. (UK) Ltd.", kind="")) == [
        "the agreement between Acme Corp and Bolt & Co. (UK) Ltd"
    ]


def test_roles_definitions_and_short_forms_are_no_parties():
    parties = (
        "Company",
        '("Acme")',
        "Acme Corp.",
        "ACME CORP",
        "[***] Inc.",
        "the two parties",
        "_____ Ltd.",
        "Energous GmbH",
    )
    assert names(alliance(*parties)) == ["the Strategic Alliance agreement between Acme Corp and Energous GmbH"]
    assert names(alliance("Sable & Finch Outfitters, Inc.", "Sable & Finch", "Dune Ltd."))[0].endswith(
        "Inc and Dune Ltd"
    )


@pytest.mark.parametrize("parties", [(), ("Acme Corp.",), ("Acme Corp.", "Distributor")])
def test_a_contract_without_two_annotated_parties_is_named_by_its_title(parties):
    assert names(alliance(*parties, title="Acme - Supply")) == ["the contract “Acme - Supply”"]
    assert names(Contract("plain", "text")) == ["the contract “plain”"]


def test_a_name_that_would_do_for_two_contracts_is_given_to_neither():
    pair = [alliance("Acme Corp.", "Energous GmbH", title=title) for title in "AB"]
    other = alliance("Acme Corp.", "Energous GmbH", title="C", kind="Supply")
    assert contract_names([*pair, other], packaged_schema()) == {
        "A": "the contract “A”",
        "B": "the contract “B”",
        "C": "the Supply agreement between Acme Corp and Energous GmbH",
    }


@given(st.lists(st.text(max_size=40), max_size=4), st.sampled_from(["Supply", ""]))
def test_any_annotation_gives_a_name_that_fits_in_a_sentence(parties, kind):
    (name,) = names(alliance(*parties, title="T", kind=kind))
    assert name == name.strip() and "\n" not in name and "  " not in name


NAME = "the Supply agreement between Acme Corp and Energous GmbH"


@pytest.mark.parametrize(
    "question, asked",
    [
        ("Does this Agreement contain a cap?", f"Does {NAME} contain a cap?"),
        ("What is the end date of this deal?", f"What is the end date of {NAME}?"),
        ("When does the contract's term end?", f"Regarding {NAME}: When does the contract's term end?"),
        ("IP owned by both?", f"Regarding {NAME}: IP owned by both?"),
        ("governing law", f"governing law, {NAME}"),
    ],
)
def test_a_question_names_its_contract_once(question, asked):
    assert insert_name(question, NAME, packaged_schema()) == asked and asked.count(NAME) == 1
