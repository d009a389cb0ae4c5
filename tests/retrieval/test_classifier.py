"""Clause classifiers: cross-fitted scores, labels of passages that hold too little, saving, unfit data."""

import numpy as np
import pytest
import small
from small import passages_of

from cuadft.core.errors import InputError
from cuadft.data.passages import Passage, gold_shares
from cuadft.data.schema import NO_CATEGORY
from cuadft.retrieval.classifier import ClauseClassifier, QuestionMatcher, _labels, sentences_of

AUDIT = [
    "may inspect the books and records",
    "has a right of inspection of the records",
    "may audit the accounts and records",
]
LAW = ["governed by the laws of Ohio", "governed under the laws of Texas", "the laws of Maine govern"]
FILLER = ["The goods are shipped in boxes.", "Invoices are paid in thirty days.", "Notices are sent by post."]


def corpus(n=8, first=0):
    """Return rows and passages of n contracts with an audit clause; every second one names a law, too."""
    rows, texts = [], {}
    for number in range(first, first + n):
        title, clauses = f"c{number}", {"Audit": AUDIT[number % 3], "Law": LAW[number % 3] if number % 2 else ""}
        texts[title] = [FILLER[number % 3], clauses["Audit"], FILLER[(number + 1) % 3], clauses["Law"] or FILLER[0]]
        whole = "".join(texts[title])
        rows += [
            {
                "id": f"{title}__{c}",
                "contract": title,
                "category": c,
                "question": f"{c}?",
                "source": "cuad",
                "answers": [{"text": t, "start": whole.index(t)}] if t else [],
            }
            for c, t in clauses.items()
        ]
    return rows, passages_of(texts)


MATCHER = QuestionMatcher({"Audit?": "Audit", "Law?": "Law"}, None, least=0.5)


def fitted(**settings):
    rows, passages = corpus()
    return ClauseClassifier.fit(rows, passages, MATCHER, folds=2, least=2, **settings)


def test_the_clause_of_an_unseen_contract_comes_first():
    rows, passages = corpus(3, first=20)
    classifier = fitted()
    scores = classifier.classify(passages)
    assert scores.shape == (12, 2) and scores.dtype == np.float32
    for n, column in ((1, 0), (5, 0), (9, 0), (7, 1)):  # second passage: audit; contract 21's fourth: law
        own = np.arange(n - n % 4, n - n % 4 + 4)
        assert own[scores[own, column].argmax()] == n
    assert classifier.match(["law?", "Audit?", "Price?"]) == [1, 0, None]


def test_a_train_contract_is_scored_only_by_models_that_have_not_seen_it():
    rows, passages = corpus()
    # a clause that only c3 words like that: a model that saw c3 knows the words, the others can't
    passages = [
        p if (p.contract, p.index) != ("c3", 1) else Passage("c3", 1, p.start, p.end, "zyx " * 8) for p in passages
    ]
    classifier = ClauseClassifier.fit(rows, passages, MATCHER, folds=2, least=2)
    own = [p for p in passages if p.contract == "c3"]
    renamed = [Passage("new", p.index, p.start, p.end, p.text) for p in own]
    fold = classifier.fold_of["c3"]
    others = ClauseClassifier(
        classifier.categories,
        classifier._vocabulary,
        np.stack([classifier._idf[fold]] * 2),
        np.stack([classifier._weights[fold]] * 2),
        {},
        MATCHER,
    )
    assert np.allclose(classifier.classify(own), others.classify(renamed), atol=1e-5)
    assert not np.allclose(classifier.classify(own), classifier.classify(renamed), atol=1e-3)


