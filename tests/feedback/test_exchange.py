import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import ROWS, TEXTS
from votes import (
    AUDIT,
    CAP,
    DEV,
    LAW,
    LAW_ID,
    OTHER,
    SPLITS,
    TEST,
    TRAIN,
    annotation,
    from_store,
    imported,
    make_run,
    pair,
    preferred,
    stored,
    task,
)

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold
from cuadft.feedback import conversations, exchange, formats
from cuadft.feedback.records import pair_key
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused

SHOWN = " ".join(TEXTS[DEV][20:150].split())


@pytest.fixture
def run(tmp_path):
    """Return a run folder with two training contracts, one dev and one test contract, and no feedback."""
    return make_run(tmp_path)


# TRL's layouts


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json"])
def test_a_preference_row_becomes_a_judgement_on_its_training_question(run, name):
    done = imported(run, [pair()], name)
    assert (done.format, done.stored, done.left_out) == ("trl", 1, [])
    (judgement,) = stored(run)
    assert judgement["question"] == LAW and judgement["contract"] == TRAIN and judgement["source"] == f"import:{name}"
    assert preferred(run) == {("anna", LAW_ID, "Ohio", "Texas")}


USER = {"role": "user", "content": f"Passages: none\n\nQuestion: {LAW}"}
OHIO, TEXAS = ([{"role": "assistant", "content": text}] for text in ("Ohio", "Texas"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": OHIO, "rejected": TEXAS},
        {"prompt": USER["content"], "chosen": "Ohio", "rejected": "Texas"},
        {"chosen": [USER, *OHIO], "rejected": [USER, *TEXAS]},  # implicit prompt
        {"prompt": json.dumps([USER]), "chosen": json.dumps(OHIO), "rejected": json.dumps(TEXAS)},
        {"prompt": str([USER]), "chosen": str(OHIO), "rejected": str(TEXAS)},  # as pandas writes lists into CSV
        {"prompt": LAW, "chosen": [USER, *OHIO], "rejected": [USER, *TEXAS]},
        {"question": LAW, "chosen": "Ohio", "rejected": "Texas"},
    ],
)
def test_the_question_is_found_in_prompts_of_every_form(run, row):
    done = imported(run, [row | {"contract": f"  {TRAIN.upper()} ", "annotator": "anna"}])
    assert done.left_out == [] and preferred(run) == {("anna", LAW_ID, "Ohio", "Texas")}


def test_texts_without_a_prompt_are_left_out_unless_the_question_is_named(run):
    row = {"chosen": f"{LAW} Ohio", "rejected": f"{LAW} Texas", "contract": TRAIN}
    (left_out,) = imported(run, [row]).left_out
    assert left_out.reason == "its question '' is no training question"


def test_messages_of_a_prompt_are_kept(run):
    imported(run, [pair(prompt=[{"role": "system", "content": "Quote."}, USER], chosen=OHIO, rejected=TEXAS)])
    assert stored(run)[0]["prompt"] == [{"role": "system", "content": "Quote."}, USER]


def test_answers_that_begin_alike_are_not_cut_where_the_question_is_known(run):
    imported(run, [pair(chosen="The law of Ohio", rejected="The law of Texas")])
    assert preferred(run) == {("anna", LAW_ID, "The law of Ohio", "The law of Texas")}


def test_a_thumb_is_a_verdict_on_one_answer(run):
    ask = {"prompt": LAW, "contract": TRAIN, "annotator": "anna"}
    rows = [
        ask | {"completion": "Ohio", "label": True},
        ask | {"completion": "Texas", "label": "False"},
        ask | {"completion": "Maine", "label": 0},
        ask | {"completion": "x", "label": "maybe"},
    ]
    done = imported(run, rows)
    assert done.stored == 3 and [one.where for one in done.left_out] == ["line 4"]
    assert {(j["verdict"], j["answer_a"], j["answer_b"]) for j in stored(run)} == {
        ("a", "Ohio", ""),
        ("both_wrong", "Texas", ""),
        ("both_wrong", "Maine", ""),
    }


