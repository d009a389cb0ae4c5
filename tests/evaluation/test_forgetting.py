"""Properties of the stream's memory: R, backward and forward transfer are as their sources define, on the same rows."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.evaluation import forgetting, metrics, text_scores
from cuadft.evaluation.figures import stream

# Means of R by iteration and slice: "sft" after training, "incumbent" (iteration 1: "rag") before, "rag": base model.
SFT = {(1, 1): 0.6, (2, 1): 0.7, (2, 2): 0.5, (3, 1): 0.4, (3, 2): 0.6, (3, 3): 0.8}
START = {(2, 1): 0.6, (2, 2): 0.4, (3, 1): 0.7, (3, 2): 0.5, (3, 3): 0.3}
BASE = {(i, j): 0.1 * j for i, j in SFT}
SYSTEMS = {"sft": SFT, "incumbent": START, "rag": BASE}


def scored(number, means=None, *, contracts=4, questions=3, metric="f1", spread=0.05, test=0.5):
    """Return a scored frame of one iteration; a slice's contracts lie around its mean, evenly."""
    rows = []
    for system, cells in (SYSTEMS if means is None else means).items():
        parts = [("slices", j, f"s{j}", mean) for (i, j), mean in cells.items() if i == number]
        for split, j, name, mean in [*parts, ("test", math.nan, "t", test)]:
            if split == "test" and system == "incumbent" and number == 1:
                continue
            for c, q in itertools.product(range(contracts), range(questions)):
                off = spread * (c - (contracts - 1) / 2) / contracts
                rows.append(
                    {
                        "system": system,
                        "split": split,
                        "slice": j,
                        "id": f"{name}c{c}q{q}",
                        "contract": f"{name}c{c}",
                        "is_impossible": q == 0,
                        metric: mean + off,
                        "answer": "text of a contract",
                    }
                )
    return pd.DataFrame(rows)


def decided(number, name):
    here = number if name != "incumbent" else number - 1
    return {"promoted": {"system": "sft", "program": f"iter-{here:02d}/program/rag.json", "weights": None}}


def history_of(folder, champions=("sft", "incumbent", "sft"), **settings):
    found = None
    for number, name in enumerate(champions, 1):
        it = runs.Iteration(folder, number)
        found = forgetting.collect_stream_scores(
            scored(number, **settings), it, decided(number, name), metric=settings.get("metric", "f1")
        )
        it.path("metrics").mkdir(parents=True)
        files.write_text(it.path("metrics", "stream.csv"), found.to_csv(index=False))
    return found


@pytest.fixture
def history(tmp_path):
    return history_of(tmp_path)


def values(table, key="measure"):
    return dict(zip(table[key], table["value"], strict=True))


def test_history_holds_the_slices_and_the_test_set_of_all_iterations_and_no_text(history):
    assert list(history.columns) == forgetting.HISTORY_COLUMNS and not (history == "text of a contract").any(axis=None)
    assert set(zip(history["iteration"], history["slice"])) == {*SFT, (1, 0), (2, 0), (3, 0)}
    assert (history[history["split"] == "test"]["slice"] == 0).all()


@settings(max_examples=30, deadline=None)
@given(
    titles=st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), min_size=1, max_size=5, unique=True
    )
    | st.just(["NA", "", "null", 'a "quoted", title', "1e5"]),
    value=st.floats(0, 1) | st.just(math.nan),
)
def test_history_is_read_back_as_it_was(tmp_path_factory, titles, value):
    frame = pd.DataFrame(
        [
            {
                "system": "sft",
                "split": "slices",
                "slice": 1.0,
                "id": f"{t}\n{n}",
                "contract": t,
                "is_impossible": True,
                "f1": value,
            }
            for n, t in enumerate(titles)
        ]
    )
    path = tmp_path_factory.mktemp("csv") / "stream.csv"
    found = forgetting.collect_stream_scores(frame, runs.Iteration(path.parent, 1), None, metric="f1")
    files.write_text(path, found.to_csv(index=False))
    pd.testing.assert_frame_equal(forgetting.read_stream_scores(path), found)


@pytest.mark.parametrize(
    "place, number, name",
    [
        ({"system": "rag", "program": "iter-01/program/rag.json", "weights": None}, 1, "rag"),
        ({"system": "rag", "program": None, "weights": None, "retriever": None}, 1, "rag"),
        ({"system": "sft", "program": "iter-02/program/rag.json", "weights": "iter-02/adapters/sft"}, 2, "sft"),
        ({"system": "sft", "program": "iter-01/program/rag.json", "weights": "iter-01/adapters/sft"}, 2, "incumbent"),
        (
            {
                "system": "retriever",
                "program": "iter-01/program/rag.json",
                "weights": None,
                "retriever": "iter-02/retriever",
            },
            2,
            "retriever",
        ),
        (
            {"system": "sft", "program": "iter-01/program/rag.json", "weights": None, "retriever": "iter-01/retriever"},
            12,
            "incumbent",
        ),
    ],
)
def test_champion_is_the_system_that_the_decision_leaves(tmp_path, place, number, name):
    assert forgetting.champion_system(runs.Iteration(tmp_path, number), {"promoted": place}) == name


