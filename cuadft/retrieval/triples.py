"""Training examples for the embedder: a question, a passage that answers it, and one that only looks as if it did.

`make_triples` draws the examples, `GoldLabels` knows from the gold spans which passages answer what, and
`batch_schedule` plans batches. The loss takes all other passages of a batch as negatives, so that a batch must not hold
two examples that answer each other's question. For example:

    own = passages_by_contract(passages)
    examples = make_triples(train_rows, own, negatives_from=[Retriever(passages, None, mode="bm25")])
    batches = batch_schedule(examples, size=20, steps=250, seed=7)  # lists of indexes of examples
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, cycle, islice
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import fold
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, gold_shares
from cuadft.data.rows import is_annotated, is_original, take_turns
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.retriever import Retriever

Search = tuple[int, str, str | None]  # number of the retriever, question, contract (None: in the other contracts)

POSITIVE_SHARE = 0.4  # share of a span in the passage, or of the passage in a span, that makes the passage a positive
EVENNESS = 0.6  # a category's examples grow with its rows to this power: rare clauses come more often than they occur
ELSEWHERE_SHARE = 0.25  # share of the negatives that come from other contracts
HARDEST_PASSAGES = 6  # a negative is drawn from so many of the best passages that do not answer
SEARCH_DEPTH = 24  # passages searched for a negative, besides those that may answer
MINED_CONTRACTS = 60  # training contracts in which embeddings look for negatives
LONG_SPAN = 40  # a gold span of so many characters answers wherever it stands word for word


def make_triples(
    rows: Iterable[Row],
    passages_by_contract: Mapping[str, Sequence[Passage]],
    *,
    negatives_from: Sequence[Retriever],
    per_category: int = 120,
    seed: int = 7,
    held_out: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return about per_category * categories examples of train rows, in order of category; the seed decides the draw.

    Example: query, positive, negative (texts), category, contract, negative_from (the mode of the retriever that
    found it), negative_contract, answers (the categories whose gold spans either passage touches).

    A positive holds POSITIVE_SHARE of a gold span, or is filled by one to that share: each of several spans, and each
    passage of a long span, has its turn. A negative is among the best that a retriever of `negatives_from` finds for
    the question, in the row's contract or in others. It touches no gold span of the category and repeats none word for
    word; another contract must be labelled for the category to give negatives. Unanswerable rows give no example, but
    say that their contract lacks the clause. held_out: titles of held-out contracts. Raises InputError on a row from a
    held-out contract, if no passage holds a gold span, and if no negative is found. Mined negatives: Xiong et al.
    (2021), "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval", section 4.
    """
    rows, rng = list(rows), random.Random(seed)
    _refuse_held_out(rows, held_out)
    drawn = _draw(rows, passages_by_contract, per_category, rng)
    labels, negatives = GoldLabels(rows), _Negatives(negatives_from, rows)
    plans = [
        negatives.searches(row, n % len(negatives_from), elsewhere=rng.random() < ELSEWHERE_SHARE)
        for n, (row, _) in enumerate(drawn)
    ]
    negatives.run(plan[0] for plan in plans)
    made = [
        _example(row, positive, *found, labels)
        for (row, positive), plan in zip(drawn, plans, strict=True)
        if (found := negatives.pick(row, labels, plan, rng))
    ]
    if made:
        return made
    advice = "give contracts of more than one passage, or leave the embedder as it is (embedder_steps 0)"
    raise InputError(f"No passage looks like an answer without being one: {advice}")


def _refuse_held_out(rows: Sequence[Row], held_out: Collection[str]) -> None:
    if leaked := sorted({row["contract"] for row in rows} & set(held_out)):
        some = f"{len(leaked)} held-out contracts, such as {leaked[0]!r}"
        raise InputError(f"Among the training rows are {some}: train on rows of the train split only")


def _example(row: Row, positive: Passage, negative: Passage, mode: str, labels: GoldLabels) -> dict[str, Any]:
    """Return one example; mode: that of the retriever which found the negative."""
    answers = {category_of(row)} | labels.touched(positive) | labels.touched(negative)
    return {
        "query": row["question"],
        "positive": positive.text,
        "negative": negative.text,
        "category": category_of(row),
        "contract": row["contract"],
        "negative_from": mode,
        "negative_contract": negative.contract,
        "answers": sorted(answers),
    }


