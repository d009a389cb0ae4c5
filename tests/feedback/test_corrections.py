"""A corrected review.csv becomes rows to learn from and judgements, whatever a spreadsheet did to the file."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
import reviewing
import small
from hypothesis import given
from hypothesis import strategies as st

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import corrections as data_corrections
from cuadft.data import rows, stream
from cuadft.data.contracts import Contract
from cuadft.data.schema import NO_CATEGORY
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback import corrections
from cuadft.feedback.corrections import import_corrections, is_review
from cuadft.feedback.store import Store
from cuadft.review.reviewer import Finding, Quoted
from cuadft.review.tables import csv_bytes

TITLES = list(small.TEXTS)
NEW, HELD_OUT, TRAINED = TITLES[3], TITLES[2], TITLES[0]
CATEGORIES = list(small.QUESTIONS)


def finding(category: str, text: str, *words: str, answer: bool = True) -> Finding:
    places = [(word, text.index(word)) for word in words]
    quotes = tuple(Quoted(word, start, start + len(word), None, 0.9, answer) for word, start in places)
    state = ("sure" if answer else "unsure") if words else "absent"
    return Finding(category, small.QUESTIONS[category], state, 0.9 if words else 0.1, quotes)


@pytest.fixture
def run(tmp_path):
    """Return a run that trained on one contract and held another out; reviews of all lie in out/."""
    folder, about = tmp_path / "run", {"contract_type": "", "group": 0}
    split_of = {TITLES[0]: "train", TITLES[1]: "train", HELD_OUT: "test"}
    records = [{"title": t, "split": s, "filer": t, "text": small.TEXTS[t]} | about for t, s in split_of.items()]
    files.write_jsonl(folder / "contracts.jsonl", records)
    train = [row for row in small.ROWS if row["contract"] in TITLES[:2]]
    files.write_jsonl(folder / "iter-01" / "data" / "train.jsonl", train)
    files.write_json(folder / "iter-01" / "decision.json", {"promoted": {"system": "sft"}})
    return folder


def reviewed(run, name: str = "new", text: str = "", *found: Finding):
    """Write the review of a contract as `cuadft review` does, and return the rows of its review.csv."""
    text = text or small.TEXTS[NEW] + " " + name
    found = found or (
        finding("Governing Law", text, text[text.index("This Agreement is") : text.index(", and the law of no")]),
        finding("Audit Rights", text, "pay all invoices", "within thirty days"),
        finding("Cap On Liability", text),
        finding("Renewal Term", text, "each calendar month", answer=False),
    )
    review = reviewing.review(text, tuple(found), name=name)
    files.write_jsonl(run.parent / "out" / "review.jsonl", [review.record()])
    content = csv_bytes([review]).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(content, newline="")))


def saved(run, table, *, encoding="utf-8-sig", delimiter=",", end="\r\n"):
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, list(table[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(table)
    path = run.parent / "out" / "review.csv"
    path.write_bytes(made.getvalue().encode(encoding))
    return path


def learned(run) -> dict[str, list[str]]:
    """Return the answers of the corrected rows by category; each must stand at its offset."""
    found = {}
    for line in data_corrections.corrections_of(run):
        for row in line["rows"]:
            assert row["source"] == "feedback" and row["contract"] == line["title"]
            assert row["is_impossible"] == (not row["answers"])
            assert all(line["text"].startswith(a["text"], a["start"]) for a in row["answers"])
            found[row["category"]] = [a["text"] for a in row["answers"]]
    return found


def edited(table, category: str, n: int = 0, **values: str):
    [row for row in table if row["category"] == category][n].update(values)


@pytest.mark.parametrize(
    ("delimiter", "encoding", "end"), [(",", "utf-8-sig", "\r\n"), (";", "utf-8", "\n"), ("\t", "utf-8-sig", "\r\n")]
)
def test_what_a_person_changed_is_learned_and_nothing_else(run, delimiter, encoding, end):
    table = reviewed(run)
    edited(table, "Governing Law", verdict="RIGHT")
    edited(table, "Audit Rights", quote="dynamo may  AUDIT the books and records")
    edited(table, "Audit Rights", 1, verdict="wrong")
    edited(table, "Cap On Liability", correction="The liability of either party")
    report = import_corrections(saved(run, table, delimiter=delimiter, encoding=encoding, end=end), run)
    assert learned(run) == {
        "Governing Law": [table[0]["quote"]],
        "Audit Rights": ["Dynamo may audit the books and records"],
        "Cap On Liability": ["The liability of either party"],
    }
    assert (report.rows, report.judgements, sum(map(len, report.left_out.values()))) == (3, 2, 0)


def test_a_table_that_nobody_changed_teaches_nothing(run):
    report = import_corrections(saved(run, reviewed(run)), run)
    assert (report.rows, report.judgements) == (0, 0) and not (run / "corrections.jsonl").exists()


@pytest.mark.parametrize("values", [{"verdict": "wrong"}, {"correction": "no such clause"}, {"quote": ""}])
def test_a_wrong_quote_is_refused(run, values):
    table = reviewed(run)
    quote = table[0]["quote"]
    edited(table, "Governing Law", **values)
    import_corrections(saved(run, table), run)
    assert learned(run) == {"Governing Law": []}
    (said,) = Store(run / "feedback.sqlite").judgements()
    assert (said["answer_a"], said["answer_b"], said["verdict"]) == (quote, NO_CLAUSE, "b")


def test_sure_quotes_that_stay_beside_a_corrected_one_count_and_possible_ones_do_not(run):
    table = reviewed(run)
    edited(table, "Audit Rights", correction="Dynamo may audit")
    edited(table, "Renewal Term", comment="nothing to say")
    import_corrections(saved(run, table), run)
    assert learned(run) == {"Audit Rights": ["within thirty days", "Dynamo may audit"]}


def test_unsure_quotes_that_nobody_touched_are_not_learned(run):
    text = small.TEXTS[NEW]
    unsure = replace(finding("Audit Rights", text, "pay all invoices", "within thirty days"), state="unsure")
    table = reviewed(run, "new", text, unsure)
    edited(table, "Audit Rights", correction="Dynamo may audit")
    import_corrections(saved(run, table), run)
    assert learned(run) == {"Audit Rights": ["Dynamo may audit"]}


def test_a_new_row_adds_a_quote_that_was_missed(run):
    table = reviewed(run)
    table.append(
        dict.fromkeys(table[0], "") | {"contract": "NEW", "category": "governing law", "quote": "no other state"}
    )
    table.append(dict.fromkeys(table[0], "") | {"contract": "new", "category": "Nothing", "quote": "no other state"})
    report = import_corrections(saved(run, table), run)
    assert learned(run) == {"Governing Law": [table[0]["quote"], "no other state"]}
    assert sum(map(len, report.left_out.values())) == 1


@pytest.mark.parametrize(
    "values", [{"quote": "18-May-10"}, {"correction": "words of no contract"}, {"verdict": "perhaps"}]
)
def test_what_cant_be_understood_is_left_out_with_its_row_and_the_rest_is_taken(run, values):
    table = reviewed(run)
    edited(table, "Governing Law", **values)
    edited(table, "Audit Rights", verdict="wrong")
    report = import_corrections(saved(run, table), run)
    assert list(learned(run)) == ["Audit Rights"] and [*report.left_out.values()] == [["row 1"]]
    assert "row 1" in report.text()


def test_a_missed_clause_needs_its_words(run):
    table = reviewed(run)
    edited(table, "Cap On Liability", verdict="wrong")
    assert "must hold its words" in import_corrections(saved(run, table), run).text() and not learned(run)


def test_the_same_file_twice_changes_nothing_and_a_later_one_counts(run):
    table = reviewed(run)
    edited(table, "Governing Law", verdict="wrong")
    path = saved(run, table)
    import_corrections(path, run, annotator="anna")
    again = import_corrections(path, run, annotator="anna")
    assert (again.rows, again.judgements, len(again.duplicates)) == (0, 0, 1)
    edited(table, "Governing Law", verdict="", correction="no other state")
    import_corrections(saved(run, table), run, annotator="anna")
    assert learned(run) == {"Governing Law": ["no other state"]}


@pytest.mark.parametrize("change", ["", " And one more sentence at its end."])
def test_a_held_out_contract_and_its_like_are_refused(run, change):
    table = reviewed(run, "other name", small.TEXTS[HELD_OUT] + change)
    edited(table, "Governing Law", verdict="wrong")
    report = import_corrections(saved(run, table), run)
    assert report.refused == 1 and not learned(run) and not Store(run / "feedback.sqlite").judgements()


def test_an_annotated_contract_gets_a_judgement_on_its_own_question_and_no_second_row(run):
    table = reviewed(run, "any name", small.TEXTS[TRAINED], finding("Audit Rights", small.TEXTS[TRAINED], "pay all"))
    edited(table, "Audit Rights", correction="may audit the books")
    report = import_corrections(saved(run, table), run)
    (said,) = Store(run / "feedback.sqlite").judgements()
    assert report.rows == 0 and said["id"] == f"{TRAINED}__Audit Rights" and said["contract"] == TRAINED


def test_a_contract_with_a_known_title_and_another_text_gets_a_title_of_its_own(run):
    table = reviewed(run, TRAINED, small.TEXTS[NEW])
    edited(table, "Governing Law", verdict="wrong")
    import_corrections(saved(run, table), run)
    (line,) = data_corrections.corrections_of(run)
    assert line["title"].startswith(f"{TRAINED} (") and line["text"] == small.TEXTS[NEW]


def test_a_table_without_its_review_says_where_to_put_it(run):
    table = reviewed(run)
    path = saved(run, table)
    (run.parent / "out" / "review.jsonl").unlink()
    with pytest.raises(InputError, match="put it beside its review.jsonl"):
        import_corrections(path, run)
    with pytest.raises(InputError, match="No run in"):
        import_corrections(path, run.parent)


def test_the_command_takes_the_run_first_and_tells_reviews_from_votes(run, capsys):
    table = reviewed(run)
    edited(table, "Governing Law", verdict="wrong")
    path = saved(run, table)
    assert is_review(path) and not is_review(run / "contracts.jsonl")
    assert cli.main(["feedback", "import", str(run), str(path), "--annotator", "anna"]) == 0
    assert "1 question to learn from on 1 contract," in capsys.readouterr().out
    assert cli.main(["feedback", "import", str(path), "--run", str(run)]) == 0
    assert cli.main(["feedback", "import", str(path)]) == 2


@given(st.data())
def test_corrected_words_are_found_at_their_offsets(data):
    text = data.draw(st.text("abc \n", min_size=1).filter(str.strip))
    words = text.split()
    first = data.draw(st.integers(0, len(words) - 1))
    wanted = words[first : data.draw(st.integers(first + 1, len(words)))]
    ((start, end),) = corrections._located(" ".join(wanted).upper(), text, [])
    assert text[start:end].split() == wanted


# What the next iteration makes of it.


def taken(run, number: int, **options: object):
    """Return what notebook 01 of an iteration gets from the stream."""
    options = {"stream": "random"} | options
    iteration = runs.Iteration(run, number)
    records = [r for r in files.read_jsonl(run / "contracts.jsonl")]
    contracts = [
        Contract(t, small.TEXTS[t], rows=tuple(r for r in small.ROWS if r["contract"] == t)) for t in TITLES[:3]
    ]
    part = stream.next_slice(iteration, contracts, records, size=0, hold_out=0, replay=0, seed=7, **options)
    return part, stream.question_sets(part, iteration, dev_rows=0, test_rows=0, slice_rows=0, seed=7)


def corrected(run, name: str = "new", text: str = ""):
    table = reviewed(run, name, text)
    edited(table, "Governing Law", verdict="right")
    edited(table, "Audit Rights", correction="no such clause")
    edited(table, "Audit Rights", 1, verdict="wrong")
    return import_corrections(saved(run, table), run)


def test_the_next_iteration_trains_on_the_corrections_and_knows_the_contract(run):
    corrected(run)
    part, sets = taken(run, 2)
    feedback = [row for row in sets["train"] if row["source"] == "feedback"]
    assert [(row["category"], row["is_impossible"]) for row in feedback] == [
        ("Governing Law", False),
        ("Audit Rights", True),
    ]
    assert part.corrected == ["new"] and part.train[-1] == "new" and "new" not in part.new
    (record,) = [r for r in rows.contract_records(run, 2) if r["title"] == "new"]
    assert record["split"] == "train" and record["text"] == small.TEXTS[NEW] + " new"
    assert rows.contract_passages(run, ["new"], 120)


def test_what_an_iteration_took_stays_and_what_comes_later_waits_for_the_next(run):
    corrected(run)
    before, _ = taken(run, 2)
    later = "A text of its own. This Agreement is governed by the law of Utah, and the law of no other state. They pay "
    later += "all invoices within thirty days of the end of each calendar month, as agreed between the parties today."
    corrected(run, "later", later)
    assert taken(run, 2)[0] == before and set(taken(run, 3)[0].corrected) == {"new", "later"}
    assert {r["title"] for r in rows.contract_records(run, 2)} == {*TITLES[:3], "new"}


def test_corrections_are_enough_for_an_iteration_in_which_nothing_arrives_but_only_once(run):
    (run.parent / "in").mkdir()
    arrivals = {"stream": "arrivals", "arrivals_folder": run.parent / "in"}
    with pytest.raises(InputError, match="Nothing new in .* or import the corrections of a review"):
        taken(run, 2, **arrivals)
    corrected(run)
    part, _ = taken(run, 2, **arrivals)
    assert part.corrected == ["new"] and part.new == taken(run, 1, **arrivals)[0].new
    assert taken(run, 2, **arrivals)[0] == part
    with pytest.raises(InputError, match="Nothing new in"):
        taken(run, 3, **arrivals)


def test_the_first_iteration_takes_no_corrections(run):
    corrected(run)
    assert taken(run, 1)[0].corrected == [] and not (run / "iter-01" / "corrected.jsonl").exists()


def test_a_contract_that_has_come_with_annotations_since_needs_no_corrections(run):
    corrected(run, "new", small.TEXTS[NEW])
    record = {"title": NEW, "split": "train", "text": small.TEXTS[NEW], "contract_type": "", "filer": "", "group": 9}
    files.append_jsonl(run / "contracts.jsonl", [record])
    assert data_corrections.take_corrections(runs.Iteration(run, 2)) == []


def test_corrections_label_a_contract_for_their_category_and_questions_of_ones_own_do_not():
    row = {"category": "Governing Law", "source": "feedback"}
    assert rows.is_annotated(row) and rows.is_annotated(row | {"source": "cuad", "category": "Any"})
    assert not rows.is_annotated(row | {"category": NO_CATEGORY}) and not rows.is_annotated(row | {"source": "own"})
