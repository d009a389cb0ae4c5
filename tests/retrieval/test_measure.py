"""Properties of the retrieval measures."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import passages_of

from cuadft.core.errors import InputError
from cuadft.data.passages import cut_passages
from cuadft.retrieval.measure import evaluate_retriever, search_table
from cuadft.retrieval.retriever import Retriever, render_passages


def records(retriever, rows, ks, **options):
    return evaluate_retriever(retriever, rows, ks, **options).to_dict("records")


WORDS = ["fee", "law", "audit", "notice", "term"]


def bm25(texts):
    return Retriever(passages_of(texts), None, mode="bm25")


def row(contract, question, spans):
    answers = [{"text": "x" * (end - start), "start": start} for start, end in spans]
    return {
        "id": f"{contract}__X",
        "contract": contract,
        "category": "X",
        "question": question,
        "answers": answers,
        "is_impossible": not answers,
        "contract_type": "",
        "source": "cuad",
    }


def test_hit_and_characters_per_row_by_hand():
    found = bm25({"A": ["fee fee. ", "law fee. ", "audit. "]})
    rows = [row("A", "audit", [(13, 24)]), row("A", "law", [])]
    # "audit" ranks passage 2 (18-25) first, then 0 (0-9) and 1 (9-18) by position; gold is 13-24: 11
    # characters, 5 of them in passage 1 and 6 in passage 2 (7 characters)
    made = records(found, rows, (1, 3))
    assert [(r["k"], r["hit"], r["char_recall"], r["char_precision"]) for r in made] == [
        (1, 1.0, 6 / 11, 6 / 7),
        (3, 1.0, 1.0, 11 / 25),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("ABC"),
        st.lists(st.sampled_from(WORDS).map("{} fee. ".format), min_size=1, max_size=5),
        min_size=1,
    ),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=3),
    st.sampled_from(WORDS),
)
def test_measures_are_those_of_legalbench_rag(texts, spans, question):
    found, contract = bm25(texts), min(texts)
    asked = row(contract, question, [(start, start + length) for start, length in spans])
    gold = {(contract, n) for start, length in spans for n in range(start, start + length)}
    for record in records(found, [asked], (1, 2, 3, 5)):
        hits = [hit.passage for hit in found.search(question, contract=contract, k=record["k"])]
        got = {(p.contract, n) for p in hits for n in range(p.start, p.end)}
        assert record["char_recall"] == pytest.approx(len(gold & got) / len(gold))
        assert record["char_precision"] == pytest.approx(len(gold & got) / len(got))
        assert record["hit"] == bool(gold & got)


# The search table


TEXT = "fee fee term. law notice. audit of all fees and of the law. fee. term term. law of a state. notice. "
ASKED = [("audit", TEXT.index("audit"), 31), ("term", TEXT.index("term term"), 9), ("law", 14, 10)]


def table(**options):
    retrievers = {
        (size, overlap): Retriever(cut_passages(TEXT, contract="A", size=size, overlap=overlap), None, mode="bm25")
        for size, overlap in ((20, 0.0), (40, 0.5))
    }
    rows = [row("A", word, [(start, start + length)]) for word, start, length in ASKED] + [row("A", "none", [])]
    settings = {"ks": (1, 2), "token_count": lambda text: len(text.split()), "budget": 12, "modes": ["bm25"]}
    return retrievers, rows, search_table(retrievers, rows, **settings | {"feedback_weights": [0.0]} | options)


def test_the_table_holds_each_setting_once_with_its_measures_and_prompt_tokens():
    retrievers, rows, made = table()
    assert len(made) == 4 and {(r["passage_chars"], r["overlap"], r["k"]) for r in made} == {
        (20, 0.0, 1),
        (20, 0.0, 2),
        (40, 0.5, 1),
        (40, 0.5, 2),
    }
    for record in made:
        found = retrievers[record["passage_chars"], record["overlap"]]
        at = {k: [r for r in records(found, rows, (1, 2)) if r["k"] == k] for k in (1, 2)}
        for name in ("hit", "char_recall", "char_precision"):
            assert record[name] == pytest.approx(sum(r[name] for r in at[record["k"]]) / 3)
        assert record["hit@1"] == pytest.approx(sum(r["hit"] for r in at[1]) / 3) and record["n"] == 3
        prompts = [render_passages(found.search(r["question"], contract="A", k=record["k"])) for r in rows[:3]]
        assert record["prompt_tokens"] == pytest.approx(sum(len(prompt.split()) for prompt in prompts) / 3)
        assert record["within_budget"] == (record["prompt_tokens"] <= 12)
        found.configured(
            **{name: record[name] for name in found.settings if name in record}
        )  # each record can be applied


def test_the_best_setting_is_the_most_gold_text_that_the_budget_buys():
    for budget in (0, 6, 12, 1000):
        _, _, made = table(budget=budget)
        inside = [r for r in made if r["prompt_tokens"] <= budget]
        assert [r["within_budget"] for r in made] == [True] * len(inside) + [False] * (4 - len(inside))
        gained = [r["hit"] + r["char_recall"] for r in made]
        for part in (gained[: len(inside)], gained[len(inside) :]):
            assert part == sorted(part, reverse=True)
    # equal gains: the cheaper prompt comes first
    _, _, made = table(budget=1000, ks=(3, 4), modes=["bm25", "bm25"])
    assert len(made) == 4
    for one, two in zip(made, made[1:]):
        if (one["hit"] + one["char_recall"], one["hit@1"]) == (two["hit"] + two["char_recall"], two["hit@1"]):
            assert one["prompt_tokens"] <= two["prompt_tokens"]


def test_a_weight_is_varied_only_where_it_is_used():
    _, _, made = table(ks=(1,))
    assert [r["dense_weight"] for r in made] == [0.0, 0.0]


def test_bad_input_is_named():
    found = bm25({"A": ["fee fee. "]})
    with pytest.raises(InputError, match="No answerable row"):
        evaluate_retriever(found, [row("A", "law", [])], (1,))
    with pytest.raises(InputError, match="Unknown contract 'Z'"):
        evaluate_retriever(found, [row("Z", "fee", [(0, 3)])], (1,))
    with pytest.raises(InputError, match="No answerable row"):
        search_table({(20, 0.0): found}, [], ks=(1,), token_count=len, budget=9, modes=["bm25"], feedback_weights=[0])