def _draw(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], per_category: int, rng: random.Random
) -> list[tuple[Row, Passage]]:
    """Return (row, positive) pairs: in each category the rows take turns, and in each row its positives do."""
    sources: defaultdict[str, list[tuple[Row, list[Passage]]]] = defaultdict(list)
    for row in rows:
        own = passages.get(row["contract"], ())
        filled = gold_shares(own, row["answers"])
        if good := [passage for passage in own if filled.get(passage.index, 0.0) >= POSITIVE_SHARE]:
            sources[category_of(row)].append((row, good))
    if not sources:
        raise InputError("No passage holds a gold span: give train rows with answers, and passages of their texts")
    weights = {category: len(found) ** EVENNESS for category, found in sources.items()}
    each = per_category * len(weights) / sum(weights.values())
    drawn = []
    for category, found in sorted(sources.items()):
        wanted = max(1, round(each * weights[category]))
        turns = [[(row, one) for one in rng.sample(good, len(good))] for row, good in rng.sample(found, len(found))]
        drawn += take_turns([islice(cycle(own), wanted) for own in turns], wanted)
    return drawn


class _Negatives:
    """The passages that retrievers find for a row's question, each search run once."""

    def __init__(self, retrievers: Sequence[Retriever], rows: Sequence[Row]) -> None:
        self._retrievers = list(retrievers)
        self._held = [{passage.contract for passage in retriever.passages} for retriever in retrievers]
        self._found: dict[Search, list[Passage]] = {}
        self._used: Counter[tuple[str, Passage]] = Counter()
        answered = Counter(category_of(row) for row in rows if row["answers"])
        # in a search over all contracts, a good retriever puts the clauses of all contracts first
        self._depth_elsewhere = SEARCH_DEPTH + 2 * max(answered.values())

    def searches(self, row: Row, first: int, *, elsewhere: bool) -> list[Search]:
        """Return the searches for a row's negative, in the order in which to try them."""
        places = [None, row["contract"]] if elsewhere else [row["contract"], None]
        order = [*range(first, len(self._retrievers)), *range(first)]
        return [(number, row["question"], place) for number in order for place in places]

    def run(self, searches: Iterable[Search]) -> None:
        """Run searches that were not run before, many queries at once."""
        groups: defaultdict[tuple[int, bool], list[tuple[str, str | None]]] = defaultdict(list)
        for number, question, contract in dict.fromkeys(searches):
            known = (number, question, contract) in self._found
            if not known and (contract is None or contract in self._held[number]):
                groups[number, contract is None].append((question, contract))
        for (number, elsewhere), queries in groups.items():
            depth = self._depth_elsewhere if elsewhere else SEARCH_DEPTH
            for query, hits in zip(queries, self._retrievers[number].search_many(queries, k=depth), strict=True):
                self._found[number, *query] = [hit.passage for hit in hits]

    def pick(
        self, row: Row, labels: GoldLabels, plan: Sequence[Search], rng: random.Random
    ) -> tuple[Passage, str] | None:
        """Return the hard negative that this row has had least often, and the mode that found it; None without one."""
        for search in plan:
            self.run([search])
            number, _, contract = search
            found = self._found.get(search, [])
            there = (p for p in found if (p.contract == row["contract"]) == (contract is not None))
            usable = islice((p for p in there if not labels.may_answer(p, row)), HARDEST_PASSAGES)
            for passage in sorted(usable, key=lambda passage: (self._used[row["id"], passage], rng.random())):
                if not labels.repeats(passage, category_of(row)):
                    self._used[row["id"], passage] += 1
                    return passage, self._retrievers[number].settings["mode"]
        return None


def category_of(row: Mapping[str, Any]) -> str:
    """Return a row's category; a row without one (a user's own question) is a category of its own."""
    return row["category"] or row["id"]


