"""Properties of the online reward: it is the judge's or the metric's score of the answer that inference would give."""

import math

import pandas as pd
import pytest
import small

from cuadft.core.errors import InputError
from cuadft.evaluation.offline_judge import OfflineJudge
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.rag.inference import answer_rows
from cuadft.rag.training_rows import REWARD_COLUMNS, online_prompts, telling_rows
from cuadft.training import online

ROW = small.ROWS[1]
GOLD = ROW["answers"][0]["text"]


def completion(text):
    return [{"role": "assistant", "content": text}]


def rewarded(judge, texts, row=ROW):
    n = len(texts)
    return online.reward_function(judge)(
        prompts=[[]] * n,
        completions=[completion(t) for t in texts],
        question=[row["question"]] * n,
        answers=[row["answers"]] * n,
        id=["x"] * n,
    )


def test_the_reward_is_f1_and_a_bonus_for_quotes_that_count():
    close, half, little = "Acme may audit the books and records of the Distributor", "Acme may audit the books", "books"
    # 8 and 4 words of 12 without "the": F1 0.8 and 0.5; of all different words, 8 of 12 and 5 of 12 are shared
    assert rewarded(None, [GOLD, close, half]) == pytest.approx([1.5, 0.8 + 0.5, 0.5])
    assert rewarded(None, [little, NO_CLAUSE, "", "  "]) == pytest.approx([2 / 13, 0, 0, 0])
    assert rewarded(None, [NO_CLAUSE, GOLD], small.ROWS[0]) == [1.0, 0.0]


def test_the_bonus_is_for_the_share_of_quotes_that_count_and_f1_for_all_spans():
    text = small.TEXTS[ROW["contract"]]
    both = [{"text": own, "start": text.index(own)} for own in ("Acme may audit", "once in each year")]
    row = ROW | {"answers": both}
    assert rewarded(None, ["Acme may audit\nonce in each year"], row) == pytest.approx([1.5])
    assert rewarded(None, ["Acme may audit\nof the Distributor"], row) == pytest.approx([6 / 8 + 0.25])


def test_the_judges_reward_is_its_score_of_the_same_row():
    texts = [GOLD, NO_CLAUSE, "something else entirely", ""]
    rows = [ROW | {"answer": t or None, "error": None} for t in texts]
    assert rewarded(OfflineJudge(), texts) == pytest.approx(OfflineJudge().rate(rows)["judge_score"].tolist())


def test_a_failed_judgement_is_no_reward_and_not_a_bad_one():
    class Down:
        name = "down"

        def rate(self, rows):
            return pd.DataFrame({"judge_score": [math.nan, 0.5]})

    assert rewarded(Down(), ["a", "b"]) == [None, 0.5]


def test_rewards_of_other_judges_have_other_names():
    class Model(OfflineJudge):
        def __init__(self, name):
            super().__init__()
            self.name = name

    judges = (None, OfflineJudge(), Model("openai/a"), Model("openai/b"))
    assert [online.reward_function(judge).__name__ for judge in judges] == [
        "gold",
        "judge",
        "judge openai/a",
        "judge openai/b",
    ]


def test_a_judge_that_fails_on_every_answer_of_a_step_stops_the_training():
    class Dead:
        name = "dead"

        def rate(self, rows):
            return pd.DataFrame(
                {"judge_score": [math.nan] * len(rows), "judge_error": ["no route to host"] * len(rows)}
            )

    with pytest.raises(InputError, match="all 2 answers.*no route to host"):
        rewarded(Dead(), ["a", "b"])


def test_prompts_are_those_of_the_reader_and_leave_out_what_the_best_passage_lacks(tmp_path):
    program = small.program()
    lost = ROW | {"id": "lost", "answers": [{"text": "nowhere", "start": 10**6}]}
    script = small.Script(lambda m: "x")
    made = online_prompts(program, [ROW, lost, small.ROWS[0]])
    assert [p["id"] for p in made] == [ROW["id"], small.ROWS[0]["id"]]
    assert {"prompt", "passage", *REWARD_COLUMNS} == set(made[0]) and made[0]["passage"] == GOLD
    answer_rows(program.reader(), script.lm(), [ROW, small.ROWS[0]], tmp_path / "p.jsonl", system="s", split="train")
    assert sorted(map(str, script.calls)) == sorted(str(p["prompt"]) for p in made)


def test_rows_whose_answers_differ_teach_and_some_others_stay():
    rows = [{"id": name} for name in "abcdef"]
    scores = {"a": [1.0, 1.0], "b": [0.0, 1.0], "c": [0.2], "d": [0.5, 0.4], "e": [], "f": [0.0, 0.0]}
    assert [row["id"] for row in telling_rows(rows, scores)] == ["b", "d", "a"]  # 2 differ, half as many others
    assert [row["id"] for row in telling_rows(rows, scores, others=9)] == [
        "b",
        "d",
        "a",
        "c",
        "f",
    ]  # of e nothing is known
    assert [row["id"] for row in telling_rows(rows[:1], scores)] == ["a"]
    failed = {name: [math.nan, math.nan, 0.5] for name in "abcdef"}
    assert [row["id"] for row in telling_rows(rows, scores | {"b": failed["b"]})] == ["d"]  # unknown is not different
    assert telling_rows(rows, failed) == rows
    assert telling_rows(rows, dict.fromkeys("abcdef", [math.nan])) == []  # a judge that is down
