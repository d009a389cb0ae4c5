"""Properties of the candidates: which rows are drawn, and that each is answered once, greedily and by sampling."""

import pytest
import small

from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback.candidates import draw_candidate_rows, sample_candidates, with_prompts
from cuadft.models.local import LocalEngine
from cuadft.rag.calibration import Calibration
from cuadft.rag.confidence import Confidence
from cuadft.rag.settle import SystemConfidence

MANY = [row | {"id": f"{row['id']}{n}"} for n in range(5) for row in small.ROWS]  # 60 answerable, 20 not


@pytest.mark.parametrize(
    "size, share, expected", [(10, 0.3, 3), (10, 0.0, 0), (10, 1.0, 10), (7, 0.5, 4), (40, 0.5, 20)]
)
def test_the_share_of_unanswerable_rows_is_drawn(size, share, expected):
    drawn = draw_candidate_rows(MANY, size=size, impossible_share=share, seed=4)
    assert sum(r["is_impossible"] for r in drawn) == expected and len(drawn) == size
    assert len({r["id"] for r in drawn}) == size
    assert drawn == draw_candidate_rows(MANY, size=size, impossible_share=share, seed=4)
    assert drawn != draw_candidate_rows(MANY, size=size, impossible_share=share, seed=5)


def test_too_few_unanswerable_rows_are_made_up_for_by_others():
    drawn = draw_candidate_rows(small.ROWS, size=10, impossible_share=0.9, seed=4)  # of 16 rows, 4 are unanswerable
    assert [r["is_impossible"] for r in drawn].count(True) == 4 and len(drawn) == 10


def test_too_few_answerable_rows_do_not_raise_the_share_of_others():
    drawn = draw_candidate_rows(small.ROWS, size=14, impossible_share=0.0, seed=4)  # 12 are answerable
    assert len(drawn) == 12 and not any(r["is_impossible"] for r in drawn)


@pytest.mark.parametrize("size, left", [(20, 0), (40, 0), (50, 8)])
def test_rows_that_the_model_has_not_learned_from_come_first(size, left):
    # Of 60 answerable and 20 unanswerable rows, every other one was learned from: 40 are new, 10 of them unanswerable.
    # A quarter of 50 is 12 unanswerable (Python rounds 12.5 to the even 12): 2 of them seen, and 38 - 30 = 8 others.
    seen = {row["id"] for kind in (True, False) for row in [r for r in MANY if r["is_impossible"] is kind][::2]}
    drawn = draw_candidate_rows(MANY, size=size, impossible_share=0.25, seed=4, seen=seen)
    assert sum(r["id"] in seen for r in drawn if not r["is_impossible"]) == left
    assert sum(r["is_impossible"] for r in drawn) == round(size * 0.25) and len(drawn) == size
    assert drawn == draw_candidate_rows(MANY, size=size, impossible_share=0.25, seed=4, seen=sorted(seen))


def test_a_row_given_twice_is_drawn_once():
    assert len(draw_candidate_rows([*small.ROWS, *small.ROWS], size=32, impossible_share=0.25, seed=1)) == 4 + 12


@pytest.mark.parametrize("size, share", [(0, 0.5), (5, -0.1), (5, 1.1), (5, float("nan"))])
def test_sizes_and_shares_out_of_range_are_refused(size, share):
    with pytest.raises(InputError, match="share"):
        draw_candidate_rows(small.ROWS, size=size, impossible_share=share, seed=1)


def test_each_row_gets_one_greedy_and_n_sampled_candidates_once(tmp_path):
    script = small.Script(small.first_clause)
    program, lm = small.program(), script.lm()
    made = sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.7)
    assert len(made) == len(script.calls) == 3 * 16
    assert [(p["system"], p["id"]) for p in made] == [(f"candidate {n}", r["id"]) for n in range(3) for r in small.ROWS]
    assert len({p["fingerprint"] for p in made}) == 3  # temperature and seed differ
    assert (
        sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.7) == made and len(script.calls) == 48
    )
    sample_candidates(program, lm, small.ROWS, tmp_path, n=2, temperature=0.9)
    assert len(script.calls) == 48 + 32  # the greedy ones stand