class GoldLabels:
    """The gold spans of rows, by contract and category: which passages answer a category, and which might.

    Only rows that a person annotated label a contract for their category, so that all its other passages
    are known not to answer. A generated question or a user's own names one answer, and says nothing of the rest.
    """

    def __init__(self, rows: Iterable[Row]):
        """Take rows, answerable or not."""
        self._spans: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self._labelled: set[tuple[str, str]] = set()
        self._wording: defaultdict[str, set[str]] = defaultdict(set)
        self._touched: dict[Passage, frozenset[str]] = {}
        for row in rows:
            category = category_of(row)
            if is_annotated(row):
                self._labelled.add((row["contract"], category))
            for span in row["answers"]:
                self._spans[row["contract"]].append((span["start"], span["start"] + len(span["text"]), category))
                if len(wording := fold(span["text"])) >= LONG_SPAN:
                    self._wording[category].add(wording)

    def touched(self, passage: Passage) -> frozenset[str]:
        """Return the categories that have a gold span which shares a character with the passage."""
        if passage not in self._touched:
            spans = self._spans.get(passage.contract, ())
            near = (category for start, end, category in spans if start < passage.end and passage.start < end)
            self._touched[passage] = frozenset(near)
        return self._touched[passage]

    def may_answer(self, passage: Passage, row: Row) -> bool:
        """Tell whether a passage answers the row's category, or might because its contract isn't labelled for it.

        In the row's own contract only what its category's spans touch counts as an answer.
        """
        category = category_of(row)
        if passage.contract != row["contract"] and (passage.contract, category) not in self._labelled:
            return True
        return category in self.touched(passage)

    def repeats(self, passage: Passage, category: str) -> bool:
        """Tell whether a long gold span of the category, of any contract, stands in the passage word for word."""
        text = fold(passage.text)
        return any(wording in text for wording in self._wording.get(category, ()))


def plan_batches(triples: Sequence[Mapping[str, Any]], *, size: int, seed: int) -> list[list[int]]:
    """Return one pass over the triples, as indexes: at most `size` a batch, each category spread evenly over it.

    A batch holds a category once, and no passage that answers another example's category (`answers`, as
    `make_triples` gives them): CUAD asks 41 questions over and over, so that a random batch would teach that right
    answers are wrong. Batches of less than three quarters of the largest are left out: the examples left at the end are
    of categories whose answers stand together, such as the parties and the date.
    """
    waiting, made = _evenly(triples, random.Random(seed)), []
    while waiting:
        batch, asked, answered = [], set(), set()
        for index in waiting:
            own, answers = triples[index]["category"], triples[index]["answers"]
            if len(batch) < size and own not in answered and asked.isdisjoint(answers):
                batch.append(index)
                asked.add(own)
                answered.update(answers, [own])
        waiting = [index for index in waiting if index not in batch]
        made.append(batch)
    most = max(map(len, made), default=0)
    return [batch for batch in made if 4 * len(batch) >= 3 * most]


def batch_schedule(triples: Sequence[Mapping[str, Any]], *, size: int, steps: int, seed: int) -> list[list[int]]:
    """Return exactly `steps` batches, in as many passes over the triples as that takes, each drawn anew."""
    planned: list[list[int]] = []
    for number in count():
        planned += plan_batches(triples, size=size, seed=seed * 1000 + number)
        if len(planned) >= steps:
            return planned[:steps]


def _evenly(triples: Sequence[Mapping[str, Any]], rng: random.Random) -> list[int]:
    """Return all indexes in an order in which each category's come at even distances, shuffled within it."""
    by_category: defaultdict[str, list[int]] = defaultdict(list)
    for index, triple in enumerate(triples):
        by_category[triple["category"]].append(index)
    times = {}
    for _, own in sorted(by_category.items()):
        for n, index in enumerate(rng.sample(own, len(own))):
            times[index] = (n + rng.random()) / len(own)
    return sorted(times, key=times.__getitem__)


def mine_triples(
    rows: Sequence[Row], passages_by_contract: Mapping[str, Sequence[Passage]], embed: Embedder, **settings: Any
) -> list[dict[str, str]]:
    """Return training examples as `make_triples`, with hard negatives that two searches take for answers.

    One search goes by words and relevance feedback through all contracts, the other by embeddings through the first
    MINED_CONTRACTS, since embedding passages is what takes time. settings: per_category, held_out and seed.
    """
    contracts = list(passages_by_contract.values())
    everything, some = ([passage for own in contracts[:n] for passage in own] for n in (None, MINED_CONTRACTS))
    feedback = RelevanceFeedback.from_rows([row for row in rows if is_original(row)], embed)
    by_words = Retriever(everything, embed, mode="bm25", feedback=feedback, feedback_weight=0.85)
    by_meaning = Retriever(some, embed, mode="dense")
    return make_triples(rows, passages_by_contract, negatives_from=[by_words, by_meaning], **settings)
