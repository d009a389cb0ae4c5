"""A saved retriever searches with its own embedder; the contracts that a run learned from are known."""

import pytest
from bag_of_words import make_embedder

from cuadft.core import files
from cuadft.data import contracts
from cuadft.data.passages import cut_passages, join_passages
from cuadft.retrieval.retriever import Retriever
from cuadft.retrieval.saved import (
    MODELS_FILE,
    TRAINED,
    TUNED,
    known_contracts,
    learned_in_data,
    load_retriever_folder,
)

SIZE, OVERLAP = 600, 0.5
SAMPLE = contracts.read_contracts(contracts.sample_path())[:6]


@pytest.fixture
def saved(tmp_path):
    passages = [p for c in SAMPLE for p in cut_passages(c.text, contract=c.title, size=SIZE, overlap=OVERLAP)]
    folder = tmp_path / "run" / "iter-02" / "retriever"
    Retriever(passages, None, mode="bm25", cutting=(SIZE, OVERLAP)).save(folder)
    return folder


def test_a_retriever_searches_with_the_embedder_and_the_precision_that_it_was_saved_with(saved, tmp_path):
    base = make_embedder(tmp_path, b"two").path
    (base / "config.json").write_text("{}")
    assert load_retriever_folder(saved, str(base)).embedder.path == base
    make_embedder(tmp_path).path.rename(saved / "embedder")
    (tmp_path / "leftover").mkdir()
    (tmp_path / "leftover" / "modules.json").write_text("[]")
    (tmp_path / "leftover").rename(saved / ".embedder-new")  # of an export that was killed
    assert load_retriever_folder(saved, "unknown").embedder.dtype == "float32"
    files.write_json(saved / MODELS_FILE, {"dtype": "bfloat16"})
    embedder = load_retriever_folder(saved, "unknown").embedder
    assert (embedder.path, embedder.dtype) == (saved / "embedder", "bfloat16")


def test_what_an_iteration_learned_from_is_in_its_data_and_that_of_the_earlier_ones(saved):
    run, titles = saved.parents[1], [contract.title for contract in SAMPLE]
    for n, (iteration, name) in enumerate([(1, "train"), (2, "dev"), (3, "train"), (1, "dev_questions"), (2, "test")]):
        files.write_jsonl(run / f"iter-{iteration:02}" / "data" / f"{name}.jsonl", [{"contract": titles[n]}])
    learned = learned_in_data(run / "iter-02")
    assert learned == {titles[0]: TRAINED, titles[1]: TUNED, titles[3]: TUNED}
    assert learned_in_data(run) == {}
    # a copy under another title counts as learned from, too
    copy = contracts.Contract("Another Title", SAMPLE[0].text)
    known = known_contracts([SAMPLE[1], copy, SAMPLE[5]], learned, {titles[0]: SAMPLE[0].text})
    assert list(known) == [titles[1], "Another Title"] and known[titles[1]] == TUNED
    assert known["Another Title"] == f"shares half its wording with '{titles[0]}', {TRAINED}"


def test_overlapping_passages_give_the_text_back():
    for overlap in (0, 1 / 4, 0.5, 0.75):
        for contract in SAMPLE:
            passages = cut_passages(contract.text, contract="c", size=500, overlap=overlap)
            assert join_passages(passages) == (contract.text, 0)