def test_without_a_decision_no_system_is_champion(tmp_path):
    found = forgetting.collect_stream_scores(scored(1), runs.Iteration(tmp_path, 1), None, metric="f1")
    assert not found["champion"].any() and forgetting.slice_matrix(found)["when"].tolist() == ["before"]


def test_matrix_is_the_mean_of_each_iteration_on_each_slice(history):
    table = forgetting.slice_matrix(history, "sft")
    after = table[table["when"] == "after"]
    assert dict(zip(zip(after["iteration"], after["slice"]), after["value"].round(9))) == SFT
    before = table[table["when"] == "before"]
    assert list(zip(before["iteration"], before["slice"], before["system"], before["value"].round(9))) == [
        (0, 1, "rag", 0.1),
        (1, 2, "incumbent", 0.4),
        (2, 3, "incumbent", 0.3),
    ]
    assert set(table["n"]) == {12} and set(table["n_contracts"]) == {4}


def test_champion_of_an_iteration_that_kept_is_the_incumbent(history):
    table = forgetting.slice_matrix(history).query("when == 'after'")
    assert table["system"].tolist() == ["sft", "incumbent", "incumbent", "sft", "sft", "sft"]
    assert table["value"].round(9).tolist() == [0.6, 0.6, 0.4, 0.4, 0.6, 0.8]


def test_transfer_is_as_its_sources_define_it(history):
    found = values(forgetting.slice_transfer(history, "sft"))
    assert found["average"] == pytest.approx((0.4 + 0.6 + 0.8) / 3)
    assert found["backward transfer"] == pytest.approx(((0.4 - 0.6) + (0.6 - 0.5)) / 2)
    assert found["forward transfer"] == pytest.approx(((0.4 - 0.2) + (0.3 - 0.3)) / 2)  # the base scores 0.1 a slice
    champion = values(forgetting.slice_transfer(history))
    assert champion["backward transfer"] == pytest.approx(((0.4 - 0.6) + (0.6 - 0.4)) / 2)


def test_slices_weigh_the_same_however_many_questions_they_have(history):
    more = history[(history["slice"] == 1)]
    more = pd.concat([more.assign(id=more["id"] + f"+{n}") for n in range(9)])
    table = forgetting.slice_transfer(pd.concat([history, more]), "sft")
    assert values(table) == pytest.approx(values(forgetting.slice_transfer(history, "sft")))
    assert table["n"].tolist() == [120 + 24, 120 + 12, 24] and table["slices"].tolist() == [3, 2, 2]


def test_one_iteration_defines_the_average_alone(tmp_path):
    table = forgetting.slice_transfer(history_of(tmp_path, ("sft",)), "sft").set_index("measure")
    assert table.loc["average", "value"] == pytest.approx(0.6) and table["slices"].tolist() == [1, 0, 0]
    assert table["value"].iloc[1:].isna().all()


def test_stream_without_slices_is_no_crash(tmp_path):
    history = history_of(tmp_path, means={"sft": {}, "rag": {}, "incumbent": {}})
    assert not len(forgetting.slice_matrix(history)) and not len(forgetting.slice_before_after(history))
    assert forgetting.slice_transfer(history)["value"].isna().all()
    assert forgetting.scores_on_test_set(history, "sft")["iteration"].tolist() == [1, 2, 3]


def test_before_and_after_are_paired_by_question(history):
    table = forgetting.slice_before_after(history, "sft")
    assert table["value"].round(9).tolist() == [0.5, 0.1, 0.5] and table["n"].tolist() == [12, 12, 12]
    gone = history[~((history["system"] == "incumbent") & (history["id"] == "s2c0q0"))]
    assert forgetting.slice_before_after(gone, "sft")["n"].tolist() == [12, 11, 12]


def test_order_of_the_rows_does_not_matter(history):
    shuffled = history.sample(frac=1, random_state=1)
    for make in (
        forgetting.slice_matrix,
        forgetting.slice_transfer,
        forgetting.slice_before_after,
        forgetting.scores_on_test_set,
    ):
        pd.testing.assert_frame_equal(make(history, "sft"), make(shuffled, "sft"))


def test_test_set_and_slices_do_not_touch_each_other(history):
    other = history.assign(value=history["value"].where(history["slice"] > 0, 0.0))
    pd.testing.assert_frame_equal(forgetting.slice_transfer(history, "sft"), forgetting.slice_transfer(other, "sft"))
    pd.testing.assert_frame_equal(
        forgetting.scores_on_test_set(history),
        forgetting.scores_on_test_set(history.assign(value=history["value"].where(history["slice"] == 0, 0.0))),
    )


