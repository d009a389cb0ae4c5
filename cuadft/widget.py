"""A notebook widget in which a person judges pairs of answers by keyboard or mouse; each verdict goes to the store.

    Annotate(tasks, feedback.Store(run / "feedback.sqlite"), annotator="anna")

The browser is sent one pair at a time: no system's name, no score, and not why the pair is asked, since that may say which
answer a judge prefers. What is done is read from the store, so that a notebook that is run again goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
from traitlets import Dict, Unicode

from cuadft import annotators
from cuadft.errors import InputError, brief
from cuadft.feedback import Store, pair_key
from cuadft.judgements import plain
from cuadft.screens import check, pair_screen

OTHER = {"a": "b", "b": "a"}
KEPT = "Nothing before it is lost; this pair stays until its verdict is saved."


class Annotate(anywidget.AnyWidget):
    """Ask an annotator for verdicts on pairs of answers.

    tasks: as `backlog.tasks` makes them; store: where verdicts go; annotator: a name, asked for in the widget if empty.
    The answers' order on screen is drawn for each annotator and pair from `seed`. Raises InputError on a malformed task.
    """

    _esm = "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in ("screens.js", "widget.js"))
    _css = Path(__file__).with_name("widget.css")
    annotator = Unicode()
    screen = Dict().tag(sync=True)  # what is shown; set whole, so that a reloaded page finds it
    draft = Dict().tag(sync=True)  # the unsaved edit, span and comment of the pair shown, written by the browser

    def __init__(self, tasks: Sequence[Mapping[str, Any]], store: Store, annotator: str = "", seed: int = 0) -> None:
        if not isinstance(annotator, str):
            raise InputError(f"Invalid annotator {annotator!r}: give a name as text, or '' to be asked in the widget")
        super().__init__(annotator=" ".join(annotator.split()))
        self._tasks: dict[str, Mapping[str, Any]] = {}
        for number, task in enumerate(tasks):
            check(task, f"Task {number}")
            self._tasks.setdefault(pair_key(task), task)
        self._store, self._seed = store, seed
        self._shown: str | None = None  # key of the pair on screen
        self._ticket = self._reply = 0  # one ticket each time that a pair is shown, one reply to each message
        self._again: list[str] = []  # skipped pairs that are asked once more
        self._show()
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """Say what a page without a live kernel shows."""
        done = self.progress
        return f"Annotate({done['total']} pairs of answers, {done['done']} judged by {self.annotator or 'nobody yet'})"

    @property
    def progress(self) -> dict[str, Any]:
        """Return the pairs done, skipped and left, and the agreement with the other annotators in words."""
        return self.screen["progress"]

    def _receive(self, _: object, message: Any, __: object) -> None:
        """Act on a message of the browser; what goes wrong is shown there, since a callback has no cell to fail in."""
        self._reply += 1
        try:
            self._act(message)
        except Exception as error:
            text = str(error) if isinstance(error, InputError) else brief(error)
            self.screen = self.screen | {"reply": self._reply, "error": f"{text}\n{KEPT}"}

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
        if act == "again":
            self._again = [key for key, j in self._mine(self._store.judgements()).items() if j["verdict"] == "skip"]
            return self._show()
        raise InputError(f"Invalid message {act!r} from the browser: reload the page, then run the cell again")

    def _judge(self, message: Mapping[str, Any]) -> None:
        """Store the verdict on the pair shown."""
        task = self._tasks[self._shown]
        first = first_shown(task, self.annotator, self._seed)
        sides = {"left": first, "right": OTHER[first]}
        verdict, edited = message.get("verdict"), message.get("edited")
        verdict = sides.get(verdict, verdict)
        if edited and verdict in sides.values() and edited.split() == plain(task[f"answer_{verdict}"]).split():
            edited = None  # confirmed as it was
        kept = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b", "prompt")
        self._store.add({key: task.get(key) for key in kept} | {
            "annotator": self.annotator, "shown_first": first, "verdict": verdict, "edited": edited, "source": "widget",
            "span": message.get("span"), "comment": message.get("comment") or "", "seconds": message.get("seconds")})
        self._again = [key for key in self._again if key != self._shown]

    def _undo(self) -> None:
        """Take back the annotator's last verdict on one of the tasks, and show its pair with what had been written."""
        mine = self._mine(self._store.judgements())
        if not mine:
            return self._show(stay=True, note="There is nothing to take back.")
        key, last = max(mine.items(), key=lambda item: item[1]["time"])
        self._store.undo(last["uid"], self.annotator)
        with self.hold_sync():
            self._show(key, note="Your last verdict is taken back: judge this pair again.")
            places = dict(zip(self.screen["answers"], ("left", "right"), strict=True))
            base = places.get(last.get(f"answer_{last['verdict']}"), "both_wrong")
            self.draft = {"ticket": self._ticket, "edited": last["edited"], "base": base, "span": last["span"],
                          "comment": last["comment"] or ""}

    def _mine(self, judgements: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return the annotator's judgement of each task that has one."""
        made = {pair_key(j): j for j in judgements if j["annotator"] == self.annotator}
        return {key: made[key] for key in self._tasks if key in made}

    def _show(self, key: str | None = None, *, stay: bool = False, note: str = "") -> None:
        """Show the pair `key`, or the first one left; `stay` keeps the pair on screen."""
        judgements = self._store.judgements()
        mine = self._mine(judgements)
        skipped = [k for k, j in mine.items() if j["verdict"] == "skip"]
        left = [k for k in self._tasks if k not in mine] + [k for k in self._again if k in skipped]
        if not stay:
            self._shown = key or next(iter(left), None)
            self._ticket += 1
        counts = {"total": len(self._tasks), "done": len(mine), "skipped": len(skipped),
                  "agreement": annotators.in_words(judgements)}
        base = {"reply": self._reply, "ticket": self._ticket, "note": note, "error": "", "annotator": self.annotator,
                "progress": counts}
        if not self.annotator:
            self.screen = base | {"kind": "name", "names": sorted({j["annotator"] for j in judgements})}
        elif self._shown is None:
            self.screen = base | {"kind": "end"}
        else:
            task = self._tasks[self._shown]
            self.screen = base | pair_screen(task, first_shown(task, self.annotator, self._seed))


def first_shown(task: Mapping[str, Any], annotator: str, seed: int) -> str:
    """Return which answer, "a" or "b", stands first: random for each annotator and pair, the same each time.

    It follows the answers, not their letters: the pair with a and b swapped looks the same on screen.
    """
    sides = sorted("ab", key=lambda side: (task[f"system_{side}"], task[f"answer_{side}"]))
    drawn = hashlib.sha256("\0".join([str(seed), annotator, pair_key(task)]).encode(errors="surrogatepass")).digest()
    return sides[drawn[0] % 2]
