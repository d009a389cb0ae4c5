"""Properties of the headroom: what perfect choices would gain on dev, and that a learning rate is chosen there."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import small

from cuadft.core import runs
from cuadft.feedback import headroom
from cuadft.feedback.headroom import headroom_rows, headroom_sentence, measure_headroom

ANSWERABLE = [row for row in small.ROWS if row["answers"]]


def clause_of(row: dict) -> str:
    return row["answers"][0]["text"]


def test_rows_have_a_clause_are_spread_over_the_contracts_and_are_no_more_than_asked():
    drawn = headroom_rows(small.ROWS, size=8, seed=1)
    assert len(drawn) == 8 and not any(row["is_impossible"] for row in drawn)
    assert {sum(r["contract"] == title for r in drawn) for title in small.TEXTS} == {2}
    many = [row | {"id": f"{row['id']}{n}"} for row in small.ROWS for n in range(99)]
    assert len(headroom_rows(many, size=10_000, seed=1)) == headroom.MOST_ROWS == 300


class Reader:
    """Quote the clause from a passage in every n-th call about it, and its first three words otherwise."""

    def __init__(self, right: int) -> None:
        self.right, self.seen = right, {}

    def __call__(self, messages: list[dict]) -> str:
        text = messages[-1]["content"]
        passage = text.split("<passage>")[-1].split("</passage>")[0]
        self.seen[passage] = self.seen.get(passage, 0) + 1
        words = passage.split()
        return " ".join(words if self.seen[passage] % self.right == 0 else words[:3])


def test_the_gain_is_that_of_the_best_sample_over_the_greedy_answer_and_of_the_best_passage(tmp_path):
    rows = [row for row in ANSWERABLE if "Audit" in row["category"]]  # the clause is the whole of the best passage
    script, program = small.Script(Reader(right=3)), small.program(k=2)
    table = measure_headroom(program, script.lm(), rows, tmp_path).set_index("chooser")
    assert list(table.index) == ["best of 5 sampled answers", "best of the passages"]
    assert table["greedy"].tolist() == pytest.approx([0.4, 0.4])  # 3 words of 12
    sampled, passages = table["value"]
    assert sampled == pytest.approx(0.6) and 0 <= passages < 0.1  # the other passage has but "the Distributor"
    assert set(table["n"]) == {3} == set(table["n_contracts"])
    assert len(script.calls) == len(rows) * (2 + 5)  # two passages greedily, and five samples
    again = measure_headroom(program, script.lm(), rows, tmp_path).set_index("chooser")
    assert again.equals(table) and len(script.calls) == len(rows) * 7  # kept


def test_a_perfect_chooser_between_passages_gains_where_the_second_one_holds_the_clause(tmp_path):
    row = next(row for row in small.ROWS if row["id"] == "Acme Distribution Agreement__Audit Rights")
    other = next(row for row in small.ROWS if row["id"] == "Acme Distribution Agreement__Cap On Liability")
    lost = row | {"answers": other["answers"]}
    script, program = small.Script(Reader(right=1)), small.program(k=2)
    table = measure_headroom(program, script.lm(), [lost], tmp_path).set_index("chooser")
    assert table.at["best of the passages", "chosen"] == 1 and table.at["best of the passages", "greedy"] < 0.3


@pytest.mark.parametrize("gain, worth", [(0.12, True), (0.03, False)])
def test_the_sentence_says_what_there_is_to_gain_and_whether_that_would_show(gain, worth):
    ends = {"low": gain - 0.02, "high": gain + 0.02, "n": 300, "n_contracts": 12, "greedy": 0.5, "chosen": 0.5 + gain}
    table = pd.DataFrame([{"chooser": name, "value": gain} | ends for name in (headroom.SAMPLES, headroom.PASSAGES)])
    told = headroom_sentence(table)
    assert told.startswith(f"There is {gain:.2f}".replace("0.", ".")) and "300 dev questions" in told
    assert ("no method" in told) == (not worth)
    assert "not known" in headroom_sentence(table.assign(n=0, value=math.nan))


def test_dev_chooses_the_rate_and_its_weights_take_the_methods_place(tmp_path, monkeypatch):
    iteration = runs.Iteration(tmp_path, 1)
    gains = {"sft": 2, "rates/0.001/dpo": 1, "rates/1e-05/dpo": 3, "rates/0.001/kto": 2, "rates/1e-05/kto": 2}
    for name in gains:
        iteration.path("adapters", name).mkdir(parents=True)
        iteration.path("adapters", name, "w").write_text(name)

    def system(name: str) -> SimpleNamespace:  # quotes a larger part of the clause, the higher its gain
        reply = lambda messages: " ".join(small.first_clause(messages).split()[: 3 * gains[name]])  # noqa: E731
        lm = small.Script(reply).lm(name.replace("/", "."))
        return SimpleNamespace(name=name, program=small.program(), lm=lm, batch_size=8)

    monkeypatch.setattr(headroom, "build_systems", lambda it, names, **_: [system(name) for name in names])
    rows = [row for row in ANSWERABLE if "Audit" in row["category"]]
    table = headroom.choose_rates(iteration, ["dpo", "kto"], [1e-3, 1e-5], rows, model="tiny", embedder="e")
    found = table.set_index(["method", "rate"])
    assert found["chosen"].to_dict() == {
        ("dpo", 1e-5): True,
        ("dpo", 1e-3): False,
        ("kto", 1e-5): True,  # of equal gains the lowest rate
        ("kto", 1e-3): False,
    }
    assert found.at[("dpo", 1e-5), "value"] > 0 > found.at[("dpo", 1e-3), "value"] and found["n"].eq(3).all()
    kept = [iteration.path("adapters", name, "w").read_text() for name in ("dpo", "kto")]
    assert kept == ["rates/1e-05/dpo", "rates/1e-05/kto"]
    one = headroom.choose_rates(iteration, ["dpo"], [1e-3], rows)
    assert one.to_dict("records") == [{"method": "dpo", "rate": 1e-3, "chosen": True}]