def test_whatever_a_train_contract_and_its_relatives_say_leaves_its_own_scores_as_they_are():
    rows, passages = corpus(12)
    groups = {f"c{number}": 0 if number in (3, 5) else number for number in range(12)}
    own = [p for p in passages if p.contract == "c3"]

    def scores(twisted: set[str]) -> np.ndarray:
        """Return the scores of c3, with other words and no clauses in the contracts `twisted` while fitting."""
        asked = [row | {"answers": []} if row["contract"] in twisted else row for row in rows]
        texts = [
            Passage(p.contract, p.index, p.start, p.end, f"{p.text} records qqq ww") if p.contract in twisted else p
            for p in passages
        ]
        return ClauseClassifier.fit(asked, texts, MATCHER, groups=groups, folds=3, least=2).classify(own)

    assert np.allclose(scores(set()), scores({"c3", "c5"}), atol=0.02)
    assert not np.allclose(scores(set()), scores({"c4", "c7"}), atol=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_relatives_share_a_fold_and_folds_are_as_even_as_they_allow(seed):
    rows, passages = corpus(12)
    groups = {f"c{number}": number % 7 for number in range(10)}  # c10 and c11 have no relatives
    fold_of = ClauseClassifier.fit(rows, passages, MATCHER, groups=groups, folds=3, least=2, seed=seed).fold_of
    assert set(fold_of) == {f"c{number}" for number in range(12)}
    assert all(fold_of[f"c{number}"] == fold_of[f"c{number + 7}"] for number in range(3))
    assert sorted(np.bincount(list(fold_of.values()))) == [4, 4, 4]


def test_contracts_that_are_all_relatives_are_folded_one_by_one():
    rows, passages = corpus()
    fit = ClauseClassifier.fit(rows, passages, MATCHER, groups=dict.fromkeys(groups_of(rows), 1), folds=2, least=2)
    assert sorted(np.bincount(list(fit.fold_of.values()))) == [4, 4]
    two = {title: number % 2 for number, title in enumerate(groups_of(rows))}
    assert set(ClauseClassifier.fit(rows, passages, MATCHER, groups=two, folds=4, least=2).fold_of.values()) == {0, 1}


def groups_of(rows):
    return sorted({row["contract"] for row in rows})


def test_a_word_that_a_fold_has_never_seen_counts_nothing_there():
    classifier = fitted()
    seen = [{w for p in corpus()[1] if classifier.fold_of[p.contract] != n for w in _words(p.text)} for n in (0, 1)]
    assert (classifier._idf == 0).any()
    for word, column in classifier._vocabulary.items():
        for n in (0, 1):
            assert (classifier._idf[n, column] > 0) == (word in seen[n])


def _words(text: str) -> set[str]:
    """Return the words and the pairs of neighbouring words of a text, as the classifier counts them."""
    words = [word for word in text.lower().replace(".", "").split() if len(word) > 1]
    return {*words, *map(" ".join, zip(words, words[1:]))}


def test_fitting_twice_gives_the_same_classifier_and_another_seed_another():
    assert fitted().key == fitted().key != fitted(seed=8).key


def test_a_saved_classifier_scores_alike(tmp_path):
    classifier, (_, passages) = fitted(), corpus()
    classifier.save(tmp_path)
    back = ClauseClassifier.load(tmp_path, None)
    assert np.array_equal(back.classify(passages), classifier.classify(passages)) and back.key == classifier.key
    reworded = ClauseClassifier.load(tmp_path, small.Likeness()).match(["May we audit?", "Who sells?"])
    assert back.match(["Audit?"]) == [0] and reworded == [0, None] and back.fold_of == classifier.fold_of


def test_files_of_two_classifiers_are_not_mixed(tmp_path):
    fitted().save(tmp_path)
    settings = (tmp_path / "classifier.json").read_text()
    rows, passages = corpus(12)
    ClauseClassifier.fit([r for r in rows if r["category"] == "Law"], passages, MATCHER, folds=2, least=2).save(
        tmp_path
    )
    (tmp_path / "classifier.json").write_text(settings)
    with pytest.raises(InputError, match="don't belong together: build the retriever again"):
        ClauseClassifier.load(tmp_path, None)
    (tmp_path / "classifier.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="no whole classifier"):
        ClauseClassifier.load(tmp_path, None)
    fitted().save(tmp_path)
    (tmp_path / "classifier.json").write_text('{"least": 0.5}')
    with pytest.raises(InputError, match="no whole classifier"):
        ClauseClassifier.load(tmp_path, None)


def test_generated_questions_label_nothing():
    rows, passages = corpus()
    extra = [row | {"source": "template", "category": NO_CATEGORY} for row in rows]
    assert ClauseClassifier.fit(rows + extra, passages, MATCHER, folds=2, least=2).categories == ["Audit", "Law"]


def test_a_contract_that_was_not_asked_for_a_category_says_nothing_of_it():
    rows, passages = corpus()
    fit = ClauseClassifier.fit(rows, passages, MATCHER, folds=2, least=2)
    texts = {"unlabelled": [AUDIT[0], LAW[0], "zyx zyx zyx"]}
    generated = [rows[0] | {"id": "g", "contract": "unlabelled", "source": "synthetic"}]
    assert (
        ClauseClassifier.fit(rows + generated, passages + passages_of(texts), MATCHER, folds=2, least=2).key == fit.key
    )
    asked = [row for row in rows if (row["contract"], row["category"]) != ("c1", "Law")]  # c1 has the clause, unasked
    labels, categories = _labels(asked, passages, 2)
    of = {p.contract: labels[[n for n, q in enumerate(passages) if q.contract == p.contract]] for p in passages}
    assert categories == ["Audit", "Law"]
    assert of["c1"].tolist() == [[0, -1], [1, -1], [0, -1], [0, -1]]
    assert of["c3"].tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]] and of["c2"][:, 1].tolist() == [0, 0, 0, 0]


