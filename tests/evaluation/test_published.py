import math
import os
from pathlib import Path

import pytest

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, metrics, published
from cuadft.evaluation.figures import published as figures

REAL = Path(os.environ.get("CUADFT_PUBLISHED") or Path(__file__).parents[3] / "shared" / "published")
FAST = {"n_resamples": 200, "seed": 1}
N = 20
README = """# Answers
Text | with a bar.

| System | judge_bool | `judge_score` |
|:---|---|---|
| good | 0.950 / 0.900 | 0.905 / 0.905 |
| same | 0.950 / 0.950 | - |
| bad | 0.000 | 0.275 |
| absent | 0.5 | 0.5 |

| system | judge_score |
|---|---|
| good | 0.1 |
"""


class Same:
    """A judge that finds an answer right if it is the reference."""

    name = "same"

    def rate(self, rows):
        from cuadft.evaluation.verdicts import verdict_row, verdict_table

        return verdict_table([verdict_row(float(r["answer"] == r["answers"][0]["text"]), "correct") for r in rows])


def lines(right, bools=None, scores=None):
    header = "question,ref_answer,response" + (",judge_bool,judge_score" if bools else "")
    rows = [f"Question {n}?,clause {n},{'clause' if n < right else 'words'} {n}" for n in range(N)]
    return (
        "\n".join([header, *(f"{r},{b},{s}" for r, b, s in zip(rows, bools, scores))] if bools else [header, *rows])
        + "\n"
    )


@pytest.fixture
def folder(tmp_path):
    """Four systems: good and bad with verdicts (bad's true/false parser failed), same and poor without."""
    (tmp_path / "README.md").write_text(README)
    good = [1] * 19 + [0], [0.9] * 18 + [1.0, 0.9]  # means 0.95 and 0.905
    bad = [0] * N, [0.9] * 5 + [1.0] + [0.0] * 14  # mean 0.275
    (tmp_path / "good.csv").write_text(lines(19, *good))
    (tmp_path / "same.csv").write_text(lines(19))
    (tmp_path / "bad.csv").write_text(lines(6, *bad))
    (tmp_path / "poor.csv").write_text(lines(2))
    (tmp_path / "notes.txt").write_text("no answers")
    return tmp_path


def results(folder):
    return published.recompute_published(folder, {"reference_score": Same()}, **FAST)


def test_answers_verdicts_and_printed_means_are_read(folder):
    found, means = published.read_published(folder)
    assert [file.path.stem for file in found] == ["good", "same", "bad", "poor"]  # as in the README, then by file name
    assert found[0].rows[0]["verdicts"] == {"judge_bool": 1.0, "judge_score": 0.9} and not found[3].rows[0]["verdicts"]
    assert list(means.query("system == 'good'")["value"]) == [0.95, 0.9, 0.905, 0.905]
    assert list(means.query("system == 'good'")["run"]) == [1, 2, 1, 2]
    assert list(means.query("system == 'same'")["verdict"]) == ["judge_bool"] * 2


def test_a_row_of_the_table_that_is_cut_short_names_no_system(folder):
    (folder / "README.md").write_text("|judge_bool|system|\n|--|--|\n|0.5|good|\n|0.6|\n")
    assert set(results(folder).table.query("measure == 'printed_bool'")["system"]) == {"good"}


