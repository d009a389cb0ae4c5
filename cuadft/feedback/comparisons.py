"""Comparisons of two answers in the words of other tools and projects, as votes.

    reading = Reading(comparisons, means=["Antwort 1=a"])
    reading.vote(comparisons[0])   # {"answer_a": "Ohio", "answer_b": "Texas", "verdict": "a", ...}

A control is what an annotator says something with: a tag of Label Studio, a question of Argilla, a column such as
winner. Its words are taken for what they plainly say ("Response 1 is better", "model_b", "tie (bothbad)"), else for
what the user says that they mean. Two ratings, one of each answer, are compared. Where words of a control are not
understood, its ties are not taken either, and its other votes only if both sides are understood: what is left would
be a selection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import fold, fold_letters, fold_name
from cuadft.feedback.conversations import prompt_and_answer, prompt_of
from cuadft.feedback.records import OTHER_SIDE, VERDICTS
from cuadft.feedback.training_questions import RowRefused

SIDES = dict.fromkeys(("a", "left", "1", "first"), "a") | dict.fromkeys(("b", "right", "2", "second"), "b")
ANSWERS = frozenset("answer response text txt output completion candidate reply generation conversation".split())
FILLERS = ANSWERS | frozenset("the is are was it they i s one option model assistant side choice about".split())
BETTER = frozenset(
    "better best winner wins win won preferred prefer chosen much slightly significantly clearly".split()
)
WORSE = frozenset(("worse", "worst", "rejected", "loses"))
RATINGS = frozenset("rating ratings rate score stars grade points winner quality".split())
PLAIN = {  # verdict -> what says it, without FILLERS
    "tie": "(a )?(tied?|draw)( b)?|(roughly )?(equal(ly)?|same|similar)( good)?|no (preference|difference)|"
    "(tie )?(both|all) ?(equal(ly)? )?(good|correct|right|fine|acceptable)",
    "both_wrong": "(tie )?((both|all) ?(equal(ly)? )?|equally )(bad|wrong|incorrect|poor|unacceptable)|"
    "(neither|none) (good|correct|right|acceptable)",
    "skip": "skip(ped)?|unsure|not sure|unclear|(can t|cannot|can not|don t) (decide|say|tell|choose|judge|know)|n a",
}
PLAINEST = ("left", "right", "tie", "both_wrong", "skip")
SIGNS = (("a (?:bit|little|lot) ", ""), (">+", " better than "), ("<+", " worse than "), ("[=≈]+", " tie "))
NAMED = [["answer_a", "answer_b"], ["text1", "text2"]]  # columns of answers that are no guess
NO_ANSWERS = "no two answers are found in it: fill them in and name their columns answer_a and answer_b"


@dataclass(frozen=True)
class Comparison:
    """Hold what one person says on one pair of answers.

    row: data of the pair, and annotator, time, seconds, comment and edited where they are known. said: control -> its
    words, and as floats its ratings. shown: control -> the names of what it is about, "text1,text2". refused: why it
    makes no vote.
    """

    where: str
    row: Mapping[str, Any]
    said: Mapping[str, Sequence[str | float]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


def sided(name: str) -> tuple[str, str]:
    """Return a name without the part that says a side, and the side: "answer1_rating" -> ("answer rating", "a")."""
    parts = _tokens(name)
    sides = [SIDES[part] for part in parts if part in SIDES]
    return " ".join(part for part in parts if part not in SIDES), sides[0] if len(sides) == 1 else ""


def is_of_a_side(name: str, kind: Set[str]) -> bool:
    """Tell whether a column's name is that of one of two answers (kind ANSWERS) or of its rating (RATINGS)."""
    stem, side = sided(name)
    words = set(stem.split())
    return bool(side and kind & words) and (kind is RATINGS or not RATINGS & words)


def plain_verdict(words: str) -> str | None:
    """Return the verdict that words plainly say, None where they do not."""
    for sign, said in SIGNS:
        words = re.sub(sign, said, words)
    parts = _tokens(words)
    phrase = " ".join(part for part in parts if part not in FILLERS)
    if verdict := next((v for v, said in PLAIN.items() if re.fullmatch(said, phrase)), None):
        return verdict
    rest = [part for part in phrase.partition(" than")[0].split() if part not in BETTER | WORSE]
    side = SIDES.get(rest[0]) if len(rest) == 1 else None
    return OTHER_SIDE[side] if side and WORSE & set(parts) else side


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).casefold())