def test_pairs_that_no_person_preferred_are_left_out(run):
    done = imported(run, [pair(source="ai"), pair(source="gold"), pair(source="human")])
    assert done.stored == 1 and [one.reason for one in done.left_out] == [
        "it is no person's preference (source ai)",
        "it is no person's preference (source gold)",
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from(["prompt", "chosen", "rejected", "completion", "label"]),
)
def test_values_of_any_type_make_votes_or_a_reason(value, name):
    row = (
        {"prompt": LAW, "chosen": "a", "rejected": "b"}
        if name in ("prompt", "chosen", "rejected")
        else {"prompt": LAW, "completion": "a", "label": True}
    )
    try:
        vote = formats.trl_vote(row | {name: value})
        assert isinstance(vote["answer_a"], str) and vote["answer_a"].strip()
    except RowRefused as error:
        assert str(error)


# Label Studio


def test_every_annotator_of_a_task_keeps_his_id_and_skipped_ones_are_counted(run):
    rows = [
        task(
            annotation(), annotation("right", {"id": 3, "email": "bob@law.org"}), annotation(by=4, was_cancelled=True)
        ),
        task(annotation(by=5, result=[]), text2="Maine"),
        task(),
        task(annotation(), text2=" "),
    ]
    done = imported(run, rows, "project-1.json")
    assert done.format == "labelstudio" and done.stored == 2
    assert preferred(run) == {("1", LAW_ID, "Ohio", "Texas"), ("bob@law.org", LAW_ID, "Texas", "Ohio")}
    assert stored(run)[0]["seconds"] == 4.5
    assert [(one.where, one.reason) for one in done.left_out] == [
        ("row 1, annotation 3", "skipped by the annotator"),
        ("row 2, annotation 1", "nothing is selected in it"),
        ("row 3", "nobody has annotated the task"),
        (
            "row 4, annotation 1",
            "no two answers are found in it: fill them in and name their columns answer_a and answer_b",
        ),
    ]


def test_tie_comment_and_correction_beside_the_comparison_are_read(run):
    said = [
        {"from_name": "other", "to_name": "answer_a", "type": "choices", "value": {"choices": ["Both wrong"]}},
        {"from_name": "comment", "to_name": "answer_a", "type": "textarea", "value": {"text": ["see 4.2"]}},
        {"from_name": "edited", "to_name": "answer_a", "type": "textarea", "value": {"text": ["Nevada"]}},
    ]
    imported(run, [task(annotation(result=said), answer_a="Ohio", answer_b="Texas")], "p.json")
    (judgement,) = stored(run)
    assert [judgement[key] for key in ("verdict", "comment", "edited")] == ["both_wrong", "see 4.2", "Nevada"]


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": LAW, "text1": "Ohio", "text2": "Texas"},  # a prompt as in Label Studio's templates for LMs
        {"question": LAW, "answer_a": "Ohio", "answer_b": "Texas"},
        {"Question": LAW, "Answer A": "Ohio", "Answer B": "Texas"},
        {"question": LAW, "Text 1": "Ohio", "Text 2": "Texas", "answer_a": "x", "answer_b": "y"},
    ],
)
def test_question_and_answers_are_found_under_the_names_of_the_tag_else_under_ours(run, data):
    task = {"data": data, "annotations": [annotation("right")]}
    assert imported(run, [task], "p.json", contract=TRAIN).left_out == []
    assert preferred(run) == {("1", LAW_ID, "Texas", "Ohio")}


def test_a_prompt_that_quotes_a_held_out_contract_refuses_its_task(run):
    data = {"prompt": f"{SHOWN}\nQuestion: {LAW}", "answer_a": "Ohio", "answer_b": "Texas"}
    done = imported(run, [{"data": data, "annotations": [annotation()]}], "p.json", contract=TRAIN)
    assert [one.held_out for one in done.left_out] == [True]


def test_a_correction_of_several_lines_is_read(run):
    said = [
        *annotation()["result"],
        {"from_name": "edited", "to_name": "text1", "type": "textarea", "value": {"text": ["Ohio,", "not Texas"]}},
    ]
    imported(run, [task(annotation(result=said))], "p.json")
    assert stored(run)[0]["edited"] == "Ohio,\nnot Texas"


def test_an_annotation_of_another_kind_is_left_out_and_stops_nothing(run):
    odd = [None, 3, {"result": "x"}, {"result": [{"value": {"choices": 3}}]}, {"completed_by": 1}]
    done = imported(run, [task(*odd, annotation())], "p.json")
    assert done.stored == 1
    assert {one.reason for one in done.left_out} == {"it is no annotation of Label Studio: choose JSON in its export"}


