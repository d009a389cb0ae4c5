"""The packaged sample contracts: exact spans, all categories covered, near-duplicates only where meant."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from cuadft.data.cuad import type_in_title

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "cuadft" / "sample"
WRITER = ROOT / "tests" / "sample" / "write_sample.py"
COMMON = {
    "Expiration Date",
    "Renewal Term",
    "Governing Law",
    "Anti-Assignment",
    "Cap On Liability",
    "Audit Rights",
    "License Grant",
    "Termination For Convenience",
    "Insurance",
    "Exclusivity",
    "Post-Termination Services",
    "Minimum Commitment",
    "Warranty Duration",
    "Revenue/Profit Sharing",
    "Non-Compete",
}
SAME_PARTIES_OR_TEMPLATE = [{"CALDERWICK", "FROSTELLA"}, {"REDWILLOW", "LARKSPUR", "OZARK"}]


@pytest.fixture(scope="module")
def contracts() -> list[dict]:
    document = json.loads((SAMPLE / "contracts.json").read_text(encoding="utf-8"))
    return [{"title": entry["title"], **entry["paragraphs"][0]} for entry in document["data"]]


def category(question: dict) -> str:
    return question["id"].rsplit("__", 1)[1]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def test_writer_gives_the_shipped_bytes_with_the_standard_library_alone():
    # -S: no site-packages
    done = subprocess.run([sys.executable, "-S", str(WRITER), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_span_equals_its_text_at_its_offset(contracts):
    for contract in contracts:
        for question in contract["qas"]:
            for answer in question["answers"]:
                start = answer["answer_start"]
                assert contract["context"][start : start + len(answer["text"])] == answer["text"]
                assert answer["text"] == answer["text"].strip() != ""
            assert question["is_impossible"] == (not question["answers"])


def test_41_categories_each_and_unique_ids(contracts):
    ids = [question["id"] for contract in contracts for question in contract["qas"]]
    assert len(ids) == len(set(ids)) == 41 * len(contracts)
    first = [category(question) for question in contracts[0]["qas"]]
    assert len(set(first)) == 41
    for contract in contracts:
        assert [category(question) for question in contract["qas"]] == first
        assert all(question["id"].startswith(contract["title"] + "__") for question in contract["qas"])


def test_questions_are_worded_as_in_cuad(contracts):
    pattern = re.compile(
        r'Highlight the parts \(if any\) of this contract related to "(.+)" that should be reviewed by a '
        r"lawyer\. Details: \S"
    )
    for question in contracts[0]["qas"]:
        assert pattern.match(question["question"])[1] == category(question)


def test_titles_tell_many_contract_types(contracts):
    types = [type_in_title(contract["title"]) for contract in contracts]
    assert all(types) and len(set(types)) >= 8


def test_two_or_three_filers_have_two_contracts(contracts):
    filers = Counter(contract["title"].split("_")[0] for contract in contracts)
    assert len(filers) >= 30 and 2 <= sum(count == 2 for count in filers.values()) <= 3
    assert max(filers.values()) == 2


def test_near_duplicates_are_the_two_intended_groups(contracts):
    texts = {contract["title"]: shingles(contract["context"]) for contract in contracts}
    for one, other in combinations(texts, 2):
        shared = len(texts[one] & texts[other]) / min(len(texts[one]), len(texts[other]))
        meant = any(
            {one, other} <= {t for t in texts if t.startswith(tuple(group))} for group in SAME_PARTIES_OR_TEMPLATE
        )
        assert shared >= 0.5 if meant else shared < 0.25, (one, other, shared)


def test_share_of_answerable_questions_is_like_cuads(contracts):
    answerable = [bool(question["answers"]) for contract in contracts for question in contract["qas"]]
    assert 0.25 <= sum(answerable) / len(answerable) <= 0.45


def test_every_category_is_answerable_in_several_wordings(contracts):
    holders, wordings = Counter(), defaultdict(set)
    for contract in contracts:
        for question in contract["qas"]:
            holders[category(question)] += bool(question["answers"])
            # the first four words, without names and numbers, stand for the phrasing
            wordings[category(question)] |= {
                " ".join(re.findall(r"\b[a-z]+\b", answer["text"])[:4]) for answer in question["answers"]
            }
    assert min(holders.values()) >= 4
    short = {"Document Name", "Parties", "Agreement Date", "Effective Date"}
    assert all(len(found) >= 3 for name, found in wordings.items() if name not in short)
    assert all(len(wordings[name]) >= 6 for name in COMMON)


def test_contracts_look_like_contracts(contracts):
    for contract in contracts:
        text = contract["context"]
        assert 5_000 <= len(text) <= 9_000
        assert not re.search(r"[{}<>|#\[\]\x00-\x09\x0b-\x1f]|  |None", text)  # no mark-up of the writer is left
        assert len(text.split("\n\n")) >= 30


def test_restrictions_come_before_their_exceptions(contracts):
    for contract in contracts:
        starts = {category(q): [a["answer_start"] for a in q["answers"]] for q in contract["qas"]}
        rules = starts["Non-Compete"] + starts["Exclusivity"] + starts["No-Solicit Of Customers"]
        assert all(min(rules) < start for start in starts["Competitive Restriction Exception"])
