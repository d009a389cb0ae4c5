"""A schema is data: its files are read exactly, their faults told, and rows decide where no schema knows better."""

import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.data import schema as schemas
from cuadft.data.contracts import read_contracts
from cuadft.data.schema import (
    Schema,
    newest_schema,
    packaged_schema,
    parse_schema,
    read_schema,
    run_schema,
    save_schema,
)

TEXT = "House rules. Music stops at ten. Bicycles stand in the yard."
YAML = """
document_name: set of house rules
clause_name: rule
categories:
  - category: Noise
    question: When must it be quiet?
    description: hours of rest
    phrasings: ["When does {music|noise} stop?"]
  - {category: Pets, question: Are pets allowed?}
"""
names = st.text("abc -é中", min_size=1, max_size=6).filter(str.strip)


def write(tmp_path, *asked, title="Lime Street 4"):
    """Write a document whose questions are (id, question, words)."""
    qas = [
        {
            "id": number,
            "question": question,
            "answers": [{"text": words, "answer_start": TEXT.index(words)}] if words else [],
        }
        for number, question, words in asked
    ]
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"data": [{"title": title, "paragraphs": [{"context": TEXT, "qas": qas}]}]}))
    return path


def test_a_file_gives_categories_words_and_phrasings(tmp_path):
    (tmp_path / "house.yaml").write_text(YAML)
    schema = read_schema(tmp_path / "house.yaml")
    assert (schema.name, schema.document, schema.clause) == ("house", "set of house rules", "rule")
    assert schema.refusal == "There is no such rule." and schema.match("NOISE!") == "Noise"
    noise, pets = schema.categories.values()
    assert noise.phrasings == {"any": {"train": ["When does {music|noise} stop?"]}} and not pets.phrasings
    assert (noise.description, pets.question) == ("hours of rest", "Are pets allowed?")


def test_a_table_and_the_short_form_give_the_same_categories(tmp_path):
    (tmp_path / "a.csv").write_text(
        "Category;Question;Phrasing 1;phrasing 2\nNoise;When quiet?;Hours;Rest?\nPets;Pets?;;\n"
    )
    (tmp_path / "b.yml").write_text("categories: {Noise: 'When quiet?', Pets: 'Pets?'}")
    table, short = (read_schema(tmp_path / name).categories for name in ("a.csv", "b.yml"))
    assert [each.question for each in table.values()] == [each.question for each in short.values()]
    assert list(table) == list(short) == ["Noise", "Pets"]
    assert table["Noise"].phrasings == {"any": {"train": ["Hours", "Rest?"]}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("categories: [", "is not YAML"),
        ("5", "the file: Input should be"),
        ("document_name: lease", "categories: Field required"),
        ("categories: []", "at least 1 item"),
        ("categories: [{category: A}]", "categories.0.question: Field required"),
        ("categories: [{category: A, question: ' '}]", "categories.0.question"),
        ("categories: [{category: A, question: Q, phrase: P}]", "categories.0.phrase: Extra inputs"),
        ("categories: [{category: A-b, question: Q}, {category: a b, question: R}]", "category 'ab' stands 2 times"),
        ("categories: [{category: A__b, question: Q}]", "without '__'"),
        ("categories: [{category: A, question: Q, phrasings: ['{x} {a|b}']}]", "{x} of '{x} {a|b}' is not among"),
        ("categories: [{category: A, question: Q, phrasings: ['{a|b']}]", "brace without its other half"),
    ],
)
def test_each_fault_of_a_file_has_its_message(text, told):
    with pytest.raises(InputError, match="mine.yaml") as caught:
        parse_schema(text, "mine.yaml", "mine")
    assert told in str(caught.value)


def test_a_name_that_is_no_file_is_told_what_is_allowed():
    with pytest.raises(InputError, match="'cuadd'.*'cuad', 'rows'.*YAML or CSV file"):
        read_schema("cuadd")


