"""Measuring a saved retriever: what is measured, what is left out because the retriever knows it, what is refused."""

import csv
import json

import pytest
from bag_of_words import make_embedder

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts
from cuadft.data.passages import cut_passages
from cuadft.retrieval import report
from cuadft.retrieval.retriever import Retriever
from cuadft.retrieval.saved import TRAINED, TUNED, save_retriever

SIZE, OVERLAP = 600, 0.5
SAMPLE = contracts.read_contracts(contracts.sample_path())[:8]
HELD, NEW = SAMPLE[:5], SAMPLE[5:]


def document(contract, *, title=None, text=None):
    """Return a contract with its answerable questions as CUAD's file has them."""
    title = title or contract.title
    asked = [
        {
            "id": f"{title}__{row['category']}",
            "question": row["question"],
            "is_impossible": row["is_impossible"],
            "answers": [{"text": a["text"], "answer_start": a["start"]} for a in row["answers"]],
        }
        for row in contract.rows
    ]
    return {"title": title, "paragraphs": [{"context": text or contract.text, "qas": asked}]}


def cuad(path, *documents):
    path.write_text(json.dumps({"version": "test", "data": list(documents)}))
    return str(path)


@pytest.fixture
def saved(tmp_path):
    """Save a BM25 retriever in a run's folder: contract 0 trained on, 1 tuned on, 2 to 4 only held."""
    passages = [p for c in HELD for p in cut_passages(c.text, contract=c.title, size=SIZE, overlap=OVERLAP)]
    folder = tmp_path / "run" / "iter-02" / "retriever"
    Retriever(passages, None, mode="bm25", cutting=(SIZE, OVERLAP)).save(folder)
    for name, n, iteration in (("train", 0, "iter-01"), ("dev", 1, "iter-02"), ("train", 5, "iter-03")):
        files.write_jsonl(tmp_path / "run" / iteration / "data" / f"{name}.jsonl", [{"contract": SAMPLE[n].title}])
    return folder


def embedding_model(folder):
    path = make_embedder(folder, b"two").path
    (path / "config.json").write_text("{}")
    return path


def measure(folder, path, **options):
    lines = []
    options = {"embedder": str(embedding_model(folder.parent)), "model": "tiny", "n_resamples": 100} | options
    done = report.measure_saved(folder, cuad=path, log=lines.append, **options)
    return done, "\n".join(lines)


def test_the_figures_are_those_of_a_retriever_built_with_the_same_contracts(saved, tmp_path):
    path = cuad(tmp_path / "c.json", *map(document, SAMPLE))
    done, told = measure(saved, path)
    assert set(done.left_out) == {SAMPLE[0].title, SAMPLE[1].title}  # a later iteration's train rows don't count
    assert f"{SAMPLE[0].title}: trained on" in told and f"{SAMPLE[1].title}: settings chosen on" in told
    passages = [p for c in SAMPLE for p in cut_passages(c.text, contract=c.title, size=SIZE, overlap=OVERLAP)]
    whole, rows = Retriever(passages, None, mode="bm25"), [r for c in SAMPLE[2:] for r in c.rows if r["answers"]]
    hits = [whole.search(r["question"], contract=r["contract"], k=3) for r in rows]
    firsts = [(r["answers"], h[0].passage) for r, h in zip(rows, hits)]
    best = [any(p.start < a["start"] + len(a["text"]) and a["start"] < p.end for a in gold) for gold, p in firsts]
    table = done.table.set_index("k")
    assert table.loc[1, "hit"] == pytest.approx(sum(best) / len(best))
    assert table.loc[1, "hit_low"] < table.loc[1, "hit"] < table.loc[1, "hit_high"]
    assert (table.loc[3, "n"], table.loc[3, "n_contracts"]) == (len(rows), 6)
    # byte-level tokens of the tiny model: between one a character and one for ten
    characters = sum(len(hit.passage.text) for h in hits for hit in h) / len(rows)
    assert characters / 10 < table.loc[3, "prompt_tokens"] < 1.3 * characters


def test_trained_contracts_are_measured_only_on_demand(saved, tmp_path):
    path = cuad(tmp_path / "c.json", *map(document, SAMPLE[:2]))
    with pytest.raises(InputError, match="All 2 contracts were left out.*--include-trained"):
        measure(saved, path)
    done, told = measure(saved, path, include_trained=True)
    assert done.rows["contract"].nunique() == 2 and "flatters" in told and not done.left_out