def test_a_folder_without_readme_or_verdicts_is_read(folder):
    (folder / "README.md").unlink()
    (folder / "good.csv").unlink()
    (folder / "bad.csv").unlink()
    found = results(folder)
    assert len(published.read_published(folder)[1]) == 0
    assert set(found.table["measure"]) == {"reference_score", "f1", "rouge_l"}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "README.md").write_text(README.replace("0.275", "0,275")), "README.md: '0,275' is no mean"),
        (lambda f: (f / "README.md").write_text(README.replace("0.275", "27.5")), "'27.5' is no mean"),
        (lambda f: (f / "good.csv").write_text("question,answer\nq,a\n"), "good.csv has no column for the reference"),
        (lambda f: (f / "good.csv").write_text(lines(1, [7] * N, [0] * N)), "good.csv, row 1: verdict '7'"),
        (lambda f: [p.unlink() for p in f.glob("*.csv")], "No answer files in"),
    ],
)
def test_a_broken_folder_is_one_clear_error(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        results(folder)


def test_a_missing_folder_and_a_file_are_named(folder):
    (folder / "empty").mkdir()
    for name, words in (("none", "No folder"), ("good.csv", "No folder"), ("empty", "No answer files")):
        with pytest.raises(InputError, match=words):
            published.read_published(folder / name)


def test_the_table_holds_printed_and_recomputed_means_with_intervals_over_questions(folder):
    table = results(folder).table.set_index(["system", "measure", "run"])
    assert table.loc[("good", "printed_bool", 2), "value"] == 0.9 and math.isnan(
        table.loc[("good", "printed_bool", 2), "low"]
    )
    row = table.loc[("good", "published_bool", 0)]
    assert row["value"] == pytest.approx(0.95) and row["low"] < 0.95 < row["high"] and row["n"] == N
    assert table.loc[("bad", "reference_score", 0), "value"] == pytest.approx(6 / N)
    assert ("same", "published_score", 0) not in table.index and ("absent", "printed_bool", 1) not in table.index


def test_paired_tests_cover_all_pairs_that_have_the_measure_but_no_faulty_verdicts(folder):
    found = results(folder)
    counts = found.deltas.groupby("metric").size()
    assert counts["reference_score"] == counts["f1"] == 6 and counts["published_score"] == 1
    assert "published_bool" not in counts  # of the two systems with true/false verdicts one is faulty
    assert found.deltas["p_holm"].notna().all()


def test_the_parser_fault_is_told_from_a_bad_system(folder):
    # 6 of bad's rows are at 0.8 or more, 19 of good's 20 such rows are true: (1 - 20/22)^6 = 5.6e-7
    assert results(folder).faulty == ["bad"]
    (folder / "bad.csv").write_text(lines(0, [0] * N, [0.1] * N))
    assert results(folder).faulty == []
    # one row at 0.8: (1 - 20/22)^1 = 0.09 is not below 0.05
    (folder / "bad.csv").write_text(lines(0, [0] * N, [0.9] + [0.1] * (N - 1)))
    assert results(folder).faulty == []


def test_the_figure_has_one_panel_per_kind_of_verdict_and_marks_the_fault(folder):
    found = results(folder)
    figure = figures.published_figure(found.table, faulty=["bad"])
    left, right = figure.axes
    labels, more = ([t.get_text() for t in axes.get_yticklabels()] for axes in (left, right))
    assert list(dict.fromkeys(label.split(":")[0] for label in labels + more)) == ["good", "same", "bad", "poor"]
    marked = [label for label, text in zip(labels, left.texts, strict=True) if "parser fault" in text.get_text()]
    assert marked == ["bad: published rows"] and "0 to 1" in right.get_xlabel()
    assert len(figures.published_figure(found.table.iloc[:0]).axes) == 0


def test_other_systems_beside_the_published_ones_are_not_called_published(folder, tmp_path):
    other = tmp_path / "mine" / "mine.csv"
    other.parent.mkdir()
    other.write_text(lines(12))
    theirs, means = published.read_published(folder)
    pool = answer_files.join_files([*answer_files.read_answer_files([other]), *theirs])
    frame = published.with_verdicts(metrics.score_predictions(pool.predictions), pool.predictions)
    found = published.compare_published(means, frame, **FAST).table
    assert set(found.query("system == 'mine'")["measure"]) == {"f1", "rouge_l"}


@pytest.mark.skipif(not (REAL / "README.md").is_file(), reason="no published answers here; set CUADFT_PUBLISHED")
def test_the_published_folder_gives_its_own_means_and_findings():
    found = results(REAL)
    means = found.table.set_index(["system", "measure", "run"])["value"]
    assert means["dpo_llama3_8b", "published_bool", 0] == pytest.approx(19 / 32)
    assert means["rag_haiku_compiled", "printed_bool", 2] == 0.312
    assert found.faulty == ["rag_sonnet"]
    tests = found.deltas.query("metric == 'published_score'").set_index(["baseline", "system"])
    level = tests.loc[("rag_haiku_compiled", "dpo_llama3_8b")]
    assert level["low"] < 0 < level["high"] and level["p_holm"] > 0.05
    alone = tests.loc[("sft_llama3_8b", "dpo_llama3_8b")]  # larger than the noise only as the one comparison made
    assert alone["low"] > 0 and alone["p_holm"] > 0.05
    assert "orpo_llama3_8b" not in set(tests.reset_index()["system"])  # without row verdicts there is no test