def test_a_task_is_one_whatever_its_answers_are_called(run):
    said = [{"to_name": "chosen,rejected", "type": "pairwise", "value": {"selected": "right"}}]
    done = imported(run, [task(annotation(result=said), chosen="Ohio", rejected="Texas")], "p.json")
    assert done.format == "labelstudio" and preferred(run) == {("1", LAW_ID, "Texas", "Ohio")}


def test_the_prompt_that_a_task_shows_is_kept(run):
    imported(run, [task(annotation(), prompt=USER["content"])], "p.json")
    assert stored(run)[0]["prompt"] == [USER]


def test_importing_a_task_twice_adds_nothing(run):
    assert imported(run, [task(annotation())], "p.json").stored == 1
    assert imported(run, [task(annotation())], "q.json").duplicates == ["row 1, annotation 1"]


# The AWS sample


def test_aws_files_prefer_the_expert_unless_the_judge_calls_the_response_right(run):
    rows = [
        {
            "question": "Which state's  law governs the contract?",
            "ref_answer": "Ohio",
            "response": "Texas",
            "judge_bool": "0",
        },
        {
            "question": f"What is {AUDIT.partition(': ')[2]}",
            "ref_answer": "none",
            "response": "None.",
            "judge_bool": "1",
        },
        {"question": CAP, "ref_answer": "10", "response": "10 ", "judge_bool": "0"},
        {"question": "Who?", "ref_answer": "A", "response": "B", "judge_bool": "0"},
    ]
    done = imported(run, rows, "dpo_llama.csv", contract=TRAIN)
    assert done.format == "aws" and preferred(run) == {("expert", LAW_ID, "Ohio", "Texas")}
    assert stored(run)[0]["system_a"] == "expert" and stored(run)[0]["system_b"] == "dpo_llama"
    assert [one.reason for one in done.left_out] == [
        "the file's judge calls the response right: no preference",
        "both answers are the same",
        "its question 'Who?' is no training question",
    ]


def test_aws_files_with_an_index_and_older_names_are_read(run):
    (run.parent / "RAG.csv").write_text(f",question,gt_answer,pred_answer\n0,{LAW},Ohio,Texas\n")
    done = exchange.import_file(run.parent / "RAG.csv", run, contract=TRAIN)
    assert (done.format, done.stored) == ("aws", 1)


# No held-out contract, no wrong question


@pytest.mark.parametrize(
    "row",
    [
        pair(id=f"{TEST}__Governing Law"),
        pair(id=f"{DEV}__Asked later"),
        pair(id="", contract=TEST, question=LAW),
        pair(contract=DEV.lower()),  # the id says a training contract
        pair(chosen=TEXTS[TEST][30:200]),
        pair(chosen=f"The contract says:\n{SHOWN}\nSo it is Nevada."),
        pair(
            prompt=[{"role": "user", "content": f"<passage>{SHOWN}</passage> Question: {LAW}"}],
            chosen=OHIO,
            rejected=TEXAS,
        ),
        pair(prompt=f"Context: {SHOWN}\nQuestion: {LAW}"),
        pair(prompt=SHOWN),
    ],
)
def test_rows_of_held_out_contracts_are_refused_and_counted(run, row):
    done = imported(run, [row, pair(annotator="bob")])
    assert [(one.where, one.held_out) for one in done.left_out] == [("line 1", True)]
    assert {j["annotator"] for j in stored(run)} == {"bob"}
    assert "1 refused (held out)" in done.text()


def test_a_held_out_contract_named_for_the_file_refuses_its_rows(run):
    done = imported(run, [pair(id="", question=LAW)], contract=TEST)
    assert (done.stored, done.left_out[0].held_out) == (0, True) and stored(run) == []


def test_the_contract_named_for_the_file_is_for_rows_that_name_none(run):
    rows = [
        pair(id="", question=LAW),
        pair(contract=OTHER, id="", question=LAW, annotator="bob"),
        pair(annotator="eve"),
    ]
    assert imported(run, rows, contract=TRAIN).stored == 3
    assert [j["contract"] for j in stored(run)] == [TRAIN, OTHER, TRAIN]
    assert imported(run, [pair(id="", question=LAW)], contract="Zebra").left_out[0].reason.startswith("the run has no")