def test_a_copy_of_a_trained_contract_under_another_title_is_left_out(saved, tmp_path):
    path = cuad(tmp_path / "c.json", document(SAMPLE[0], title="Another Title"), document(NEW[0]))
    done, told = measure(saved, path)
    assert list(done.left_out) == ["Another Title"] and "shares half its wording with" in told


def test_a_folder_away_from_its_run_knows_what_it_was_trained_on(saved, tmp_path):
    passages = [p for c in HELD for p in cut_passages(c.text, contract=c.title, size=SIZE, overlap=OVERLAP)]
    embedder = make_embedder(tmp_path, b"two")
    retriever = Retriever(passages, embedder, mode="bm25", cutting=(SIZE, OVERLAP))
    save_retriever(retriever, runs.Iteration(saved.parents[1], 2))
    moved = saved.rename(tmp_path / "moved")
    done, _ = measure(moved, cuad(tmp_path / "c.json", *map(document, SAMPLE)))
    assert done.left_out == {SAMPLE[0].title: TRAINED, SAMPLE[1].title: TUNED}


def test_contracts_that_settings_were_chosen_on_are_known_also_without_a_note(saved, tmp_path):
    questions = saved.parent / "data" / "dev_questions.jsonl"
    files.write_jsonl(questions, [{"contract": SAMPLE[2].title}])
    done, _ = measure(saved, cuad(tmp_path / "c.json", *map(document, SAMPLE[:4])))
    assert done.left_out[SAMPLE[2].title] == TUNED and SAMPLE[3].title not in done.left_out


def test_the_saved_folder_stays_as_it_is(saved, tmp_path):
    before = files.file_hash(saved)
    measure(saved, cuad(tmp_path / "c.json", *map(document, NEW)))
    assert files.file_hash(saved) == before


def test_another_text_under_a_held_title_is_measured_as_the_file_has_it(saved, tmp_path):
    other = document(SAMPLE[3], text=SAMPLE[3].text.replace("the", "their"))
    for question in other["paragraphs"][0]["qas"]:
        for answer in question["answers"]:
            answer |= {"text": other["paragraphs"][0]["context"][:40], "answer_start": 0}
    done, _ = measure(saved, cuad(tmp_path / "c.json", other))
    words = other["paragraphs"][0]["context"]
    passages = cut_passages(words, contract=SAMPLE[3].title, size=SIZE, overlap=OVERLAP)
    own, rows = Retriever(passages, None, mode="bm25"), [r for r in SAMPLE[3].rows if r["answers"]]
    best = [own.search(r["question"], contract=r["contract"], k=1)[0].passage.start < 40 for r in rows]
    assert done.rows[done.rows["k"] == 1]["hit"].tolist() == [float(hit) for hit in best]


def test_the_command_prints_the_table_and_writes_it(saved, tmp_path, capsys):
    base = embedding_model(tmp_path)
    path, out = cuad(tmp_path / "c.json", *map(document, SAMPLE)), tmp_path / "out" / "table.csv"
    options = ["--cuad", path, "--model", "tiny", "--embedder", str(base), "--out", str(out), "--n-resamples", "50"]
    assert cli.main(["retrieval", str(saved), *options]) == 0
    printed = capsys.readouterr().out
    assert "char_recall" in printed and "prompt_tokens" in printed and "mode bm25" in printed
    with open(out, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["k"] for row in table] == ["1", "3"]
    with open(out.with_name("table_rows.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    hits = [float(r["hit"]) for r in rows if r["k"] == "1"]
    assert sum(hits) / len(hits) == pytest.approx(float(table[0]["hit"])) and len(rows) == 2 * len(hits)
    assert out.with_name("table_left_out.csv").read_text().count("\n") == 3
    for folder, message in ((tmp_path, "retriever is missing in"), (tmp_path / "none", "retriever is missing in")):
        assert cli.main(["retrieval", str(folder), *options]) == 2
        assert message in capsys.readouterr().err


def test_one_contract_has_no_interval(saved, tmp_path):
    done, _ = measure(saved, cuad(tmp_path / "c.json", document(NEW[0])))
    assert done.table[["hit_low", "hit_high"]].isna().all(axis=None) and set(done.table["n_contracts"]) == {1}
    assert "[nan, nan]" in report.measured_text(done)
