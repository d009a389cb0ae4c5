"""A notebook widget in which a person judges pairs of answers by keyboard or mouse.

    Annotate(tasks, Store(run / "feedback.sqlite"), annotator="anna")

Each judgement goes to the store at once. What is done is read from the store, so that a notebook that is run again goes
on where it was. The annotator judges blind: the browser is sent one pair at a time, without the systems' names, the
scores, and the reason why the pair is asked, which may say what a judge prefers. `pair_screen` makes what the browser
gets: the question, stretches of the contract with the cited words, and two nameless answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
from traitlets import Dict, Unicode

from cuadft.core.errors import InputError, brief
from cuadft.core.text import without_surrogates
from cuadft.data.passages import join_pieces
from cuadft.data.schema import Schema, packaged_schema
from cuadft.feedback.agreement import PAIR_COLUMNS, annotator_agreement
from cuadft.feedback.records import OTHER_SIDE, pair_key
from cuadft.feedback.store import Store

_NOTHING_LOST = "Nothing before it is lost; this pair stays until its verdict is saved."


class Annotate(anywidget.AnyWidget):
    """Ask an annotator to judge pairs of answers.

    tasks: as `tasks.choose_tasks` makes them. store: where the judgements go. annotator: a name; if it is empty, the
    widget asks for it. The order of the two answers on screen is drawn for each annotator and pair from `seed`. schema:
    whose words the screen takes; None is CUAD's.
    """

    _esm = "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in ("screens.js", "widget.js"))
    _css = Path(__file__).with_name("widget.css")
    annotator = Unicode()
    screen = Dict().tag(sync=True)  # what is shown; set whole, so that a reloaded page finds it
    words = Dict().tag(sync=True)  # for a document and for what a question asks for, and the refusal
    draft = Dict().tag(sync=True)  # the unsaved edit, span and comment of the pair shown, written by the browser

    def __init__(
        self,
        tasks: Sequence[Mapping[str, Any]],
        store: Store,
        annotator: str = "",
        seed: int = 0,
        schema: Schema | None = None,
    ) -> None:
        super().__init__(annotator=" ".join(annotator.split()), words=(schema or packaged_schema()).naming)
        self._tasks = {pair_key(task): task for task in tasks}
        self._store, self._seed = store, seed
        self._shown: str | None = None  # key of the pair on screen
        self._ticket = self._reply = 0  # both count up: the ticket with each pair shown, the reply with each message
        self._show()
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """Return the text that a page without a live kernel shows in the widget's place."""
        done = self.progress
        return f"Annotate({done['total']} pairs of answers, {done['done']} judged by {self.annotator or 'nobody yet'})"

    @property
    def progress(self) -> dict[str, Any]:
        """Return the pairs done, skipped and left, and the agreement with the other annotators in words."""
        return self.screen["progress"]

    def _receive(self, _: object, message: Any, __: object) -> None:
        """Act on a message of the browser; show an error in the widget, for a callback has no cell to fail in."""
        self._reply += 1
        try:
            self._act(message)
        except Exception as error:
            text = str(error) if isinstance(error, InputError) else brief(error)
            self.screen = self.screen | {"reply": self._reply, "error": f"{text}\n{_NOTHING_LOST}"}

    def _act(self, message: Mapping[str, Any]) -> None:
        act = message.get("act")
        if act == "name":
            self.annotator = " ".join(str(message.get("name", "")).split())
            return self._show()
        if message.get("ticket") != self._ticket:  # a key pressed twice: the second was meant for the pair before
            return self._show(stay=True)
        if act == "judge" and self._shown:
            self._judge(message)
            return self._show()
        if act == "undo":
            return self._undo()
        raise InputError(f"Invalid message {act!r} from the browser: reload the page, then run the cell again.")

    def _judge(self, message: Mapping[str, Any]) -> None:
        """Store the annotator's judgement on the pair shown."""
        task = self._tasks[self._shown]
        first = first_shown(task, self.annotator, self._seed)
        sides = {"left": first, "right": OTHER_SIDE[first]}
        verdict, edited = message.get("verdict"), message.get("edited")
        verdict = sides.get(verdict, verdict)
        if edited and verdict in OTHER_SIDE:
            unchanged = edited.split() == without_surrogates(task[f"answer_{verdict}"]).split()
            edited = None if unchanged else edited
        said = {"annotator": self.annotator, "shown_first": first, "verdict": verdict, "edited": edited}
        said |= {key: message.get(key) for key in ("span", "comment", "seconds")}
        self._store.add({key: task.get(key) for key in (*PAIR_COLUMNS, "prompt")} | said)

    def _undo(self) -> None:
        """Take back the annotator's last judgement; show its pair again, with what the annotator had written."""
        own = self._own_judgements(self._store.judgements())
        if not own:
            return self._show(stay=True, note="There is nothing to take back.")
        key, last = max(own.items(), key=lambda item: item[1]["time"])
        self._store.undo(last["uid"], self.annotator)
        with self.hold_sync():
            self._show(key, note="Your last verdict is taken back: judge this pair again.")
            places = dict(zip(self.screen["answers"], ("left", "right"), strict=True))
            base = places.get(last.get(f"answer_{last['verdict']}"), "both_wrong")
            kept = {key: last[key] for key in ("edited", "span", "comment")}
            self.draft = kept | {"ticket": self._ticket, "base": base}

    def _own_judgements(self, judgements: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return pair -> the annotator's judgement, for the tasks that the annotator has judged or skipped."""
        made = {pair_key(j): j for j in judgements if j["annotator"] == self.annotator}
        return {key: made[key] for key in self._tasks if key in made}

    def _show(self, key: str | None = None, *, stay: bool = False, note: str = "") -> None:
        """Show the pair `key`, or the first pair that is left to judge; with `stay` the pair on screen remains."""
        judgements = self._store.judgements()
        own = self._own_judgements(judgements)
        if not stay:
            self._shown = key or next((pair for pair in self._tasks if pair not in own), None)
            self._ticket += 1
        skipped = sum(judgement["verdict"] == "skip" for judgement in own.values())
        agreement = str(annotator_agreement(judgements, n_resamples=0))
        counts = {"total": len(self._tasks), "done": len(own), "skipped": skipped, "agreement": agreement}
        base = {"reply": self._reply, "ticket": self._ticket, "note": note, "error": ""}
        base |= {"annotator": self.annotator, "progress": counts}
        if not self.annotator:
            self.screen = base | {"kind": "name", "names": sorted({j["annotator"] for j in judgements})}
        elif self._shown is None:
            self.screen = base | {"kind": "end"}
        else:
            task = self._tasks[self._shown]
            self.screen = base | pair_screen(task, first_shown(task, self.annotator, self._seed))


def first_shown(task: Mapping[str, Any], annotator: str, seed: int) -> str:
    """Return which answer, "a" or "b", stands first: drawn for each annotator and pair, the same each time.

    The draw depends on the answers and not on their letters: with a and b swapped the pair looks the same on screen.
    """
    sides = sorted("ab", key=lambda side: (task[f"system_{side}"], task[f"answer_{side}"]))
    drawn = hashlib.sha256("\0".join([str(seed), annotator, pair_key(task)]).encode(errors="surrogatepass")).digest()
    return sides[drawn[0] % 2]


def pair_screen(task: Mapping[str, Any], first: str) -> dict[str, Any]:
    """Return the pair as the browser gets it, with answer `first` ("a" or "b") on the left; offsets are the contract's.

    stretches: joined passages, each {"start", "end", "pieces": [[text, start, tone]]}; the tone says which answer cites
    a piece: "left", "right", "both" or "". cites: for each answer the number of spans that it cites.
    """
    order = [first, OTHER_SIDE[first]]
    spans = [list(task.get(f"spans_{side}") or []) for side in order]
    stretches = [
        {"start": start, "end": start + len(text), "pieces": screen_pieces(text, start, *spans)}
        for start, text in join_pieces((passage["start"], passage["text"]) for passage in task["passages"])
    ]
    return {
        "kind": "pair",
        "contract": without_surrogates(task["contract"]),
        "question": without_surrogates(task["question"]),
        "answers": [without_surrogates(task[f"answer_{side}"]) for side in order],
        "stretches": stretches,
        "cites": list(map(len, spans)),
    }


def screen_pieces(
    text: str, start: int, left: Sequence[Sequence[int]], right: Sequence[Sequence[int]]
) -> list[list[Any]]:
    """Return `text`, which begins at offset `start` of the contract, cut where a cited span begins or ends."""
    end = start + len(text)
    edges = sorted({start, end} | {edge for span in [*left, *right] for edge in span[:2] if start < edge < end})
    tones = {(True, True): "both", (True, False): "left", (False, True): "right", (False, False): ""}
    pieces = []
    for a, b in zip(edges, edges[1:], strict=False):
        cited = tuple(any(span[0] <= a < span[1] for span in spans) for spans in (left, right))
        pieces.append([without_surrogates(text[a - start : b - start]), a, tones[cited]])
    return pieces