@pytest.mark.parametrize(
    "row, reason",
    [
        (pair(id="17"), "neither a known id nor a contract"),
        (pair(id="", contract="Zebra", question=LAW), "no contract 'Zebra'"),
        (pair(id="", contract="Acme Distribution", question=LAW), "did you mean 'acme distribution agreement'"),
        (pair(id="", contract=TRAIN, question="Who pays?"), "'Who pays?' is no training question"),
        (pair(contract=OTHER), "its id, contract and question belong to different rows"),
        (pair(question=AUDIT), "its id, contract and question belong to different rows"),
        (pair(chosen="  "), "chosen is empty"),
        (pair(chosen="Ohio ", rejected="Ohio"), "the same"),
        (pair(chosen=True), "no text"),
        (pair(annotator="x" * 101), "no valid judgement"),
        (pair(prompt=[{"content": "no role"}]), "messages with role"),
        (pair(chosen=[USER], rejected=TEXAS), "not the assistant's"),
    ],
)
def test_a_row_that_fits_no_training_question_is_left_out_with_the_reason(run, row, reason):
    done = imported(run, [row, pair(chosen="Nevada")])
    assert done.stored == 1 and done.left_out[0].where == "line 1" and reason in done.left_out[0].reason
    assert reason in done.text() and "line 1" in done.text()


def test_rows_without_names_are_by_the_annotator_given_else_by_the_file(run):
    rows = [pair(annotator=""), pair(annotator="anna", chosen="Maine")]
    imported(run, rows, "carla.jsonl")
    imported(run, rows, "other.jsonl", annotator="dora")
    assert {j["annotator"] for j in stored(run)} == {"carla", "anna", "dora"}


# Duplicates and contradictions


def test_importing_twice_adds_nothing(run):
    rows = [pair(), pair(annotator="bob"), pair(rejected="Maine")]
    assert imported(run, rows).stored == 3
    again = imported(run, rows, "renamed.json")
    assert (again.stored, again.duplicates) == (0, ["row 1", "row 2", "row 3"])
    assert len(Store(run / exchange.STORE_FILE).judgements(current=False)) == 3


def test_duplicates_are_found_within_a_file_and_with_the_answers_turned_round(run):
    turned = pair(answer_a="Texas", answer_b="Ohio", verdict="b", contract=TRAIN, question=LAW)
    done = imported(run, [pair(), pair(chosen=" Ohio ")])
    assert (done.stored, done.duplicates) == (1, ["line 2"])
    assert from_store(run, [turned]).duplicates == ["judgement 1"]


def test_a_file_that_keeps_no_spans_takes_none_from_the_store(run):
    base = {
        "annotator": "anna",
        "id": LAW_ID,
        "contract": TRAIN,
        "question": LAW,
        "answer_a": "Ohio",
        "answer_b": "Texas",
    }
    Store(run / exchange.STORE_FILE).add(base | {"verdict": "a", "span": [3, 9]})
    exchange.export_file(run.parent / "o.jsonl", run)
    assert exchange.import_file(run.parent / "o.jsonl", run).duplicates == ["line 1"]
    assert stored(run)[0]["span"] == [3, 9]
    corrected = base | {"verdict": "a", "edited": "Ohio law"}
    assert from_store(run, [corrected]).stored == 1  # says more than before


def test_a_vote_without_systems_meets_those_of_the_notebook_on_the_same_answers(run):
    base = {
        "annotator": "anna",
        "id": LAW_ID,
        "contract": TRAIN,
        "question": LAW,
        "answer_a": "Ohio",
        "answer_b": "Texas",
    }
    Store(run / exchange.STORE_FILE).add(base | {"verdict": "a", "system_a": "sft", "system_b": "rag"})
    imported(run, [pair(annotator="bob", chosen="Texas", rejected="Ohio")])
    assert len({pair_key(judgement) for judgement in stored(run)}) == 1
    assert [(j["answer_a"], j["verdict"]) for j in stored(run)] == [("Ohio", "a"), ("Ohio", "b")]


