"""Properties of the candidates: which rows are drawn, and that each is answered once, greedily and by sampling."""

import pytest
import small

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback.candidates import draw_candidate_rows, sample_candidates, with_prompts
from cuadft.models.local import LocalEngine
from cuadft.rag.calibration import Calibration
from cuadft.rag.confidence import Confidence
from cuadft.rag.settle import SystemConfidence

MANY = [row | {"id": f"{row['id']}{n}"} for n in range(5) for row in small.ROWS]  # 60 answerable, 20 not


@pytest.mark.parametrize("size, expected", [(10, 10), (100, 60)])
def test_rows_whose_clause_exists_are_drawn_once_each(size, expected):
    drawn = draw_candidate_rows([*MANY, *MANY], size=size, seed=4)
    assert len({r["id"] for r in drawn}) == len(drawn) == expected and not any(r["is_impossible"] for r in drawn)
    assert drawn == draw_candidate_rows([*MANY, *MANY], size=size, seed=4)
    assert drawn != draw_candidate_rows([*MANY, *MANY], size=size, seed=5)


@pytest.mark.parametrize("size, left", [(20, 0), (30, 0), (38, 8)])
def test_rows_that_the_model_has_not_learned_from_come_first(size, left):
    # Of the 60 rows with a clause every other one was learned from: 30 are new.
    seen = {row["id"] for row in [r for r in MANY if not r["is_impossible"]][::2]}
    drawn = draw_candidate_rows(MANY, size=size, seed=4, seen=seen)
    assert sum(r["id"] in seen for r in drawn) == left and len(drawn) == size
    assert drawn == draw_candidate_rows(MANY, size=size, seed=4, seen=sorted(seen))


def test_each_row_gets_one_greedy_and_n_sampled_candidates_once(tmp_path):
    script = small.Script(small.first_clause)
    program, lm = small.program(), script.lm()
    made = sample_candidates(program, lm, small.ROWS, tmp_path, n=2)
    assert len(made) == len(script.calls) == 3 * 16
    assert [(p["system"], p["id"]) for p in made] == [(f"candidate {n}", r["id"]) for n in range(3) for r in small.ROWS]
    assert len({p["fingerprint"] for p in made}) == 3  # the seeds differ
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
    none = small.Script(lambda messages: NO_CLAUSE)
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


def test_sampled_candidates_differ_by_seed_and_repeat(tiny, tmp_path):
    lms = [LocalEngine(tiny, dtype="float32").lm(max_tokens=6) for _ in range(2)]
    drawn = [
        sample_candidates(small.program(), lm, small.ROWS[1:4], tmp_path / str(n), n=2) for n, lm in enumerate(lms)
    ]
    answers = [[p["answer"] for p in made] for made in drawn]
    assert answers[0] == answers[1] and answers[0][3:6] != answers[0][6:9]