def test_rows_are_of_their_own_categories_with_a_warning_or_an_error(tmp_path):
    path = write(tmp_path, ("x__Noise", "Quiet?", "Music stops at ten"), ("x__Pest", "Pets?", ""))
    schema = parse_schema(YAML, "house", "house")
    with pytest.warns(UserWarning, match=r"1 not among the 2 categories of .*'Pest' \(nearest: Pets\).*kept"):
        (contract,) = read_contracts(path, schema)
    assert [row["category"] for row in contract.rows] == ["Noise", "Pest"]
    with pytest.warns(UserWarning, match="left out"):
        (fewer,) = read_contracts(path, schema, "leave out")
    assert [row["category"] for row in fewer.rows] == ["Noise"]
    with pytest.raises(InputError, match=r"1 x 'Pest' \(nearest: Pets\): correct this category"):
        read_contracts(path, schema, "refuse")


def test_without_a_schema_the_rows_tell_the_categories_and_their_questions(tmp_path):
    path = write(tmp_path, ("x__Noise", "Quiet?", ""), ("y__ noise", "Quiet?", ""), ("x__Pets", "Pets?", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (contract,) = read_contracts(path, read_schema("rows"))
    made = read_schema("rows").with_rows(contract.rows)
    assert {name: each.question for name, each in made.categories.items()} == {"Noise": "Quiet?", "Pets": "Pets?"}
    assert {row["source"] for row in contract.rows} == {"annotated"}


def test_a_question_in_the_schemas_own_words_needs_no_id_of_a_category(tmp_path):
    path = write(tmp_path, ("17", "are PETS  allowed?", ""))
    (contract,) = read_contracts(path, parse_schema(YAML, "house", "house"))
    assert contract.rows[0]["category"] == "Pets"


def test_numbers_of_spans_are_no_part_of_an_unknown_category(tmp_path):
    asked = [(f"x__Noise_{n}", "Quiet?", words) for n, words in enumerate(("Music stops", "at ten"))]
    (contract,) = read_contracts(write(tmp_path, *asked, ("x__Rule_7", "Rule?", "")), Schema("rows"))
    assert [row["category"] for row in contract.rows] == ["Noise", "Rule_7"]
    assert len(contract.rows[0]["answers"]) == 2


def test_a_schema_without_a_category_of_the_rows_gives_way_to_theirs():
    rows = [{"category": "Pets", "question": "Pets?"}] * 2 + [{"category": "Pets", "question": "Any pets?"}]
    assert list(packaged_schema().with_rows(rows).categories) == ["Pets"]
    both = packaged_schema().with_rows([*rows, {"category": "Insurance", "question": "?"}])
    assert len(both.categories) == 42 and both.categories["Pets"].question == "Pets?"
    assert packaged_schema().with_rows([]) == packaged_schema()


def test_titles_tell_types_and_filers_only_where_the_schema_says_so(tmp_path):
    path = write(tmp_path, ("x__Pets", "Pets?", ""), title="ACME CORP_03_04_2010-EX-10.1-SUPPLY AGREEMENT")
    with pytest.warns(UserWarning, match="'Pets'"):
        (own,), (cuad,) = read_contracts(path, Schema("rows")), read_contracts(path)
    assert (own.contract_type, own.filer) == ("", own.title) and (cuad.contract_type, cuad.filer) == ("Supply", "acme")


def test_what_a_run_kept_is_read_back_and_an_older_run_has_cuads(tmp_path):
    assert run_schema(Iteration(tmp_path, 1)) == newest_schema(tmp_path) == packaged_schema()
    for number in (2, 10):
        save_schema(parse_schema(YAML, "house", f"house {number}"), Iteration(tmp_path, number))
    assert newest_schema(tmp_path).name == "house 10" and run_schema(Iteration(tmp_path, 2)).name == "house 2"
    assert run_schema(Iteration(tmp_path, 10)) == parse_schema(YAML, "house", "house 10")


@given(st.lists(names, min_size=1, max_size=4))
def test_any_spelling_of_a_category_is_matched_to_it(categories):
    entries = [{"category": name, "question": "Q?"} for name in categories]
    try:
        schema = parse_schema(json.dumps({"categories": entries}), "x", "x")
    except InputError as error:
        assert "stands" in str(error)
        return
    for name in schema.categories:
        assert schema.match(name.upper()) == schema.match(f" {name}") == name


def test_packaged_phrasings_expand_and_every_category_has_some():
    for each in packaged_schema().categories.values():
        assert set(each.phrasings) == {"user", "keyword", "lawyer"} and not schemas._template_faults(
            each, packaged_schema().words
        )
