"""Properties of training examples: positives answer, negatives don't, and nothing held out is among them."""

from collections import Counter

import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from small import passages_of

from cuadft.core.errors import InputError
from cuadft.data.passages import Passage, cut_passages
from cuadft.retrieval.retriever import Retriever
from cuadft.retrieval.triples import GoldLabels, make_triples

PASSAGES = {title: cut_passages(text, contract=title, size=100) for title, text in small.TEXTS.items()}


def bm25(passages=PASSAGES) -> Retriever:
    return Retriever([passage for own in passages.values() for passage in own], None, mode="bm25")


def made(rows=small.ROWS, passages=PASSAGES, **options) -> list[dict]:
    return make_triples(rows, passages, **{"negatives_from": [bm25()], "per_category": 12, "seed": 3} | options)


def located(text: str, contract: str) -> list[Passage]:
    return [passage for passage in PASSAGES[contract] if passage.text == text]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999))
def test_positives_touch_a_gold_span_and_negatives_none_of_the_category(seed):
    labels = GoldLabels(small.ROWS)
    for example in made(seed=seed):
        answering = located(example["positive"], example["contract"])
        assert any(example["category"] in labels.touched(p) for p in answering)
        found = located(example["negative"], example["negative_contract"])
        assert found and not any(example["category"] in labels.touched(p) for p in found)
        assert example["category"] in example["answers"] and example["negative_from"] == "bm25"


def test_negatives_come_from_the_contract_and_from_others():
    kinds = Counter(example["contract"] == example["negative_contract"] for example in made(per_category=50))
    assert 0.6 < kinds[True] / kinds.total() < 0.9  # three quarters in the contract


def test_a_row_that_comes_again_has_each_of_its_hardest_negatives_in_turn():
    title = "Acme Distribution Agreement"
    rows = [row for row in small.ROWS if row["id"] == f"{title}__Renewal Term"]
    counts = Counter(example["negative"] for example in made(rows, {title: PASSAGES[title]}, per_category=20))
    turns = [n / len(located(text, title)) for text, n in counts.items()]  # one sentence stands there twice
    assert 3 <= len(turns) <= 6 and max(turns) - min(turns) <= 1


def test_a_clause_that_an_annotator_overlooked_elsewhere_is_no_negative():
    clause = "The liability of either party under this Agreement shall not exceed 10,000 dollars."
    row = next(row for row in small.ROWS if row["answers"] and row["answers"][0]["text"] == clause)
    copy = passages_of({"Copy": [clause, "Of liability a word."]})
    passages = {row["contract"]: PASSAGES[row["contract"]], "Copy": copy}
    unmarked = row | {"id": "copy", "contract": "Copy", "answers": [], "is_impossible": True}
    drawn = made([row, unmarked], passages, negatives_from=[bm25(passages)], per_category=80)
    assert {e["negative"] for e in drawn if e["negative_contract"] == "Copy"} == {copy[1].text}


def test_generated_questions_keep_their_words():
    rows = [row | {"source": "synthetic", "question": f"Generated? {row['id']}"} for row in small.ROWS]
    drawn = made([*rows, *small.ROWS], per_category=40)
    assert {e["query"] for e in drawn if e["query"].startswith("Generated")} == {
        row["question"] for row in rows if row["answers"]
    }


def test_rare_categories_come_more_often_than_their_rows():
    rows = [row for row in small.ROWS if row["category"] != "Audit Rights" or row["contract"].startswith("Acme")]
    rows += [row | {"source": "synthetic"} for row in rows if row["category"] == "Renewal Term"]
    counts = Counter(example["category"] for example in made(rows, per_category=100))
    answered = Counter(row["category"] for row in rows if row["answers"])
    assert answered["Audit Rights"] == 1 and answered["Renewal Term"] == 6
    ratio = counts["Renewal Term"] / counts["Audit Rights"]
    assert 2.7 < ratio < 3.2  # 6 ** 0.6 = 2.93, not 6
    assert 390 < counts.total() < 410


def test_a_long_span_gives_several_positives_and_each_of_several_spans_its_own():
    title = "Acme Distribution Agreement"
    text, parts = small.TEXTS[title], PASSAGES[title]
    start = parts[2].start
    long = {"text": text[start : parts[4].end], "start": start}
    short = {"text": parts[0].text[:30], "start": 0}
    rows = [small.ROWS[1] | {"contract": title, "answers": [long, short]}]
    drawn = {example["positive"] for example in made(rows, {title: parts}, per_category=20)}
    assert drawn == {parts[n].text for n in (0, 2, 3, 4)}


def test_a_passage_that_holds_little_of_a_span_is_no_positive():
    title = "Acme Distribution Agreement"
    text, parts = small.TEXTS[title], PASSAGES[title]
    start = parts[1].end - 10
    rows = [small.ROWS[1] | {"contract": title, "answers": [{"text": text[start : start + 60], "start": start}]}]
    drawn = made(rows, {title: parts}, per_category=20)
    assert {example["positive"] for example in drawn} == {parts[2].text}
    assert parts[1].text not in {example["negative"] for example in drawn}  # it touches the span


def test_no_other_contract_without_labels_gives_a_negative():
    known = [title for title in small.TEXTS if not title.startswith("Dynamo")]
    rows = [row for row in small.ROWS if row["contract"] in known]
    drawn = made(rows, {title: PASSAGES[title] for title in known}, per_category=80)  # the retriever holds Dynamo's
    used = {example["negative_contract"] for example in drawn}
    assert used == set(known)


def test_rows_of_held_out_contracts_are_refused():
    with pytest.raises(InputError, match="1 held-out contracts, such as 'Binder"):
        made(held_out=["Binder Distribution Agreement", "Unknown"])


def test_the_draw_depends_on_the_seed_alone():
    assert made(seed=1) == made(seed=1) != made(seed=2)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([r for r in small.ROWS if r["is_impossible"]], {}, "give train rows with answers"),
        (small.ROWS, {"passages": {}}, "No passage holds a gold span"),
        ([small.ROWS[1] | {"answers": [{"text": "x", "start": 10**6}]}], {}, "No passage holds a gold span"),
    ],
)
def test_what_gives_no_example_is_refused(rows, options, message):
    with pytest.raises(InputError, match=message):
        made(rows, **options)


def test_contracts_of_one_passage_are_refused():
    whole = {title: [Passage(title, 0, 0, len(text), text)] for title, text in small.TEXTS.items()}
    rows = [row for row in small.ROWS if row["answers"]]
    with pytest.raises(InputError, match="more than one passage"):
        made(rows, whole, negatives_from=[bm25(whole)])
