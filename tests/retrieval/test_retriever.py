"""Properties of search and of relevance feedback, with a bag of words as encoder."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
from bag_of_words import make_embedder
from hypothesis import given, settings
from hypothesis import strategies as st
from small import passages_of

from cuadft.core.errors import InputError
from cuadft.data.passages import Passage
from cuadft.retrieval import relevance
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.retriever import SEARCH_MODES, Retriever, standardised

QUESTION = "Cap On Liability: Is there a limit on damages?"
LAW = "Governing Law: Which state's law governs the contract?"
WORDS = ["fee", "liable", "aggregate", "exceed", "law", "state", "term", "notice", "audit", "royalty"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("embedder")


CONTRACTS = {
    "A": [
        "The fee is due monthly. ",
        "In no event shall either party be liable above the aggregate sum. ",
        "The law of Ohio governs. ",
    ],
    "B": ["Aggregate royalty reports follow. ", "No party shall be liable in aggregate for more than fees. "],
}


def row(contract, question, answers, category="Cap On Liability"):
    return {
        "id": f"{contract}__{category}",
        "contract": contract,
        "contract_type": "",
        "category": category,
        "question": question,
        "answers": answers,
        "is_impossible": not answers,
        "source": "cuad",
    }


def train_rows():
    cap = "in no event shall either party be liable; aggregate liability shall not exceed the fees"
    law = "this agreement is governed by the law of the State of Ohio"
    return [row(f"T{n}", QUESTION, [{"text": cap, "start": 0}]) for n in range(3)] + [
        row(f"T{n}", LAW, [{"text": law, "start": 0}], "Governing Law") for n in range(3)
    ]


@pytest.fixture
def retriever(folder):
    embedder = make_embedder(folder)
    return Retriever(passages_of(CONTRACTS), embedder, feedback=RelevanceFeedback.from_rows(train_rows(), embedder))


# Search


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("ABC"),
        st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=6),
        min_size=1,
    ),
    st.lists(st.sampled_from([*WORDS, "unheard"]), min_size=1, max_size=3).map(" ".join),
    st.sampled_from(SEARCH_MODES),
    st.integers(1, 8),
)
def test_search_inside_a_contract_is_exact_and_returns_no_other_contracts_passage(folder, texts, query, mode, k):
    passages = passages_of(texts)
    found = Retriever(passages, make_embedder(folder), mode=mode)
    everything = found.search(query, k=len(passages))
    assert len({hit.passage for hit in everything}) == len(passages)
    for contract, parts in texts.items():
        hits = found.search(query, contract=contract, k=k)
        assert len(hits) == min(k, len(parts)) and {hit.passage.contract for hit in hits} == {contract}
        if mode != "fusion":  # fused scores are relative to what is searched
            assert hits == [hit for hit in everything if hit.passage.contract == contract][:k]


def test_dense_scores_are_cosines(folder):
    embedder = make_embedder(folder)
    found = Retriever(passages_of(CONTRACTS), embedder, mode="dense")
    query = embedder.encode(["aggregate fee"])[0]
    for hit in found.search("aggregate fee", contract="B", k=2):
        assert hit.score == pytest.approx(float(embedder.encode([hit.passage.text])[0] @ query), abs=1e-5)


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_ties_go_to_the_earlier_passage(folder, mode):
    found = Retriever(passages_of({"A": ["fee notice"] * 9}), make_embedder(folder), mode=mode)
    assert [hit.passage.index for hit in found.search("fee", contract="A", k=9)] == list(range(9))


def test_standardised_scores_have_mean_0_and_deviation_1():
    # mean 2, deviation sqrt((1 + 0 + 1) / 3) = 0.8165: (1 - 2) / 0.8165 = -1.2247
    assert standardised(np.array([1.0, 2.0, 3.0])) == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert standardised(np.array([2.0, 2.0])).tolist() == [0, 0]


def test_bm25_works_without_an_embedder_and_on_passages_without_words():
    assert Retriever(passages_of(CONTRACTS), None, mode="bm25").search("Ohio", k=1)[0].passage.index == 2
    assert [h.score for h in Retriever(passages_of({"A": ["--", ""]}), None, mode="bm25").search("law")] == [
        0,
        0,
    ]


def test_bm25_mode_embeds_no_passage(tmp_path):
    embedder = make_embedder(tmp_path)
    Retriever(passages_of(CONTRACTS), embedder, mode="bm25").search("law")
    assert embedder.embedded == 0


def test_bad_input_is_refused(retriever):
    with pytest.raises(InputError, match="Unknown contract 'Z'.*'A'"):
        retriever.search("fee", contract="Z")
    with pytest.raises(InputError, match="Empty query"):
        retriever.search("  ")
    with pytest.raises(InputError, match="Invalid k 0"):
        retriever.search("fee", k=0)
    with pytest.raises(InputError, match="choose fusion, dense, bm25"):
        retriever.configured(mode="faiss")
    with pytest.raises(InputError, match="from 0 to 1"):
        retriever.configured(feedback_weight=1.5)
    with pytest.raises(InputError, match="without feedback"):
        Retriever(retriever.passages, retriever.embedder, feedback_weight=0.5)
    with pytest.raises(InputError, match="without embedder"):
        Retriever(retriever.passages, None)
    with pytest.raises(InputError, match="Invalid dense_weight -1"):
        retriever.configured(dense_weight=-1)
    with pytest.raises(InputError, match="classifier_weight=0.5.* without classifier"):
        retriever.configured(classifier_weight=0.5)
    with pytest.raises(TypeError, match="rerank"):
        retriever.configured(rerank=3)
    with pytest.raises(InputError, match="needs passages"):
        Retriever([], None, mode="bm25")
    assert retriever.search_many([]) == []


@pytest.mark.parametrize("mode", SEARCH_MODES)
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_loaded_retriever_gives_equal_results_and_embeds_no_passage(retriever, folder, tmp_path, mode, weight):
    saved = retriever.configured(mode=mode, feedback_weight=weight)
    queries = [(QUESTION, None), (QUESTION, "A"), ("royalty fee", "B"), ("nothing known", None)]
    before = saved.search_many(queries, k=4)
    saved.save(tmp_path / "retriever")
    loaded = Retriever.load(tmp_path / "retriever", make_embedder(folder))
    assert loaded.search_many(queries, k=4) == before and loaded.embedder.embedded == 0  # the cache holds them
    assert not list((tmp_path / "retriever").glob("*.pkl"))


def test_threads_get_the_results_of_one_thread(folder, retriever):
    queries = [(f"{a} {b}", contract) for a in WORDS for b in WORDS for contract in (None, "A")]
    fused = retriever.configured(feedback_weight=0.5)
    alone = [fused.search(query, contract=contract) for query, contract in queries]
    fresh = Retriever(retriever.passages, make_embedder(folder), feedback=retriever.feedback, feedback_weight=0.5)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda q: fresh.search(q[0], contract=q[1]), queries)) == alone
    assert copy.deepcopy(fused).search("fee") == fused.search("fee")


# Relevance feedback


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_feedback_finds_the_clause_whose_words_the_question_lacks(retriever, mode):
    plain = retriever.configured(mode=mode).search(QUESTION, contract="A", k=1)[0]
    helped = retriever.configured(mode=mode, feedback_weight=0.85).search(QUESTION, contract="A", k=1)[0]
    assert helped.passage.index == 1
    assert mode != "bm25" or plain.passage.index != 1


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_a_question_unlike_the_train_questions_is_left_unchanged(retriever, mode):
    query = "royalty audit notice"
    assert retriever.configured(mode=mode, feedback_weight=0.85).search(query) == retriever.configured(
        mode=mode
    ).search(query)


def test_a_train_contract_does_not_retrieve_with_its_own_gold(folder):
    embedder = make_embedder(folder)
    spans = train_rows() + [row("A", QUESTION, [{"text": "the fee is due monthly", "start": 0}])]
    feedback = RelevanceFeedback.from_rows(spans, embedder)
    query = embedder.encode([QUESTION])[0]
    assert feedback.relevant(query).sum() == 4
    assert {feedback.spans[n]["contract"] for n in np.flatnonzero(feedback.relevant(query, without="A"))} == {
        "T0",
        "T1",
        "T2",
    }


def test_rocchio_moves_towards_relevant_spans_and_away_from_the_others(folder):
    feedback = RelevanceFeedback.from_rows(train_rows(), make_embedder(folder))
    query = np.zeros(64, np.float32)
    query[60] = 1
    moved = feedback.moved(query, feedback._question_of == 0, 0.5)
    mine, other = feedback._span_vectors[0], feedback._span_vectors[3]
    # spans of a question are equal here, so (1 - 0.5) q + 0.5 (mine - 0.5 other), at unit length
    expected = 0.5 * query + 0.5 * (mine - 0.5 * other)
    assert moved == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.array_equal(feedback.moved(query, feedback._question_of == 9, 0.5), query)
    # where all questions are relevant there is nothing to move away from
    everything = feedback.moved(query, feedback._question_of >= 0, 0.5)
    centroid = feedback._span_vectors.mean(axis=0)
    expected = 0.5 * query + 0.5 * centroid / np.linalg.norm(centroid)
    assert everything == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_many_queries_together_find_what_each_finds_alone(folder, mode):
    embedder = make_embedder(folder)
    spans = train_rows() + [row("A", QUESTION, [{"text": "the fee is due monthly", "start": 0}])]
    found = Retriever(
        passages_of(CONTRACTS), embedder, mode=mode, feedback=RelevanceFeedback.from_rows(spans, embedder)
    )
    found = found.configured(feedback_weight=0.6)
    queries = [(question, name) for name in ("A", None, "B", "A") for question in (QUESTION, LAW, "fee", QUESTION)]
    assert found.search_many(queries, k=4) == [found.search(query, contract=name, k=4) for query, name in queries]
    # A's own clause is among those that move the question, and is left out inside A only
    assert found.search(QUESTION, contract="A")[0].passage.index == 1


def test_terms_weigh_share_times_inverse_frequency(folder):
    spans = [{"question": "q1", "contract": str(n), "text": "liable fee"} for n in range(2)]
    spans += [{"question": "q2", "contract": str(n), "text": "law fee"} for n in range(2)]
    feedback = RelevanceFeedback(spans, make_embedder(folder))
    # "fee" is in 4 of 4 spans: log 1 = 0, so "liable" (2 of 4) takes all the weight
    assert feedback.terms(feedback._question_of == 0) == {"liable": 1.0}


def test_feedback_takes_every_contract_before_a_second_span_of_one(folder, monkeypatch):
    monkeypatch.setattr(relevance, "PER_QUESTION", 5)
    many = [{"text": f"liable {n}", "start": n} for n in range(50)]
    rows = [row("long", QUESTION, many)] + [row(f"T{n}", QUESTION, many[:1]) for n in range(4)]
    feedback = RelevanceFeedback.from_rows(rows, make_embedder(folder))
    assert sorted(span["contract"] for span in feedback.spans) == ["T0", "T1", "T2", "T3", "long"]
    with pytest.raises(InputError, match="No gold span"):
        RelevanceFeedback.from_rows([row("A", QUESTION, [])], make_embedder(folder))


def test_the_classifiers_values_are_those_of_the_contracts_passages_and_stay_when_contracts_are_added():
    retriever, contract = small.clause_retriever(range(12), range(20, 22)), "Contract 20"
    asked = [(question, contract) for question in (small.ASKED["Audit"], "May we audit you?", "Who is the seller?")]
    own = [passage for passage in retriever.passages if passage.contract == contract]
    wanted = retriever.classifier.classify(own)[:, retriever.classifier.categories.index("Audit")]
    known, reworded, strange = retriever.clause_values(asked)
    assert np.array_equal(known.values, wanted) and np.array_equal(reworded.values, wanted)
    assert (known.category, known.by_words, reworded.category, reworded.by_words) == ("Audit", True, "Audit", False)
    assert known.best == tuple(sorted(map(float, wanted), reverse=True)[:3]) == reworded.best
    assert strange.category is None and strange.best == () and not len(strange.values)
    for hit in retriever.search(asked[0][0], contract=contract, k=3):
        assert own[hit.passage.index] == hit.passage  # the place of a passage is that of its value
    retriever = retriever.holding([*retriever.passages, *small.clause_corpus([30])[1]])
    assert np.array_equal(retriever.clause_values(asked)[0].values, wanted)
    assert len(retriever.clause_values([(small.ASKED["Law"], "Contract 30")])[0].values) > 3
    with pytest.raises(InputError, match="Unknown contract 'Contract 99'"):
        retriever.clause_values([(small.ASKED["Law"], "Contract 99")])


def test_the_best_values_share_no_character():
    words = "Each party may audit the books and records of the other. "
    overlapping = [Passage("C", n, 10 * n, 10 * n + 40, (words * 4)[10 * n : 10 * n + 40]) for n in range(12)]
    learned = small.clause_retriever(range(12)).classifier
    retriever = Retriever(overlapping, None, mode="bm25", classifier=learned, classifier_weight=0.9)
    (found,) = retriever.clause_values([(small.ASKED["Audit"], "C")], best=9)
    ranked = sorted(range(12), key=lambda n: (-found.values[n], n))
    taken: list[int] = []
    for n in ranked:
        taken += [n] * all(abs(n - other) >= 4 for other in taken)  # passages begin every 10 of their 40 characters
    assert found.best == tuple(float(found.values[n]) for n in taken) and len(taken) < 12


def test_without_a_classifier_every_question_is_of_no_class(retriever):
    (found,) = retriever.clause_values([(QUESTION, "A")])
    assert found.category is None and not found.by_words and found.best == () and not len(found.values)