def test_nothing_forgotten_has_an_interval_around_nothing():
    """40 streams without forgetting: the interval leaves 0 out in about one of 20 (binomial: 8 or more, p < 0.001)."""
    missed = 0
    for seed in range(40):
        rng, rows = np.random.default_rng(seed), []
        for j, c in itertools.product((1, 2, 3), range(5)):
            level = rng.normal(0.5, 0.15)
            rows += [
                {
                    "iteration": i,
                    "split": "slices",
                    "slice": j,
                    "system": "sft",
                    "champion": False,
                    "contract": f"{j}-{c}",
                    "id": f"{j}-{c}-{q}",
                    "is_impossible": False,
                    "weight": 1.0,
                    "metric": "f1",
                    "value": rng.normal(level, 0.2),
                }
                for i in range(j, 4)
                for q in range(6)
            ]
        table = forgetting.slice_transfer(pd.DataFrame(rows), "sft", n_resamples=200).set_index("measure")
        missed += not table.loc["backward transfer", "low"] <= 0 <= table.loc["backward transfer", "high"]
    assert missed < 8


def test_metrics_of_counts_are_ratios_of_sums(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for system, c, q in itertools.product(("rag", "sft"), range(6), range(5)):
        text = "the law of Ohio governs"
        answer = [text, "another answer altogether", text_scores.NO_CLAUSE][rng.integers(3)]
        rows.append(
            {
                "system": system,
                "split": "slices",
                "id": f"c{c}q{q}",
                "contract": f"c{c}",
                "category": "Governing Law",
                "is_impossible": q == 0,
                "answers": [] if q == 0 else [{"text": text, "start": 0}],
                "answer": answer,
                "error": None,
            }
        )
    frame = metrics.score_predictions(rows).assign(slice=1)
    history = forgetting.collect_stream_scores(frame, runs.Iteration(tmp_path, 1), decided(1, "sft"), metric="quote_f1")
    means = {}
    for name, part in frame.groupby("system"):
        weight = metrics.metric_weights(part, "quote_f1")
        means[name] = float((part["quote_f1"].fillna(0) * weight).sum() / weight.sum())
    table = forgetting.slice_matrix(history).set_index("when")
    assert table["value"].to_dict() == pytest.approx({"after": means["sft"], "before": means["rag"]})
    assert forgetting.slice_before_after(history)["value"].item() == pytest.approx(means["sft"] - means["rag"])


def test_scores_of_another_metric_are_left_out_and_said(tmp_path):
    history_of(tmp_path, ("sft",))
    with pytest.warns(UserWarning, match="Earlier scores are f1, not em"):
        found = forgetting.collect_stream_scores(scored(2, metric="em"), runs.Iteration(tmp_path, 2), None, metric="em")
    assert set(found["iteration"]) == {2} and set(found["metric"]) == {"em"}


@pytest.mark.parametrize("absent", [True, False])
def test_stream_without_any_score_is_no_crash(tmp_path, absent):
    """The judge was down, or was never asked."""
    frame = scored(1) if absent else scored(1).assign(judge_score=math.nan)
    found = forgetting.collect_stream_scores(
        frame, runs.Iteration(tmp_path, 1), decided(1, "sft"), metric="judge_score"
    )
    assert found["value"].isna().all() and (found["weight"] == 0).all()
    assert forgetting.slice_matrix(found)["n"].tolist() == [0, 0]
    for make in (forgetting.slice_transfer, forgetting.slice_before_after, forgetting.scores_on_test_set):
        assert make(found, "sft")["value"].isna().all()
    for figure in (stream.slices_figure(found), stream.iterations_figure(found)):
        figure.draw_without_rendering()


@pytest.mark.parametrize("text", ["", "iteration,slice\n1,2\n", "\x00\x01", "iteration,split\n"])
def test_broken_history_names_its_file_and_what_to_do(tmp_path, text):
    history_of(tmp_path, ("sft",))
    path = runs.Iteration(tmp_path, 1).path("metrics", "stream.csv")
    path.write_text(text)
    with pytest.raises(
        InputError, match="stream.csv does not hold a history of scores .* run that iteration's 05_evaluate again"
    ):
        forgetting.collect_stream_scores(scored(2), runs.Iteration(tmp_path, 2), None, metric="f1")


def test_misspelt_system_is_told_the_others(history):
    with pytest.raises(InputError, match="No scores of 'sfx' in the stream: choose from champion, incumbent, rag, sft"):
        forgetting.slice_transfer(history, "sfx")


def test_the_interval_of_a_ratio_stays_between_0_and_1(tmp_path):
    rows = [
        {
            "system": "sft",
            "split": "test",
            "id": f"c{c}q{q}",
            "contract": f"c{c}",
            "category": "Governing Law",
            "is_impossible": q > 0,
            "answers": [] if q else [{"text": "the law of Ohio", "start": 0}],
            "answer": "the law of Ohio" if (c, q) == (0, 0) else "something else",
            "error": None,
            "weight": 1.0 + 3 * (q > 0),
        }
        for c, q in itertools.product(range(4), range(4))
    ]
    frame = metrics.score_predictions(rows)
    history = forgetting.collect_stream_scores(frame, runs.Iteration(tmp_path, 1), decided(1, "sft"), metric="quote_f1")
    found = forgetting.scores_on_test_set(history, "sft").iloc[0]
    weight = metrics.metric_weights(frame, "quote_f1")
    assert found["value"] == pytest.approx((frame["quote_f1"].fillna(0) * weight).sum() / weight.sum())
    assert 0 <= found["low"] < found["value"] < found["high"] <= 1