def test_an_interrupted_sampling_goes_on_where_it_stopped(tmp_path):
    class Killed(small.Script):
        def complete(self, request):
            if len(self.calls) == 20:
                raise KeyboardInterrupt
            return super().complete(request)

    script, program = Killed(small.first_clause), small.program()
    with pytest.raises(KeyboardInterrupt):
        sample_candidates(program, script.lm(), small.ROWS, tmp_path, n=1, temperature=0.7, batch_size=1)
    rest = small.Script(small.first_clause)
    made = sample_candidates(program, rest.lm(), small.ROWS, tmp_path, n=1, temperature=0.7, batch_size=1)
    assert len(made) == 32 and len(rest.calls) == 32 - 20 and not any(p["error"] for p in made)


def test_a_candidate_is_the_whole_reply_about_the_best_passage_with_the_place_of_each_quote(tmp_path):
    row, text = small.ROWS[1], small.TEXTS[small.ROWS[1]["contract"]]
    script = small.Script(lambda messages: "once in each year\nAcme may audit\nno such words here at all")
    program = small.program(k=3)
    (made,) = sample_candidates(program, script.lm(), [row], tmp_path, n=0, temperature=1.0)
    assert len(script.calls) == len(made["passages"]) == 1
    quotes = ("Acme may audit", "once in each year", "no such words here at all")  # as in the contract, then the rest
    assert made["answer"] == "\n".join(quotes)
    assert [text[slice(*span)] for span in made["spans"]] == list(quotes[:2])
    none = small.Script(lambda messages: NO_CLAUSE)
    (made,) = sample_candidates(program, none.lm("other"), [row], tmp_path, n=0, temperature=1.0)
    assert (made["answer"], made["spans"]) == (NO_CLAUSE, [])
    failed = small.Script(lambda messages: "")
    (made,) = sample_candidates(program, failed.lm("third"), [row], tmp_path, n=0, temperature=1.0)
    assert made["answer"] is None and made["error"]


def test_a_confidence_does_not_answer_in_place_of_the_model(tmp_path):
    certain = Calibration((), (), (), (), -9.0, 0)
    confidence = Confidence(certain, certain, None, None, certain, certain, 1.0)
    program, script = small.program(), small.Script(small.first_clause)
    program.confidence, program.system = confidence, SystemConfidence(certain, certain)
    made = sample_candidates(program, script.lm(), small.ROWS[:2], tmp_path, n=0, temperature=1.0)
    assert len(script.calls) == 2 and not any(p["answer"] == NO_CLAUSE for p in made)


def test_the_prompts_are_those_that_were_sent(tmp_path):
    script, program = small.Script(small.first_clause), small.program()
    made = sample_candidates(program, script.lm(), small.ROWS, tmp_path, n=1, temperature=0.7, batch_size=1)
    told = with_prompts(program, made)
    assert [row["prompt"] for row in told] == script.calls and [row | {"prompt": 0} for row in made] == [
        row | {"prompt": 0} for row in told
    ]
    assert with_prompts(program, []) == []


def test_sampled_candidates_differ_by_seed_and_repeat(tiny, tmp_path):
    lms = [LocalEngine(tiny, dtype="float32").lm(max_tokens=6) for _ in range(2)]
    drawn = [
        sample_candidates(small.program(), lm, small.ROWS[1:4], tmp_path / str(n), n=2, temperature=1.0)
        for n, lm in enumerate(lms)
    ]
    answers = [[p["answer"] for p in made] for made in drawn]
    assert answers[0] == answers[1] and answers[0][3:6] != answers[0][6:9]


@pytest.mark.parametrize("n, temperature", [(2, 0.0), (-1, 1.0), (1, -1.0), (1, float("nan"))])
def test_sampling_that_could_only_repeat_the_greedy_answer_is_refused(n, temperature, tmp_path):
    script = small.Script(small.first_clause)
    with pytest.raises(InputError, match="temperature"):
        sample_candidates(small.program(), script.lm(), small.ROWS, tmp_path, n=n, temperature=temperature)
    assert not script.calls and not list(tmp_path.iterdir())