class Reading:
    """Say what the controls of a file mean."""

    def __init__(self, comparisons: Sequence[Comparison], *, means: Sequence[str] = ()) -> None:
        """Hear all that is said; means: "Antwort 1=a". Raises InputError on means of another form."""
        self.means = {fold(words): verdict.strip() for words, _, verdict in (one.rpartition("=") for one in means)}
        for words, verdict in self.means.items():
            if not words or verdict not in VERDICTS:
                raise InputError(f"Invalid meaning {words}={verdict}: give WORDS=V with V of {', '.join(VERDICTS)}.")
        heard: dict[str, dict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))  # control -> word
        for one in comparisons:
            for control, word, verdict in self._said(one):
                heard[control][word].add(verdict)
        self.unknown = {control: self._not_understood(words) for control, words in heard.items()}
        self.taken = {control: self._taken(words, self.unknown[control]) for control, words in heard.items()}

    def _not_understood(self, words: Mapping[str, set[str | None]]) -> list[str]:
        """Return the words of a control that say nothing: 1 and 2 do, but not among other numbers."""
        numbers = {word for word in words if fold_letters(word).isdigit() and fold(word) not in self.means}
        odd = numbers if set(map(fold_letters, numbers)) != {"1", "2"} else ()
        return [word for word, verdicts in words.items() if None in verdicts or word in odd]

    def _taken(self, words: Mapping[str, set[str | None]], unknown: Sequence[str]) -> set[str]:
        """Return the verdicts that are taken from a control; beside an odd letter or number A and B are grades."""
        both_sides = {"a", "b"} <= set().union(*words.values()) and all(len(word) > 1 for word in unknown)
        return {"a", "b"} if unknown and both_sides else set() if unknown else set(VERDICTS)

    def vote(self, one: Comparison) -> dict[str, Any]:
        """Return answers, verdict, systems and prompt of a comparison, and in words what was guessed (`guesses`).

        Raises RowRefused where nothing or several things are selected, where words are not understood, and without two
        answers.
        """
        if one.refused:
            raise RowRefused(one.refused)
        said = list(self._said(one))
        votes = [(c, w, v) for c, w, v in said if v in self.taken[c] and w not in self.unknown[c]]
        sure = [(c, w, v) for c, w, v in votes if fold_name(w) in PLAINEST]  # other controls may say something else
        votes = sure or votes + [(control, "its ratings", verdict) for control, verdict in _rated(one)]
        verdicts = sorted({verdict for *_, verdict in votes})
        if len(verdicts) != 1:
            raise RowRefused(self._why_not(said, verdicts))
        names = _answer_names(one.row, next((one.shown[c] for c, *_ in votes if one.shown.get(c)), ""))
        (before, answer_a), (_, answer_b) = (prompt_and_answer(one.row, name) for name in names)
        guesses = [f"{c} {w!r} = {v}" for c, w, v in votes if fold_name(w) not in (*PLAINEST, "a", "b")]
        guesses += [] if names in NAMED else [f"answers = columns {' and '.join(names)}"]
        found = {"answer_a": answer_a, "answer_b": answer_b, "verdict": verdicts[0], "guesses": tuple(guesses)}
        found |= {f"system_{side}": _system(one.row, side) for side in "ab"} | {"edited": one.row.get("edited") or None}
        with suppress(RowRefused):  # what stands beside the answers is not always a prompt
            found |= prompt_of(one.row, before, [answer_a, answer_b])
        return found

    def _why_not(self, said: Sequence[tuple[str, str, str | None]], verdicts: Sequence[str]) -> str:
        if verdicts:
            what = ", ".join(f"{control} {word[:40]!r}" for control, word, _ in said)
            return f"it selects {' and '.join(verdicts)} at once ({what}): name one with --verdict"
        if not (odd := [(control, word) for control, word, _ in said if self.unknown[control]]):
            return "nothing is selected in it"
        control, word = odd[0]
        odd = self.unknown[control][0] if word not in self.unknown[control] else word
        beside = "" if odd == word else f", beside {odd[:40]!r}"
        advice = f"say what it means, such as --means {odd[:40] + '=a'!r}"
        return f"its {control} says {word[:40]!r}{beside}, which is not understood: {advice}"

    def _said(self, one: Comparison) -> Iterator[tuple[str, str, str | None]]:
        """Yield what a comparison says: the control, its word and the word's verdict. A rating alone has none."""
        for control, words in one.said.items():
            for word in words:
                rates = isinstance(word, float)
                yield control, f"{word:g}" if rates else word, None if rates else self._verdict(word, one, control)

    def _verdict(self, word: str, one: Comparison, control: str) -> str | None:
        """Return what a word means: what the user says, whose name it is, or what it plainly says."""
        if fold(word) in self.means or fold_name(word) in VERDICTS:
            return self.means.get(fold(word), fold_name(word))
        shown = one.shown.get(control, "").split(",")
        key, plain, names = fold_letters(word), plain_verdict(word), shown if len(shown) == 2 else ("", "")
        called = {side: (name, _system(one.row, side)) for side, name in zip("ab", names, strict=True)}
        own = {side for side, names in called.items() if key in map(fold_letters, names)}
        found = own | ({plain} if plain in ("a", "b") or not own else set())
        return found.pop() if len(found) == 1 else None


def _rated(one: Comparison) -> Iterator[tuple[str, str]]:
    """Yield each rating of both answers with its verdict. The control's name, or that of what it shows, says a side."""
    rated: dict[str, dict[str, float]] = defaultdict(dict)
    for control, words in one.said.items():
        stem, side = sided(control)
        stem, side = (stem, side) if side else ("rating", sided(one.shown.get(control, ""))[1])
        if side and len(words) == 1 and isinstance(words[0], float):
            rated[stem][side] = words[0]
    for stem, by_side in rated.items():
        if len(by_side) == 2:
            yield stem, "tie" if by_side["a"] == by_side["b"] else max(by_side, key=by_side.__getitem__)


def _answer_names(row: Mapping[str, Any], shown: str) -> list[str]:
    """Return the columns of the left and the right answer: those that are shown, else the only two that are alike."""
    names = {fold_letters(name): name for name, value in row.items() if str(value or "").strip()}
    for asked in (shown.split(","), NAMED[0]):
        found = [names.get(fold_letters(name)) for name in asked]
        if len(found) == 2 and all(found):
            return found
    by_stem: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names.values():
        if is_of_a_side(name, ANSWERS):
            by_stem[sided(name)[0]][sided(name)[1]] = name
    turned = "ba" if sided(shown.partition(",")[0])[1] == "b" else "ab"  # what stands on the left
    pairs = [[sides[side] for side in turned] for sides in by_stem.values() if len(sides) == 2]
    if len(pairs) == 1:
        return pairs[0]
    raise RowRefused(f"{NO_ANSWERS}, not {' and '.join(map(str, pairs))}" if pairs else NO_ANSWERS)


def _system(row: Mapping[str, Any], side: str) -> str:
    return next((str(row[name]) for name in (f"system_{side}", f"model_{side}") if isinstance(row.get(name), str)), "")