def test_a_passage_that_answers_one_of_two_questions_on_a_clause_is_an_example():
    rows, passages = corpus()
    whole = rows[0]["answers"][0]
    bit = whole | {"text": "x" * 200, "start": whole["start"] + len(whole["text"]) - 2}  # two characters of the passage
    for twice in ([rows[0], rows[0] | {"answers": [bit]}], [rows[0] | {"answers": [bit]}, rows[0]]):
        labels, _ = _labels(twice, passages[:4], 1)
        assert labels[:2, 0].tolist() == [0, 1]


def test_contracts_without_words_get_no_classifier():
    rows, passages = corpus()
    blank = [Passage(p.contract, p.index, p.start, p.end, "-" * len(p.text)) for p in passages]
    assert ClauseClassifier.fit(rows, blank, MATCHER, folds=2, least=2) is None


def test_rare_categories_get_no_model_and_too_little_data_is_told():
    rows, passages = corpus()
    assert ClauseClassifier.fit(rows, passages, MATCHER, folds=2, least=5).categories == [
        "Audit"
    ]  # Law: four contracts
    assert ClauseClassifier.fit(rows, passages, MATCHER, least=8) and not ClauseClassifier.fit(
        rows, passages, MATCHER, least=50
    )
    assert not ClauseClassifier.fit([row for row in rows if row["contract"] == "c1"], passages, MATCHER, least=1)
    assert set(ClauseClassifier.fit(rows, passages, MATCHER, folds=20, least=5).fold_of.values()) == set(range(8))


def test_a_share_counts_from_the_side_of_the_span_and_of_the_passage():
    passages = passages_of({"c": ["a" * 10, "b" * 10, "c" * 10, "d" * 10]})
    # span [8, 32): 2 of 24 characters in the first passage, all of the second and third, 2 of 10 in the last
    assert gold_shares(passages, [{"text": "x" * 24, "start": 8}]) == pytest.approx({0: 0.2, 1: 1.0, 2: 1.0, 3: 0.2})
    assert gold_shares(passages, [{"text": "x" * 4, "start": 8}]) == pytest.approx(
        {0: 0.5, 1: 0.5}
    )  # half of the span each


# --- single sentences


def test_the_sentence_with_the_clause_of_an_unseen_contract_comes_first():
    rows, passages = small.clause_corpus(range(40))
    asked = {question: kind for kind, question in small.ASKED.items()}
    classifier = ClauseClassifier.fit(rows, passages, QuestionMatcher(asked, None, least=0.5))
    new, others = small.clause_corpus(range(100, 120))
    sentences = sentences_of(others)
    scores, right, n = classifier.sentences.classify(sentences), 0, 0
    for row in new:
        own = [place for place, sentence in enumerate(sentences) if sentence.contract == row["contract"]]
        shares = gold_shares([sentences[place] for place in own], row["answers"])
        best = max(own, key=lambda place: scores[place, classifier.sentences.categories.index(row["category"])])
        right, n = right + (shares.get(sentences[best].index, 0) > 0.5), n + bool(row["answers"])
    assert n > 20 and right / n > 0.75


def test_the_folds_of_sentences_are_those_of_passages():
    groups = {f"c{number}": number // 2 for number in range(8)}
    classifier = fitted(groups=groups)
    assert classifier.sentences.fold_of == classifier.fold_of and classifier.sentences.sentences is None


def test_sentences_are_saved_with_the_classifier_and_part_of_its_key(tmp_path):
    classifier, (_, passages) = fitted(), corpus()
    assert fitted(sentences=False).key != classifier.key
    for made in (classifier, fitted(sentences=False), classifier):  # into one folder, one after the other
        made.save(tmp_path)
        back = ClauseClassifier.load(tmp_path, None)
        assert back.key == made.key and (back.sentences is None) == (made.sentences is None)
    pieces = sentences_of(passages)
    assert np.array_equal(back.sentences.classify(pieces), classifier.sentences.classify(pieces))


def test_contracts_of_too_few_sentences_have_passages_alone():
    rows, _ = corpus(4)
    for row in rows:
        row["answers"] = [{"text": f"x{row['contract']} clause", "start": 0}]
    # two overlapping passages a contract repeat the words that a single sentence holds once
    texts = {f"c{n}": f"xc{n} clause of words" for n in range(4)}
    twice = [Passage(t, n, 0, len(text), text) for t, text in texts.items() for n in range(2)]
    few = [p for p in twice if p.contract in ("c0", "c1")]
    classifier = ClauseClassifier.fit(
        [r for r in rows if r["contract"] in ("c0", "c1")], few, MATCHER, least=1, folds=2
    )
    assert classifier.sentences is None and len(classifier.categories) == 2
