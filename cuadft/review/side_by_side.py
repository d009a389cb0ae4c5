"""Hold two reviewed contracts against each other: which clauses one has and the other lacks.

for group in compared_reviews(one, other):
    print(group.heading, [category for category, *_ in group.pairs])
"""

from __future__ import annotations

from dataclasses import dataclass

from cuadft.review.reviewer import Finding, Review

_BOTH, _ONE, _OTHER, _CHECK, _NEITHER = "both", "one", "other", "check", "neither"


@dataclass(frozen=True)
class Group:
    """The clauses that stand alike in two contracts; pairs: (category, finding of one, finding of the other)."""

    kind: str
    heading: str
    pairs: tuple[tuple[str, Finding, Finding], ...]


def compared_reviews(one: Review, other: Review) -> list[Group]:
    """Return the clauses of two reviews in groups, the differences first; groups without a clause are left out.

    A clause counts as there if its finding is sure and as lacking if it is absent; everything else is to be checked.
    Only questions that both were asked are compared.
    """
    others = {found.question: found for found in other.findings}
    pairs = [(found.category, found, others[found.question]) for found in one.findings if found.question in others]
    headings = {
        _ONE: f"Only in {one.document.name}",
        _OTHER: f"Only in {other.document.name}",
        _CHECK: "To be checked: unsure in one or both",
        _BOTH: "In both",
        _NEITHER: "In neither",
    }
    grouped = {kind: tuple(pair for pair in pairs if _kind(pair[1], pair[2]) == kind) for kind in headings}
    return [Group(kind, headings[kind], found) for kind, found in grouped.items() if found]


def compared_text(one: Review, other: Review) -> str:
    """Return the comparison as lines for a terminal."""
    groups = compared_reviews(one, other)
    return "\n".join(f"{each.heading}: {', '.join(category for category, *_ in each.pairs)}" for each in groups)


def _kind(one: Finding, other: Finding) -> str:
    states = one.state, other.state
    known = {("sure", "sure"): _BOTH, ("sure", "absent"): _ONE, ("absent", "sure"): _OTHER}
    return (known | {("absent", "absent"): _NEITHER}).get(states, _CHECK)
