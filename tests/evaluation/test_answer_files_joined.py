import json

import pytest

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, metrics


def row(n=1, **changes):
    return {"question": f"Question {n}?", "reference": f"Clause {n}.", "answer": f"Clause {n}."} | changes


def files(tmp_path, **named):
    paths = []
    for name, rows in named.items():
        path = tmp_path / f"{name.replace('__', '/')}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        paths.append(path)
    return answer_files.read_answer_files(paths, verdicts=["human"])


def test_systems_meet_by_question_whatever_the_order_of_the_rows(tmp_path):
    pool = answer_files.join_files(files(tmp_path, a=[row(1), row(2)], b=[row(2), row(1, question=" Question  1? ")]))
    assert [(p["system"], p["id"], p["question"].split()[1]) for p in pool.predictions] == [
        ("a", "1", "1?"),
        ("a", "2", "2?"),
        ("b", "2", "2?"),
        ("b", "1", "1?"),
    ]
    assert len(metrics.score_predictions(pool.predictions)) == 4


def test_rows_keep_the_order_of_the_input_when_systems_alternate(tmp_path):
    rows = [row(n, system=s) for n in (1, 2) for s in ("x", "y")]
    assert [p["system"] for p in answer_files.join_files(files(tmp_path, a=rows)).predictions] == ["x", "y", "x", "y"]


def test_a_repeated_question_keeps_distinct_rows_in_one_cluster(tmp_path):
    pool = answer_files.join_files(files(tmp_path, a=[row(), row(answer="other"), row(2)], b=[row(), row(), row(2)]))
    assert [p["id"] for p in pool.predictions] == ["1", "1.2", "2"] * 2
    assert [p["contract"] for p in pool.predictions[:3]] == ["question 1", "question 1", "question 2"]
    assert len(metrics.score_predictions(pool.predictions)) == 6


def test_the_same_question_on_two_references_is_two_questions(tmp_path):
    pool = answer_files.join_files(files(tmp_path, a=[row(), row(reference="Another.")], b=[row(reference="Another.")]))
    assert [p["id"] for p in pool.predictions] == ["1", "2", "2"]


def test_the_same_question_in_two_contracts_is_two_questions(tmp_path):
    pool = answer_files.join_files(files(tmp_path, a=[row(contract="C"), row(contract="D")]))
    assert [p["id"] for p in pool.predictions] == ["1", "2"]


def test_intervals_rest_on_contracts_only_where_several_are_named(tmp_path):
    several = answer_files.join_files(files(tmp_path, a=[row(1, contract="C"), row(2, contract="D")]))
    assert several.unit == "contract" and [p["contract"] for p in several.predictions] == ["C", "D"]
    assert "resampling the 2 contracts" in answer_files.pool_basis(several)
    for rows in ([row(1), row(2)], [row(1, contract="C"), row(2, contract="C")]):
        alone = answer_files.join_files(files(tmp_path, a=rows))
        assert alone.unit == "question" and len({p["contract"] for p in alone.predictions}) == 2
        assert "nothing about other contracts" in answer_files.pool_basis(alone)
        assert [p["contract_name"] for p in alone.predictions] == [r.get("contract", "") for r in rows]


def test_one_name_for_two_systems_is_refused(tmp_path):
    with pytest.raises(InputError, match="another file holds an answer of 'a' to this question: rename"):
        answer_files.join_files(files(tmp_path, a=[row(1)], sub__a=[row(1, answer="other")]))


def test_parts_of_a_system_that_a_column_names_are_joined(tmp_path):
    pool = answer_files.join_files(files(tmp_path, a=[row(1, system="s")], b=[row(2, system="s")]))
    assert [(p["id"], p["system"]) for p in pool.predictions] == [("1", "s"), ("2", "s")]
    with pytest.raises(InputError, match="another file holds an answer of 's'"):
        answer_files.join_files(
            files(tmp_path, a=[row(1, system="s")], b=[row(1, system="s", answer="x"), row(2, system="s")])
        )


def test_several_splits_are_refused_and_one_holds_for_all_files(tmp_path):
    assert {
        p["split"] for p in answer_files.join_files(files(tmp_path, a=[row(split="test")], b=[row()])).predictions
    } == {"test"}
    assert answer_files.join_files(files(tmp_path, a=[row()])).predictions[0]["split"] == "all"
    with pytest.raises(InputError, match="several splits \\(dev, test\\)"):
        answer_files.join_files(files(tmp_path, a=[row(split="test")], b=[row(split="dev")]))


def test_no_file_is_refused():
    with pytest.raises(InputError, match="No answers"):
        answer_files.join_files([])
