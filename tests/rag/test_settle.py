"""What follows from kept evidence: the answer and its probabilities, without any language model."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.rag.quotes import Quote
from cuadft.rag.settle import QUOTED_FROM, SystemConfidence, quotes_right, settle, settle_left_out

Dev = tuple[list[dict[str, Any]], list[list[bool]]]


def prediction(
    quotes: list[Quote], p_search: float | None = 0.5, calibrated: bool = True, **more: Any
) -> dict[str, Any]:
    """Return what is kept of a question whose passages were read."""
    raw = {"id": "q", "contract": "C", "answers": [], "error": None, "p_search": p_search, "calibrated": calibrated}
    return raw | {"quotes": [quote.record() for quote in quotes]} | more


def dev_set(seed: int, *, telling: bool, contracts: int = 20, each: int = 20) -> Dev:
    """Return predictions, and which of their quotes are right; the model's certainty tells something or nothing.

    Half of the truth of a clause is then in what stage A says, half in the certainty of the surest quote.
    """
    draw, made, right = np.random.default_rng(seed), [], []
    for number in range(contracts * each):
        searched, read = draw.normal(0, 1.5, 2)
        exists = draw.random() < 1 / (1 + math.exp(-searched - 1.5 * read * telling))
        quotes, good = [], []
        for n in range(1 + number % 2):
            good.append(bool(exists and n == 0 and draw.random() < 0.8))
            own = read if n == 0 else -3.0
            sums = {"sum": -6 + own, "mean": -1 + own / 6, "first": -1 + own / 3, "end": -float(draw.exponential())}
            evidence = sums | {"passage_p": 0.6 / (n + 1), "line": 0.0, "rank": float(n)}
            quotes.append(Quote(f"fee of {number} dollars {n}", (50 * n, 50 * n + 9), evidence=evidence))
        answers = [{"text": "fee", "start": 0}] if exists else []
        p = 1 / (1 + math.exp(-searched))
        title = f"C{number % contracts}"
        made.append(prediction(quotes, p, id=f"{number}", contract=title, answers=answers))
        right.append(good)
    return made, right


@pytest.fixture(scope="module")
def system() -> SystemConfidence:
    return SystemConfidence.fit(*dev_set(1, telling=True))


def test_a_draw_of_dev_questions_is_calibrated_as_all_of_them() -> None:
    """Every question with a clause is drawn and each fifth without one, as `dev_rows` does: it stands for five."""
    predictions, right = dev_set(5, telling=True, contracts=40, each=50)
    absent = [n for n, p in enumerate(predictions) if not p["answers"]]
    drawn = sorted({*range(len(predictions))} - {*absent} | {*absent[::5]})
    weighted = [predictions[n] | {"weight": 1.0 if predictions[n]["answers"] else 5.0} for n in drawn]
    system = SystemConfidence.fit(weighted, [right[n] for n in drawn])
    settled = [settle(p, 0.5, system) for p in predictions]
    share = np.mean([bool(p["answers"]) for p in predictions])
    assert np.mean([p["p_exists"] for p in settled]) == pytest.approx(share, abs=0.03)
    whole = SystemConfidence.fit(predictions, right)
    expected = [settle(p, 0.5, whole)["p_exists"] for p in predictions]
    assert np.mean(np.abs(np.array([p["p_exists"] for p in settled]) - expected)) < 0.04


def log_loss(settled: list[dict[str, Any]], name: str) -> float:
    return -np.mean([math.log(p[name] if p["answers"] else 1 - p[name]) for p in settled])


# --- the answer

evidence = st.fixed_dictionaries(
    {"line": st.sampled_from([0.0, 1.0]), "rank": st.sampled_from([0.0, 1.0])},
    optional={name: st.sampled_from([-30.0, -8.0, -0.5]) for name in ("first", "mean", "sum", "end")}
    | {"passage_p": st.sampled_from([0.05, 0.29, 0.3, 0.31, 0.9])},
)
quotes = st.builds(
    Quote,
    st.sampled_from(["fee", "law of Ohio", "term"]),
    st.none() | st.sampled_from([(0, 3), (5, 9)]),
    evidence=evidence,
)
probabilities = st.floats(0.01, 0.99)
replies = st.lists(quotes, max_size=4, unique_by=lambda quote: (quote.evidence["rank"], quote.evidence["line"]))
predictions = st.builds(prediction, replies, probabilities, st.booleans()) | st.builds(
    prediction, replies, st.none(), st.just(False)
)


@given(predictions, probabilities, st.booleans())
def test_the_likeliest_quote_is_the_answer_where_the_clause_is_likely_enough_and_else_the_refusal(
    read, threshold, known
):
    made = settle(read, threshold, _system() if known else None)
    shares = [quote["p"] for quote in made["quotes"]]
    assert shares == sorted(shares, reverse=True) and all(0 <= p <= 1 for p in shares)
    if not known:
        assert sorted(shares) == sorted(quote["evidence"].get("passage_p", 1.0) for quote in read["quotes"])
        assert made["p_exists"] == (None if read["p_search"] is None else round(read["p_search"], 5))
    near = made["p_exists"] is not None and abs(made["p_exists"] - threshold) < 1e-5
    answered = bool(shares) and (not read["calibrated"] or made["p_exists"] >= threshold)
    if not near:
        assert (made["answer"] != NO_CLAUSE) == answered
    if made["answer"] == NO_CLAUSE:
        assert made["spans"] == [] and not any(quote["quoted"] for quote in made["quotes"])
    else:
        best, *rest = made["quotes"]
        assert (made["answer"], made["spans"]) == (best["text"], [best["span"]] if best["span"] else [])
        assert best["quoted"] and all(quote["quoted"] == (quote["p"] >= QUOTED_FROM) for quote in rest)
    assert kept(made) == kept(read), "a refusal keeps the quotes that it does not show, with all that speaks for them"


def kept(made: dict[str, Any]) -> list[str]:
    return sorted(json.dumps([q["text"], q["span"], q["evidence"]], sort_keys=True) for q in made["quotes"])


def _system(made: list[SystemConfidence] = []) -> SystemConfidence:  # noqa: B006
    if not made:
        made.append(SystemConfidence.fit(*dev_set(1, telling=True)))
    return made[0]


@given(predictions, probabilities, probabilities, st.booleans(), st.booleans())
def test_other_costs_and_calibrations_give_from_what_is_kept_what_they_give_from_the_start(
    read, one, two, first, second
):
    before, after = (_system() if known else None for known in (first, second))
    assert settle(settle(read, one, before), two, after) == settle(read, two, after)
    assert settle(read, one, before) == settle(json.loads(json.dumps(settle(read, one, before))), one, before)


def test_a_higher_cost_of_false_answers_takes_an_answer_back_and_a_lower_one_gives_it_again():
    read = prediction([Quote("the law of Ohio", (3, 18), evidence={"passage_p": 0.8})], 0.6)
    answers = [settle(read, threshold)["answer"] for threshold in (0.5, 0.7, 0.6)]
    assert answers == ["the law of Ohio", NO_CLAUSE, "the law of Ohio"]


def test_without_probabilities_the_best_passages_first_quote_is_the_answer():
    own = [("b", 1.0, 0.0), ("c", 0.0, 1.0), ("a", 0.0, 0.0)]
    quotes = [Quote(text, None, evidence={"rank": rank, "line": line}) for text, rank, line in own]
    assert [q["text"] for q in settle(prediction(quotes, None, False), 0.5)["quotes"]] == ["a", "c", "b"]


@given(predictions, probabilities)
def test_a_failed_prediction_stays_as_it_is(read, threshold):
    failed = read | {"error": "the line is down", "answer": None, "spans": [], "p_exists": None}
    assert settle(failed, threshold, _system()) == failed


# --- stage B


def test_what_the_model_says_is_used_where_it_helps_on_contracts_left_out(system):
    for part, without in (("exists", "search"), ("quote", "passage")):
        losses = system.about[f"log_loss_{part}"]
        assert "sum" in getattr(system, part).names and losses["reader"] < losses[without] - 0.03
    fresh = [settle(p, 0.5, system) for p in dev_set(2, telling=True)[0]]
    assert log_loss(fresh, "p_exists") < log_loss(fresh, "p_search") - 0.03


@pytest.mark.parametrize("seed", range(3))
def test_what_the_model_says_is_left_aside_where_it_does_not_help(seed):
    own = SystemConfidence.fit(*dev_set(seed, telling=False))
    assert own.exists is None and own.about["log_loss_exists"]["reader"] >= own.about["log_loss_exists"]["search"]
    assert not {"first", "mean", "sum", "end"} & set(own.quote.names) and "passage" in own.quote.names
    assert own.about["log_loss_quote"]["reader"] >= own.about["log_loss_quote"]["passage"]
    assert all(
        p["p_exists"] == round(p["p_search"], 5) for p in (settle(p, 0.5, own) for p in dev_set(9, telling=True)[0])
    )


def test_the_probability_of_a_quote_is_how_often_such_quotes_are_right(system):
    fresh, right = dev_set(3, telling=True)
    shares, good = [], []
    for p, own in zip(fresh, right):
        by_text = {quote["text"]: quote["p"] for quote in settle(p, 0.5, system)["quotes"]}
        shares += [by_text[quote["text"]] for quote in p["quotes"]]
        good += own
    shares, good = np.array(shares), np.array(good)
    assert shares.mean() == pytest.approx(good.mean(), abs=0.05)
    assert np.mean((shares - good) ** 2) < 0.75 * good.mean() * (1 - good.mean())


def test_nothing_is_fitted_on_failed_unread_or_few_questions(system):
    dev, right = dev_set(1, telling=True)
    failed = [p | {"error": "down", "quotes": [], "answers": [{"text": "x", "start": 0}]} for p in dev[:50]]
    unread = [p | {"quotes": []} for p in dev[50:90]]
    more = SystemConfidence.fit([*dev, *failed, *unread], [*right, *([[]] * 90)])
    assert more.exists == system.exists and more.quote == system.quote
    few = SystemConfidence.fit(dev[:25], right[:25])
    assert few.exists is None and few.quote is None and settle(dev[0], 0.5, few) == settle(dev[0], 0.5)
    plain = SystemConfidence.fit([p | {"p_search": None, "calibrated": False} for p in dev], right)
    assert plain.exists is None and plain.quote is not None


def test_the_order_in_which_quotes_were_shown_does_not_change_the_fit(system):
    dev, right = dev_set(1, telling=True)
    turned = SystemConfidence.fit([p | {"quotes": p["quotes"][::-1]} for p in dev], [own[::-1] for own in right])
    assert turned == system


def test_one_dev_contract_alone_cannot_show_that_the_model_helps(tmp_path):
    dev, right = dev_set(1, telling=True, contracts=1, each=200)
    own = SystemConfidence.fit(dev, right)
    own.save(tmp_path / "own.json")
    assert own.exists is None and SystemConfidence.load(tmp_path / "own.json").quote == own.quote
    assert settle_left_out(dev, right, 0.5) == [settle(p, 0.5) for p in dev]


def test_a_dev_answer_is_settled_without_its_own_contract():
    dev, right = dev_set(4, telling=True, contracts=12)
    twisted = [p | {"answers": [] if p["answers"] else [{"text": "x", "start": 0}]} for p in dev]
    changed = [one if one["contract"] != "C3" else other for one, other in zip(dev, twisted)]
    turned = [good if p["contract"] != "C3" else [not each for each in good] for p, good in zip(dev, right)]
    before, after = settle_left_out(dev, right, 0.5), settle_left_out(changed, turned, 0.5)
    differ = {p["contract"] for p, one, two in zip(dev, before, after) if told(one) != told(two)}
    assert "C3" not in differ and len(differ) > 6


def told(made: dict[str, Any]) -> tuple[Any, ...]:
    """Return all that a settled prediction says, without the truth that it is compared with."""
    return made["answer"], made["spans"], made["p_exists"], made["quotes"]


def test_left_out_answers_are_near_those_of_the_whole_calibration_but_not_the_same(system):
    dev, right = dev_set(1, telling=True)
    whole, left = (
        [p["p_exists"] for p in made]
        for made in ([settle(p, 0.5, system) for p in dev], settle_left_out(dev, right, 0.5))
    )
    assert whole != left and np.abs(np.subtract(whole, left)).max() < 0.1


def test_a_saved_system_confidence_gives_equal_answers(system, tmp_path):
    for own in (system, SystemConfidence(None, None, {"questions": 3})):
        own.save(tmp_path / "own.json")
        back = SystemConfidence.load(tmp_path / "own.json")
        assert [settle(p, 0.5, back) for p in dev_set(5, telling=True)[0]] == [
            settle(p, 0.5, own) for p in dev_set(5, telling=True)[0]
        ]
        assert back == own
    assert SystemConfidence.load(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"exists": null, "quote": {}, "about": {}}', '{"exists": null, "quote": null}']
)
def test_a_file_that_is_no_system_confidence_is_named(text, tmp_path):
    files.write_text(tmp_path / "own.json", text)
    with pytest.raises(InputError, match="own.json"):
        SystemConfidence.load(tmp_path / "own.json")


def test_a_quote_is_right_if_it_shares_half_of_all_words_with_a_gold_span():
    golds = [{"text": "the law of Ohio", "start": 0}, {"text": "ten dollars", "start": 40}]
    given = {
        "the law of Ohio": True,
        "law of Ohio applies here too": False,
        "ten": True,
        "dollars": True,
        "Maine": False,
    }
    assert quotes_right(prediction([Quote(text, None) for text in given], answers=golds)) == list(given.values())
    assert quotes_right(prediction([Quote("ten", None)])) == [False] and quotes_right(prediction([])) == []


# --- sentences that the classifiers found


def sentence(text: str, p: float, span: tuple[int, int] = (90, 99)) -> Quote:
    return Quote(text, span, p, quoted=False, evidence={"found": 1.0, "sentence_p": p})


@pytest.mark.parametrize("passage_p, answer", [(0.9, "law of Ohio"), (0.4, "fee")])
def test_the_likelier_of_the_models_quote_and_a_sentence_answers(passage_p, answer):
    made = settle(
        prediction([Quote("law of Ohio", (0, 11), evidence={"passage_p": passage_p}), sentence("fee", 0.6)]), 0.5
    )
    assert made["answer"] == answer and [quote["quoted"] for quote in made["quotes"]] == [True, True]
    assert made["quotes"][0]["p"] == max(passage_p, 0.6)


def test_sentences_are_no_evidence_of_the_reader():
    made, right = dev_set(3, telling=True)
    more = [p | {"quotes": [*p["quotes"], sentence("fee", 0.9).record()]} for p in made]
    assert settle(more[0], 0.5, SystemConfidence.fit(made, right))["p_exists"] == pytest.approx(
        settle(made[0], 0.5, SystemConfidence.fit(made, right))["p_exists"]
    )
    unread = [p | {"quotes": [sentence("fee", 0.9).record()]} for p in made]
    assert SystemConfidence.fit(unread, [[False]] * len(unread)).about["questions"] == 0


@pytest.mark.parametrize(
    "name, of_right, of_wrong, deviations, between, better, worse, least",
    [
        ("sentence_p", 0.7, 0.2, (0.15, 0.15), (0.001, 0.99), 0.9, 0.05, 0.3),
        ("length", 0.0, 0.0, (0.7, 2.0), (0.0, 99.0), 0.1, 3.0, 0.2),  # the further from its usual length, the worse
    ],
)
def test_what_dev_answers_show_of_a_quotes_evidence_counts(
    name, of_right, of_wrong, deviations, between, better, worse, least
):
    made, right = dev_set(4, telling=False)
    draw = np.random.default_rng(5)
    for p, goods in zip(made, right):
        for quote, good in zip(p["quotes"], goods):
            drawn = draw.normal(of_right if good else of_wrong, deviations[not good])
            quote["evidence"][name] = float(np.clip(abs(drawn), *between))
    system = SystemConfidence.fit(made, right)
    likely, unlikely = (
        settle(prediction([Quote("fee", (0, 3), evidence={"passage_p": 0.5, name: value})]), 0.5, system)
        for value in (better, worse)
    )
    assert likely["quotes"][0]["p"] > unlikely["quotes"][0]["p"] + least


def test_of_sampled_quotes_that_share_words_the_likeliest_is_shown_alone():
    quotes = [
        Quote("a b c", (0, 5), evidence={"votes": 0.6, "passage_p": 0.9}),
        Quote("a b", (0, 3), evidence={"votes": 0.4, "passage_p": 0.8}),
        Quote("e f", (9, 12), evidence={"votes": 0.2, "passage_p": 0.7}),
        Quote("a sentence", (0, 8), evidence={"found": 1.0, "sentence_p": 0.5}),
    ]
    settled = settle(prediction(quotes, 0.9), 0.5)
    assert [(q["text"], q["quoted"]) for q in settled["quotes"]] == [
        ("a b c", True),
        ("a b", False),
        ("e f", True),
        ("a sentence", True),
    ]
    plain = [Quote(q.text, q.span, evidence={"passage_p": q.evidence["passage_p"]}) for q in quotes[:2]]
    assert all(q["quoted"] for q in settle(prediction(plain, 0.9), 0.5)["quotes"])  # of one answer, as ever


def test_a_sentence_that_likely_holds_the_clause_is_shown_though_it_is_too_long_to_be_the_answer():
    made, right = dev_set(6, telling=False)
    draw = np.random.default_rng(7)
    for p, goods in zip(made, right):
        for quote, good in zip(p["quotes"], goods):
            quote["evidence"]["length"] = float(abs(draw.normal(0, 0.3 if good else 4.0)))
    system = SystemConfidence.fit(made, right)
    short = Quote("Acme", (0, 4), evidence={"passage_p": 0.5, "length": 0.0})
    held, unlikely = (
        Quote(f"clause {n}", (10 * n, 10 * n + 8), evidence={"found": 1.0, "sentence_p": p, "length": 9.0})
        for n, p in ((1, 0.6), (2, 0.03))
    )
    settled = settle(prediction([held, short, unlikely]), 0.5, system)
    by_text = {quote["text"]: quote for quote in settled["quotes"]}
    assert settled["answer"] == "Acme" and by_text["clause 1"]["p"] < QUOTED_FROM
    assert by_text["clause 1"]["quoted"] and not by_text["clause 2"]["quoted"]
