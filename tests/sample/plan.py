"""The plan of the sample: which deal carries which categories, where clauses stand, what fills the slots."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from deals import DUPLICATES, LICENSED, TYPES

# How many of the 37 deals carry each category ("doc" and "parties": all), and which category it presupposes.
WANTED = dict(
    date=33,
    eff=28,
    exp=31,
    law=34,
    lic=17,
    cap=18,
    aa=26,
    renew=16,
    notice=12,
    mfn=6,
    nc=10,
    excl=14,
    nsc=6,
    nse=7,
    nd=6,
    tfc=16,
    rofr=7,
    coc=9,
    rev=13,
    price=6,
    min=13,
    vol=7,
    ipa=12,
    jip=5,
    nt=11,
    all=5,
    ale=6,
    unl=5,
    irr=7,
    esc=5,
    post=15,
    audit=16,
    unc=8,
    ld=7,
    war=11,
    ins=14,
    cns=8,
    tpb=6,
    cre=8,
)
NEEDS = dict(renew="exp", notice="renew", nt="lic", all="lic", ale="lic", unl="lic", irr="lic", unc="cap", esc="lic")
# Categories kept to the contract types that carry one of these tags.
TAGGED = dict(lic="rfdt", vol="rhsg", rev="rdgs", min="grs", cns="rdt", war="gs", mfn="gs", unl="t", irr="t")

# The order in which clauses are written, and the section each belongs to.
SECTION = dict(
    eff="defs",
    excl="scope",
    rofr="scope",
    mfn="money",
    rev="money",
    price="money",
    min="money",
    vol="money",
    lic="ip",
    nt="ip",
    all="ip",
    ale="ip",
    unl="ip",
    irr="ip",
    esc="ip",
    ipa="ip",
    jip="ip",
    cns="ip",
    war="war",
    nc="cov",
    nsc="cov",
    nse="cov",
    nd="cov",
    audit="ins",
    ins="ins",
    cap="liab",
    unc="liab",
    ld="liab",
    exp="term",
    renew="term",
    tfc="term",
    post="term",
    coc="gen",
    aa="gen",
    tpb="gen",
    law="gen",
)
# Where a clause may stand instead, now and then: CUAD's clauses are not always under the heading one expects.
ELSEWHERE = dict(
    law="term",
    mfn="gen",
    nse="gen",
    tfc="gen",
    coc="term",
    rev="scope",
    min="scope",
    audit="money",
    cap="gen",
    ld="term",
    war="perf",
    ins="liab",
    tpb="liab",
    aa="cov",
    rofr="ip",
    nd="gen",
)

WORDS = {
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    7: "seven",
    8: "eight",
    9: "nine",
    10: "ten",
    12: "twelve",
    15: "fifteen",
    18: "eighteen",
    20: "twenty",
    24: "twenty-four",
    25: "twenty-five",
    30: "thirty",
    36: "thirty-six",
    40: "forty",
    45: "forty-five",
    50: "fifty",
    60: "sixty",
    75: "seventy-five",
    80: "eighty",
    90: "ninety",
    100: "one hundred",
    120: "one hundred twenty",
    150: "one hundred fifty",
    180: "one hundred eighty",
}
COUNTS = dict(
    days=(10, 15, 20, 30, 45, 60, 75, 90, 120, 180),
    months=(6, 9, 12, 18, 24, 36),
    years=(2, 3, 4, 5, 7, 10),
    ryears=(2, 3, 5),
    pct=(3, 4, 5, 6, 8, 10, 12, 15, 20, 25),
    pct100=(50, 75, 100, 150),
    hours=(20, 40, 60, 80, 120, 180),
)
LISTS = dict(
    smoney=("$95", "$140", "$180", "$225", "$310", "$475"),
    omoney=("$1,500", "$2,500", "$4,000", "$7,500", "$10,000"),
    money=("$50,000", "$75,000", "$120,000", "$150,000", "$240,000", "$300,000", "$400,000"),
    bmoney=("$500,000", "$1,000,000", "$1,500,000", "$2,000,000", "$3,000,000", "$5,000,000"),
    units=("120", "250", "400", "750", "1,200", "2,500", "5,000", "10,000"),
    nth=("second", "third", "fourth", "fifth", "sixth", "tenth"),
)


def read_deals() -> list[dict[str, str]]:
    """Return the deals as dictionaries, with what is supplied and licensed in each."""
    with Path(__file__).with_name("deals.csv").open(newline="", encoding="utf-8") as table:
        deals = list(csv.DictReader(table))
    for deal in deals:
        goods, lic = TYPES[deal["type"]][2:4]
        if deal["type"] == "License Agreement":
            lic, goods = LICENSED.get(deal["doc"].split()[0], (lic, goods))
        made_by_licensee = deal["type"] == "License Agreement" and goods == "Licensed Products"
        deal.update(goods=goods, lic=lic, gfield=deal["cfield" if made_by_licensee else "field"])
    return deals


def able(code: str, deal: dict[str, str], active: set[str]) -> bool:
    """Say whether a deal with these categories can carry one more."""
    tags = TYPES[deal["type"]][5]
    if code == "esc" and not any(word in deal["lic"] + deal["field"] for word in ("oftware", "games", "inspection")):
        return False
    if code == "unl" and "Marks" in deal["lic"]:
        return False
    if code == "cre" and not active & {"nc", "excl", "nsc"}:
        return False
    return NEEDS.get(code, "doc") in active and bool(set(TAGGED.get(code, tags)) & set(tags))


def must(code: str, deal: dict[str, str], active: set[str]) -> bool:
    """Say whether the deal makes no sense without the category."""
    return (
        (code == "lic" and deal["type"] in ("License Agreement", "Franchise Agreement"))
        or (code in ("exp", "rev", "nc") and deal["type"] == "Franchise Agreement")
        or (code == "exp" and deal["type"] == "Supply Agreement")
        or (code == "eff" and "date" not in active)
        or (code == "excl" and "Exclusive" in deal["doc"])
        or (code == "jip" and "Joint" in deal["doc"])
    )


def choose(deals: list[dict[str, str]]) -> list[set[str]]:
    """Deal the categories out: each to its wanted number of contracts, poorer contracts first."""
    rng, active = random.Random("categories"), [{"doc", "parties"} for _ in deals]
    first = ["date", "exp", "lic", "cap"]
    for code in first + [code for code in WANTED if code not in first]:
        ranks = []
        for i, deal in enumerate(deals):
            rank = (not must(code, deal, active[i]), len(active[i]) + 7 * rng.random(), i)
            if able(code, deal, active[i]):
                ranks.append(rank)
        for _, _, i in sorted(ranks)[: WANTED[code]]:
            active[i].add(code)
    return active


def jobs() -> list[tuple[dict, set[str], str]]:
    """Return (deal, categories, key of its random choices) per contract; near-duplicates come last."""
    deals = read_deals()
    active = choose(deals)
    twins = []
    for like, changes, dropped, added in DUPLICATES:
        deals[like]["roles"] = True
        twins.append(({**deals[like], **changes}, (active[like] - set(dropped)) | set(added), str(like)))
    return [(deal, active[i], str(i)) for i, deal in enumerate(deals)] + twins