def test_rows_of_a_contract_that_the_run_no_longer_has_are_left_out(run):
    gone = ROWS[0] | {"id": "Gone__Governing Law", "contract": "Gone"}
    files.write_jsonl(run / "iter-02" / "data" / "train.jsonl", [gone])
    done = imported(run, [pair(id=gone["id"], chosen="x" * 80), pair()])
    assert (done.stored, [one.where for one in done.left_out]) == (1, ["line 1"])


def test_contradictions_name_question_and_annotators_and_the_later_own_verdict_counts(run):
    imported(run, [pair(annotator="zoe"), pair(annotator="zoe", rejected="Maine")])
    turned = pair(chosen="Texas", rejected="Ohio")
    done = imported(run, [pair(), turned | {"annotator": "bob"}, turned])
    assert done.stored == 3 and done.duplicates == []
    assert done.contradictions == [LAW_ID]
    assert {("anna", LAW_ID, "Texas", "Ohio"), ("zoe", LAW_ID, "Ohio", "Texas")} <= preferred(run)
    assert "1 contradictions" in done.text()
    assert imported(run, [pair(annotator="eve", rejected="Maine")]).contradictions == []  # none on this pair


def test_thumbs_up_and_down_for_one_answer_contradict(run):
    thumb = {"id": LAW_ID, "completion": "Ohio", "annotator": "anna"}
    imported(run, [thumb | {"label": True}])
    done = imported(run, [thumb | {"label": False, "annotator": "bob"}])
    assert done.stored == 1 and done.contradictions == [LAW_ID]


def test_an_undone_verdict_does_not_come_back_with_its_file(run):
    imported(run, [pair()])
    store = Store(run / exchange.STORE_FILE)
    store.undo(store.judgements()[0]["uid"], "anna")
    assert imported(run, [pair()]).stored == 0 and stored(run) == []


# Bad files


BAD = {
    "empty.csv": b"",
    "header.csv": b"prompt,chosen,rejected\n",
    "latin.csv": "id,chosen,rejected\n1,caf\xe9,x\n".encode("latin-1"),
    "torn.json": b'[{"chosen": "a", "rejected": "b"}, {"chosen": "a", "rej',
    "torn.jsonl": b'{"chosen": "a", "rejected": "b"}\n{"chosen": "a", "rej',
    "torn.csv": b'chosen,rejected\na,"b\n',
    "short.csv": b"id,chosen,rejected\n1,a\n",
    "other.csv": b"name,age\nanna,40\n",
    "half.csv": b"prompt,chosen\na,b\n",
    "list.json": b'["a", "b"]',
    "binary.csv": b"\x00\x01\x02",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_error_and_nothing_is_written(run, name):
    imported(run, [pair()])
    before = stored(run)
    (run.parent / name).write_bytes(BAD[name])
    with pytest.raises(InputError, match=name) as caught:
        exchange.import_file(run.parent / name, run)
    assert "\n" not in str(caught.value) and stored(run) == before


def test_an_unknown_run_or_layout_is_refused_with_what_is_allowed(run):
    with pytest.raises(InputError, match="No run in"):
        imported(run, [pair()], annotator="a") and exchange.import_file(run.parent / "file.jsonl", run.parent)
    with pytest.raises(InputError, match="not those of a known format .*trl .'chosen', 'rejected'"):
        imported(run, [{"question": LAW, "reference": "Ohio"}])


def test_a_file_that_is_no_store_is_not_overwritten(run):
    sqlite3.connect(run / exchange.STORE_FILE).execute("CREATE TABLE t (x)")
    content = (run / exchange.STORE_FILE).read_bytes()
    with pytest.raises(InputError, match="no feedback store"):
        imported(run, [pair()])
    assert (run / exchange.STORE_FILE).read_bytes() == content


# Export


def test_corrections_are_preferred_to_each_wrong_answer_and_ties_give_no_pair(run):
    base = {"annotator": "anna", "id": LAW_ID, "contract": TRAIN, "question": LAW, "answer_a": "x", "answer_b": "y"}
    store = Store(run / exchange.STORE_FILE)
    store.add(base | {"verdict": "both_wrong", "edited": "Ohio"})
    store.add(base | {"verdict": "b", "answer_a": "z", "edited": "better"})
    store.add(base | {"verdict": "tie", "answer_a": "w", "prompt": [USER]})
    counts = exchange.export_file(run.parent / "o.jsonl", run)
    assert counts == {"judgements": 3, "rows": 3, "without a preference": 1}
    rows = files.read_jsonl(run.parent / "o.jsonl")
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        ("Ohio", "x"),
        ("Ohio", "y"),
        ("better", "z"),
    ]
    assert all(r["prompt"] == [{"role": "user", "content": LAW}] and r["source"] == "human" for r in rows)


