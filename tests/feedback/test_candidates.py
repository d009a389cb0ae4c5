"""Properties of the candidates: which rows are drawn, and that each is answered once, greedily and by sampling."""

import pytest
import small

from cuadft.evaluation.text_scores import NO_CLAUSE, is_refusal
from cuadft.feedback import candidates
from cuadft.feedback.candidates import sample_candidates, with_prompts
from cuadft.models.local import LocalEngine
from cuadft.rag.calibration import Calibration
from cuadft.rag.confidence import Confidence
from cuadft.rag.settle import SystemConfidence
from cuadft.rag.training_rows import target_answer

MANY = [row | {"id": f"{row['id']}{n}"} for n in range(5) for row in small.ROWS]  # 60 answerable, 20 not
LOST = [row | {"id": f"{row['id']}lost", "answers": [{"text": "elsewhere", "start": 10**6}]} for row in small.ROWS[1:4]]


def draw_candidate_rows(rows, **settings):
    return candidates.draw_candidate_rows(small.program(), rows, **settings)


@pytest.mark.parametrize("size, expected", [(10, 10), (100, 60)])
def test_rows_whose_clause_the_best_passage_holds_are_drawn_once_each(size, expected):
    drawn = draw_candidate_rows([*MANY, *LOST, *MANY], size=size, seed=4)
    found = small.program().retriever.search_many([(r["question"], r["contract"]) for r in drawn], k=1)
    assert all(target_answer(row, hit) for row, (hit,) in zip(drawn, found, strict=True))
    assert len({r["id"] for r in drawn}) == len(drawn) == expected and not any(r["is_impossible"] for r in drawn)
    assert drawn == draw_candidate_rows([*MANY, *LOST, *MANY], size=size, seed=4)
    assert drawn != draw_candidate_rows([*MANY, *MANY], size=size, seed=5)


@pytest.mark.parametrize("suffix", ["", "~t1", "~c1", "~s12", "~t1~c1", "~o3"])
def test_rows_that_the_model_has_not_learned_from_in_any_words_come_first(suffix):
    usable = draw_candidate_rows(MANY, size=100, seed=4)
    seen = {f"{row['id']}{suffix}" for row in usable[::3]}
    drawn = draw_candidate_rows(MANY, size=50, seed=4, seen=seen)
    learned = [f"{row['id']}{suffix}" in seen for row in drawn]
    assert learned == [False] * 40 + [True] * 10
    assert drawn == draw_candidate_rows(MANY, size=50, seed=4, seen=sorted(seen))


def test_each_row_gets_one_greedy_and_n_sampled_candidates_once(tmp_path):
    script = small.Script(small.first_clause)
    program, lm = small.program(), script.lm()
    made = sample_candidates(program, lm, small.ROWS, tmp_path, n=2)
    assert len(made) == len(script.calls) == 3 * 16
    assert [(p["system"], p["id"]) for p in made] == [(f"candidate {n}", r["id"]) for n in range(3) for r in small.ROWS]
    assert len({p["fingerprint"] for p in made}) == 2  # the greedy answers and the samples
    assert sample_candidates(program, lm, small.ROWS, tmp_path, n=2) == made and len(script.calls) == 48


def test_an_interrupted_sampling_goes_on_where_it_stopped(tmp_path):
    class Killed(small.Script):
        def complete(self, request):
            if len(self.calls) == 20:
                raise KeyboardInterrupt
            return super().complete(request)

    script, program = Killed(small.first_clause), small.program()
    with pytest.raises(KeyboardInterrupt):
        sample_candidates(program, script.lm(), small.ROWS, tmp_path, n=1, batch_size=1)
    rest = small.Script(small.first_clause)
    made = sample_candidates(program, rest.lm(), small.ROWS, tmp_path, n=1, batch_size=1)
    assert len(made) == 32 and len(rest.calls) == 32 - 20 and not any(p["error"] for p in made)


def test_a_candidate_is_the_whole_reply_about_the_best_passage_with_the_place_of_each_quote(tmp_path):
    row, text = small.ROWS[1], small.TEXTS[small.ROWS[1]["contract"]]
    script = small.Script(lambda messages: "once in each year\nAcme may audit\nno such words here at all")
    program = small.program(k=3)
    (made,) = sample_candidates(program, script.lm(), [row], tmp_path, n=0)
    assert len(script.calls) == len(made["passages"]) == 1
    quotes = ("Acme may audit", "once in each year", "no such words here at all")  # as in the contract, then the rest
    assert made["answer"] == "\n".join(quotes)
    assert [text[slice(*span)] for span in made["spans"]] == list(quotes[:2])
    none = small.Script(lambda messages: NO_CLAUSE)  # another engine's model may say so, the local one cannot
    (made,) = sample_candidates(program, none.lm("other"), [row], tmp_path, n=0)
    assert (made["answer"], made["spans"]) == (NO_CLAUSE, [])
    failed = small.Script(lambda messages: "")
    (made,) = sample_candidates(program, failed.lm("third"), [row], tmp_path, n=0)
    assert made["answer"] is None and made["error"]


def test_a_confidence_does_not_answer_in_place_of_the_model(tmp_path):
    certain = Calibration((), (), (), (), -9.0, 0)
    confidence = Confidence(certain, certain, None, None, certain, certain, 1.0)
    program, script = small.program(), small.Script(small.first_clause)
    program.confidence, program.system = confidence, SystemConfidence(certain, certain)
    made = sample_candidates(program, script.lm(), small.ROWS[:2], tmp_path, n=0)
    assert len(script.calls) == 2 and not any(p["answer"] == NO_CLAUSE for p in made)


def test_the_prompts_are_those_that_were_sent(tmp_path):
    script, program = small.Script(small.first_clause), small.program()
    made = sample_candidates(program, script.lm(), small.ROWS, tmp_path, n=1, batch_size=1)
    told = with_prompts(program, made)
    assert [row["prompt"] for row in told] == script.calls and [row | {"prompt": 0} for row in made] == [
        row | {"prompt": 0} for row in told
    ]
    assert with_prompts(program, []) == []


def test_the_model_samples_quotes_of_the_passage_that_differ_repeat_and_never_refuse(tiny, tmp_path):
    rows, texts = small.ROWS[1:4], small.TEXTS
    lms = [LocalEngine(tiny, dtype="float32").lm(max_tokens=6) for _ in range(2)]
    drawn = [sample_candidates(small.program(), lm, rows, tmp_path / str(n), n=5) for n, lm in enumerate(lms)]
    answers = [[p["answer"] for p in made] for made in drawn]
    assert answers[0] == answers[1] and len({tuple(answers[0][n : n + 3]) for n in range(3, 18, 3)}) > 2
    assert [p["id"] for p in drawn[0]] == [row["id"] for row in rows] * 6
    for made in drawn[0]:
        words = " ".join(texts[made["contract"]].split())
        assert not is_refusal(made["answer"]) and all(line in words for line in made["answer"].splitlines())


def test_the_samples_of_a_question_share_a_batch(tiny, tmp_path):
    engine = LocalEngine(tiny, dtype="float32")
    sample_candidates(small.program(), engine.lm(max_tokens=4), small.ROWS[1:4], tmp_path, n=5, batch_size=15)
    assert engine.calls == 3 + 15 and engine.batches == 2
