"""Properties of the dev metric: it is the search's own, on contracts drawn once."""

import numpy as np
import small

from cuadft.data.passages import cut_passages
from cuadft.retrieval.finetune import DevHits

PASSAGES = {title: cut_passages(text, contract=title, size=100) for title, text in small.TEXTS.items()}


class Oracle:
    """Stand in for a SentenceTransformer that puts a question beside the passages which hold its clause."""

    def __init__(self, right: bool) -> None:
        import torch

        self.right, self.device = right, torch.device("cpu")

    def encode(self, texts, **options):
        assert options["normalize_embeddings"]
        keys = ("govern", "audit", "liability", "renewal")
        vectors = np.array([[float(key in text.lower()) for key in keys] + [0.1] for text in texts], np.float32)
        if not self.right:
            vectors = np.array(
                [[1.0] + [0.0] * 4 if "?" in t else [float(n), 1.0, 0, 0, 0] for n, t in enumerate(texts)], np.float32
            )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_model_that_knows_the_answers_scores_one_and_another_less():
    measure = DevHits(small.ROWS, PASSAGES)
    right, wrong = measure(Oracle(True)), measure(Oracle(False))
    assert set(right) == {"dev_hit@1", "dev_hit@3", "dev_char_recall@1", "dev_char_recall@3"}
    assert right["dev_hit@3"] == 1.0 and right["dev_hit@1"] > wrong["dev_hit@1"]


def test_it_embeds_no_more_passages_than_asked_and_at_least_one_contract():
    sizes = [len(own) for own in PASSAGES.values()]
    some = DevHits(small.ROWS, PASSAGES, most=max(sizes) * 2)
    assert max(sizes) < len(some.passages) <= max(sizes) * 2
    assert {row["contract"] for row in some.rows} == {passage.contract for passage in some.passages}
    assert len({passage.contract for passage in DevHits(small.ROWS, PASSAGES, most=1).passages}) == 1


def test_long_contracts_come_last():
    longer = PASSAGES | {
        "Acme Distribution Agreement": cut_passages(small.TEXTS["Acme Distribution Agreement"], size=30)
    }
    others = sum(len(own) for own in PASSAGES.values()) - len(PASSAGES["Acme Distribution Agreement"])
    for seed in range(5):
        drawn = {row["contract"] for row in DevHits(small.ROWS, longer, most=others, seed=seed).rows}
        assert len(drawn) >= 2 and "Acme Distribution Agreement" not in drawn


def test_the_key_names_rows_and_passages():
    keys = {
        DevHits(small.ROWS, PASSAGES).key,
        DevHits(small.ROWS, PASSAGES, seed=8, most=1).key,
        DevHits(small.ROWS[:4], PASSAGES).key,
    }
    assert len(keys) == 3 and DevHits(small.ROWS, PASSAGES).key in keys