def test_export_says_what_is_wrong(run):
    with pytest.raises(InputError, match="no feedback"):
        exchange.export_file(run.parent / "o.jsonl", run)
    imported(run, [pair()])
    with pytest.raises(InputError, match="end the file's name in .jsonl"):
        exchange.export_file(run.parent / "o.csv", run)
    assert not (run.parent / "o.csv").exists()


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
ANSWER = TEXT.filter(str.strip) | st.sampled_from(["=1", "'=1", "-", "[{", "a,b;c", '"', "a\r\nb", "[]", "nan"])
JUDGEMENT = st.fixed_dictionaries(
    {
        "row": st.integers(0, 7),
        "annotator": st.sampled_from(["anna", "bob", "=c"]),
        "answer_a": ANSWER,
        "answer_b": ANSWER,
        "system_a": st.sampled_from(["", "sft", "-rag"]),
        "system_b": st.just("rag"),
        "comment": TEXT,
        "verdict": st.sampled_from(["a", "b", "tie", "both_wrong", "skip"]),
        "edited": st.none() | ANSWER,
        "seconds": st.none() | st.floats(0, 1e6),
        "span": st.none() | st.just([3, 9]),
        "prompt": st.none() | st.just([{"role": "system", "content": "Quote."}, USER]),
    }
)


def _filled(tmp_path, drawn):
    """Return a new run whose store holds the drawn judgements, each on other answers with another correction."""
    run, seen, made = make_run(tmp_path), set(), []
    training = [row for row in ROWS if SPLITS[row["contract"]] == "train"]
    for one in drawn:
        row = training[one["row"]]
        texts = [text for text in (one["answer_a"], one["answer_b"], one["edited"]) if text is not None]
        keys = {(row["id"], fold(text)) for text in texts}
        if len(keys) == len(texts) and keys.isdisjoint(seen):
            seen |= keys
            about = {key: row[key] for key in ("id", "contract", "question")}
            made.append({key: value for key, value in one.items() if key != "row"} | about)
    Store(run / exchange.STORE_FILE).add_many(made)
    return run


def _pairs(rows):
    return {
        (
            r["annotator"],
            r["id"],
            r["chosen"][0]["content"],
            r["rejected"][0]["content"],
            str(r["prompt"]),
            r["system_chosen"],
            r["system_rejected"],
        )
        for r in rows
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(JUDGEMENT, min_size=1, max_size=5))
def test_exported_pairs_read_back_as_the_same_pairs(drawn, tmp_path_factory):
    run = _filled(tmp_path_factory.mktemp("a"), drawn)
    before = [row for judgement in stored(run) for row in exchange.pair_rows(judgement)]
    if not before:
        return
    exchange.export_file(run.parent / "p.jsonl", run)
    fresh = make_run(tmp_path_factory.mktemp("b"))
    assert exchange.import_file(run.parent / "p.jsonl", fresh).left_out == []
    assert _pairs([row for judgement in stored(fresh) for row in exchange.pair_rows(judgement)]) == _pairs(before)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(JUDGEMENT, min_size=1, max_size=5))
def test_another_runs_store_gives_the_same_judgements(drawn, tmp_path_factory):
    run = _filled(tmp_path_factory.mktemp("a"), drawn)
    if not stored(run):
        return
    fresh = make_run(tmp_path_factory.mktemp("b"))
    assert exchange.import_file(run / exchange.STORE_FILE, fresh).format == "store"
    new = {"source": "", "uid": ""}
    assert [j | new for j in stored(fresh)] == [j | new for j in stored(run)]


KEYS = st.sampled_from(["role", "content", "text", "value"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.sampled_from(["", "a", "Ohio", LAW_ID, LAW]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
ROWS_OF_FORMATS = {  # format -> a row in which a value is changed, and another row
    "labelstudio": (
        task(annotation(), id=LAW_ID, prompt=LAW, comment=""),
        task(annotation(by=2)),
    ),
    "aws": (
        {"id": "", "contract": TRAIN, "question": LAW, "ref_answer": "Ohio", "response": "Texas", "judge_bool": 0},
        {"contract": TRAIN, "question": LAW, "ref_answer": "Ohio", "response": "Iowa"},
    ),
    "comparison": (
        {"contract": TRAIN, "prompt": LAW, "answer_a": "Ohio", "answer_b": "Texas", "winner": "A", "model_a": "x"},
        {"contract": TRAIN, "question": LAW, "answer_a": "Ohio", "answer_b": "Iowa", "winner": "B"},
    ),
}
WHOLE = pair(prompt=[USER], comment="", time="2026-05-04", system_chosen="x", contract=TRAIN, question=LAW)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WHOLE)), value=ANY)
def test_a_row_with_any_value_is_stored_or_left_out_but_stops_nothing(name, value, run):
    done = imported(run, [WHOLE | {name: value}, pair()], "any.json")
    assert done.stored + len(done.left_out) + len(done.duplicates) == 2 and done.text()


@pytest.mark.parametrize("name", ROWS_OF_FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_a_row_of_any_format_with_any_value_stops_nothing(name, drawn, run):
    row, other = ROWS_OF_FORMATS[name]
    places = [row, *(row.get("data"), *row.get("annotations", [])), *row.get("annotations", [{}])[0].get("result", [])]
    place = drawn.draw(st.sampled_from([at for at in places if at]))
    key, value = drawn.draw(st.sampled_from(sorted(place))), drawn.draw(ANY)
    changed = json.loads(json.dumps(row).replace(json.dumps(place), json.dumps(place | {key: value}), 1))
    done = imported(run, [changed, other], "any.json")
    assert done.format == name and done.stored + len(done.left_out) + len(done.duplicates) >= 2 and done.text()


# What comes back from an export, and what a prompt is


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(JUDGEMENT, min_size=1, max_size=5))
def test_an_export_says_nothing_new_to_the_run_that_wrote_it(drawn, tmp_path_factory):
    run = _filled(tmp_path_factory.mktemp("a"), drawn)
    if not any(list(exchange.pair_rows(judgement)) for judgement in stored(run)):
        return
    exchange.export_file(run.parent / "p.jsonl", run)
    before = stored(run)
    done = exchange.import_file(run.parent / "p.jsonl", run)
    assert (done.stored, done.left_out) == (0, []) and stored(run) == before


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(JUDGEMENT, min_size=1, max_size=5))
def test_time_and_seconds_come_back_from_an_export(drawn, tmp_path_factory):
    run = _filled(tmp_path_factory.mktemp("a"), drawn)
    kept = {(j["annotator"], j["time"], j["seconds"]) for j in stored(run) if list(exchange.pair_rows(j))}
    if kept:
        exchange.export_file(run.parent / "p.jsonl", run)
        fresh = make_run(tmp_path_factory.mktemp("b"))
        exchange.import_file(run.parent / "p.jsonl", fresh)
        assert {(j["annotator"], j["time"], j["seconds"]) for j in stored(fresh)} == kept


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_seconds_count_the_same_from_a_table_of_text(run, name):
    imported(run, [pair(seconds=2.5), pair(annotator="bob", seconds="soon")], name)
    assert [j["seconds"] for j in stored(run)] == [2.5, None]


SYSTEM = {"role": "system", "content": "Quote."}
HH = "\n\nHuman: {}\n\nAssistant: {}"
WHOLE_CONVERSATIONS = [  # rows whose columns repeat the conversation, and the prompt that is meant
    ({"prompt": [USER, *OHIO], "chosen": OHIO, "rejected": TEXAS}, [USER]),
    ({"prompt": [USER, *OHIO], "chosen": [USER, *OHIO], "rejected": [USER, *TEXAS]}, [USER]),
    ({"prompt": [USER, *TEXAS], "chosen": "Ohio", "rejected": "Texas"}, [USER]),
    (
        {"prompt": USER["content"], "chosen": [USER, *OHIO], "rejected": [USER, *TEXAS], "messages": [USER, *OHIO]},
        [USER],
    ),
    ({"prompt": LAW, "chosen": [SYSTEM, USER, *OHIO], "rejected": [SYSTEM, USER, *TEXAS]}, [SYSTEM, USER]),
    ({"prompt": [SYSTEM, USER], "chosen": [USER, *OHIO], "rejected": [USER, *TEXAS]}, [SYSTEM, USER]),
    ({"prompt": f"{LAW}\nOhio", "chosen": "Ohio", "rejected": "Texas"}, None),
    ({"prompt": HH.format(LAW, "Ohio"), "chosen": "Ohio", "rejected": "Texas"}, None),
    ({"chosen": HH.format(LAW, "Ohio"), "rejected": HH.format(LAW, "Texas")}, None),
    ({"prompt": HH.format(LAW, ""), "chosen": "Ohio", "rejected": "Texas"}, None),
]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("row, prompt", WHOLE_CONVERSATIONS)
def test_no_prompt_ends_with_an_answer(run, row, prompt, as_text):
    row = {name: str(value) for name, value in row.items()} if as_text else row
    done = imported(run, [row | {"contract": TRAIN, "annotator": "anna"}], "p.csv" if as_text else "p.jsonl")
    assert done.left_out == [] and preferred(run) == {("anna", LAW_ID, "Ohio", "Texas")}
    assert stored(run)[0]["prompt"] == prompt
    exchange.export_file(run.parent / "o.jsonl", run)
    assert files.read_jsonl(run.parent / "o.jsonl")[0]["prompt"][-1]["role"] == "user"


def test_a_prompt_keeps_the_turns_before_its_question_and_options_that_it_lists(run):
    before = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, USER]
    options = f"{LAW} Choose one:\nTexas\nOhio"
    imported(run, [pair(prompt=before), pair(prompt=options, annotator="bob")])
    assert [j["prompt"] for j in stored(run)] == [before, None]
    assert formats.trl_vote(pair(prompt=options))["prompt_question"] == options


NUMPY = "[{'role': 'user', 'content': %r}\n {'role': 'assistant', 'content': \"%s\"}]"


@pytest.mark.parametrize(
    "cell",
    [
        NUMPY,
        NUMPY.replace("[", "array([", 1) + ", dtype=object)",
        "[{'from': 'human', 'value': %r}, {'from': 'gpt', 'value': '%s'}]",
    ],
)
def test_lists_that_other_programs_write_into_cells_are_messages(run, cell):
    row = {"contract": TRAIN, "annotator": "anna", "chosen": cell % (LAW, "Ohio"), "rejected": cell % (LAW, "Texas")}
    assert imported(run, [row], "p.csv").left_out == [] and preferred(run) == {("anna", LAW_ID, "Ohio", "Texas")}


@pytest.mark.parametrize("name", ["p.csv", "p.json"])
def test_a_list_of_quotes_is_one_answer_with_a_quote_a_line(run, name):
    imported(run, [pair(chosen=["Ohio", "its courts"], rejected=["Texas' law"])], name)
    assert preferred(run) == {("anna", LAW_ID, "Ohio\nits courts", "Texas' law")}


TURNS = st.lists(st.tuples(st.sampled_from(["user", "system"]), TEXT), max_size=2)


@given(TURNS, ANSWER, st.sampled_from(["json", "python", "numpy", "array"]))
def test_messages_in_a_cell_read_back_as_they_were(before, answer, how):
    said = [{"role": role, "content": text} for role, text in [*before, ("assistant", answer)]]
    blanks = "[" + "\n ".join(map(str, said)) + "]"
    cells = {"json": json.dumps(said), "python": str(said), "numpy": blanks, "array": f"array({said}, dtype=object)"}
    assert conversations.messages_of(cells[how], "chosen", "assistant") == said


def test_brackets_of_a_text_are_no_list(run):
    imported(run, [pair(chosen="[Redacted] of Ohio", rejected="[1]")], "p.csv")
    assert preferred(run) == {("anna", LAW_ID, "[Redacted] of Ohio", "[1]")}


def test_a_reference_in_a_list_is_its_text(run):
    row = {"question": LAW, "ref_answer": "['Ohio']", "response": "Texas", "judge_bool": "0"}
    imported(run, [row], "dpo.csv", contract=TRAIN)
    assert preferred(run) == {("expert", LAW_ID, "Ohio", "Texas")}
