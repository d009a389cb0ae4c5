"""Properties of the annotation widget, without a browser: blind, random but stable order; nothing lost or doubled."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.core.text import without_surrogates
from cuadft.feedback import widget
from cuadft.feedback.store import Store

TEXT = "Either party may end it. \U0001d4d0 The law of Ohio governs. <b>Fees</b> are due at once. Notices go by post."
SYSTEMS = ("system-zero", "system-one")


def task(number=0, **changes):
    made = {
        "id": f"q{number}",
        "contract": "Acme Supply Agreement",
        "question": f"Question {number}?",
        "passages": [{"start": 0, "end": 40, "text": TEXT[:40]}, {"start": 60, "end": 80, "text": TEXT[60:80]}],
        "answer_a": f"Ohio {number}",
        "answer_b": f"Texas {number}",
        "system_a": SYSTEMS[0],
        "system_b": SYSTEMS[1],
        "spans_a": [[0, 6]],
        "spans_b": [[3, 12]],
        "prompt": [{"role": "user", "content": "the prompt sent"}],
        "priority": 0.5,
        "why": "the judge prefers the first",
    }
    return made | changes


TASKS = [task(n) for n in range(4)]


def send(shown, act, **message):
    """Send what the browser sends, with the ticket of the pair on screen."""
    shown._handle_custom_msg({"act": act, "ticket": shown.screen["ticket"]} | message, [])


def judge(shown, verdict="tie", **message):
    send(shown, "judge", verdict=verdict, **message)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "feedback.sqlite")


class Broken:
    """A store that fails while `fault` is set."""

    def __init__(self, store):
        self.store, self.fault = store, None

    def add(self, judgement):
        if self.fault:
            raise self.fault
        return self.store.add(judgement)

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_the_browser_never_learns_which_system_answered_or_why_it_is_asked(store):
    shown = widget.Annotate(TASKS, store, "anna")
    for _ in range(2):
        state = json.dumps(shown.get_state())
        assert not any(hidden in state for hidden in [*SYSTEMS, "the prompt sent", "judge prefers"])
        assert shown.screen["question"] in state
        judge(shown)


def test_order_is_drawn_for_each_annotator_and_pair_and_stays():
    tasks = [task(n) for n in range(400)]
    by = {name: [widget.first_shown(t, name, 0) for t in tasks] for name in ("anna", "ben")}
    # 400 fair draws: 200 +- 5 standard deviations of 10
    assert all(150 < order.count("a") < 250 for order in by.values())
    assert 150 < sum(a == b for a, b in zip(*by.values(), strict=True)) < 250
    assert by["anna"] == [widget.first_shown(t, "anna", 0) for t in tasks]
    assert by["anna"] != [widget.first_shown(t, "anna", 1) for t in tasks]


def test_order_on_screen_is_the_same_when_a_and_b_are_swapped():
    for number in range(20):
        one = task(number)
        other = one | {f"{k}_{s}": one[f"{k}_{o}"] for k in ("answer", "system", "spans") for s, o in ("ab", "ba")}
        answers = [widget.pair_screen(t, widget.first_shown(t, "anna", 0))["answers"] for t in (one, other)]
        assert answers[0] == answers[1]


@pytest.mark.parametrize("number", range(8))
def test_a_verdict_is_about_the_answer_not_its_place(store, number):
    shown = widget.Annotate([task(number)], store, "anna")
    left = shown.screen["answers"][0]
    judge(shown, "left", seconds=2.5, comment="clear", span=[25, 30])
    row = store.judgements()[0]
    assert row[f"answer_{row['verdict']}"] == left == row[f"answer_{row['shown_first']}"]
    assert (row["annotator"], row["id"], row["source"], row["seconds"]) == ("anna", f"q{number}", "widget", 2.5)
    assert (row["comment"], row["span"], row["prompt"]) == ("clear", [25, 30], task()["prompt"])
    assert (row["system_a"], row["system_b"]) == SYSTEMS


def test_a_verdict_is_stored_before_the_next_pair_is_shown(store):
    shown = widget.Annotate(TASKS, store, "anna")
    stored = []
    shown.observe(lambda change: stored.append(len(store.judgements())), "screen")
    judge(shown)
    judge(shown, "both_wrong")
    assert stored == [1, 2]
    assert [row["verdict"] for row in store.judgements()] == ["tie", "both_wrong"]


def test_a_failing_store_shows_its_error_and_keeps_the_pair(store):
    broken = Broken(store)
    shown = widget.Annotate(TASKS, broken, "anna")
    before = shown.screen
    for fault in (OSError(28, "No space left on device"), InputError("feedback.sqlite: the folder is read-only")):
        broken.fault = fault
        judge(shown, "left")
        assert str(fault) in shown.screen["error"]
        assert {k: shown.screen[k] for k in ("ticket", "question", "progress")} == {
            k: before[k] for k in ("ticket", "question", "progress")
        }
        assert shown.screen["reply"] > before["reply"]  # the browser waits for it
    broken.fault = None
    judge(shown, "left")
    assert (shown.screen["error"], shown.progress["done"], len(store.judgements())) == ("", 1, 1)


def test_a_key_pressed_twice_judges_one_pair(store):
    shown = widget.Annotate(TASKS, store, "anna")
    ticket = shown.screen["ticket"]
    judge(shown, "left", ticket=ticket)
    judge(shown, "left", ticket=ticket)
    assert len(store.judgements()) == 1
    assert shown.screen["question"] == "Question 1?"


@pytest.mark.parametrize("message", [{"verdict": "c"}, {"span": [9, 3]}, {"span": "all"}, {"seconds": -1}])
def test_a_malformed_verdict_stores_nothing(store, message):
    shown = widget.Annotate(TASKS, store, "anna")
    judge(shown, **({"verdict": "tie"} | message))
    assert store.judgements() == []
    assert "Invalid" in shown.screen["error"]


def test_a_notebook_run_again_goes_on_where_it_was(store):
    first = widget.Annotate(TASKS, store, "anna")
    judge(first, "left")
    judge(first, "skip")
    again = widget.Annotate(TASKS, store, "anna")
    assert (again.screen["question"], again.progress["done"], again.progress["skipped"]) == ("Question 2?", 2, 1)
    assert widget.Annotate(TASKS, store, "ben").screen["question"] == "Question 0?"
    assert repr(again) == "Annotate(4 pairs of answers, 2 judged by anna)"


def test_what_another_notebook_has_judged_is_not_asked_again(store):
    one, two = (widget.Annotate(TASKS, store, "anna") for _ in range(2))
    judge(one)
    judge(one)
    judge(two, "left")  # the pair both notebooks had begun with
    assert two.screen["question"] == "Question 2?"
    assert len(store.judgements()) == 2


def test_undo_shows_the_pair_again_with_what_was_written(store):
    shown = widget.Annotate(TASKS, store, "anna")
    judge(shown, "right", edited="Ohio, of course", comment="see 2", span=[25, 30])
    other = widget.Annotate(TASKS, store, "anna")  # the notebook run again
    send(other, "undo")
    assert (other.screen["question"], other.progress["done"], store.judgements()) == ("Question 0?", 0, [])
    assert other.draft == {
        "ticket": other.screen["ticket"],
        "edited": "Ohio, of course",
        "base": "right",
        "span": [25, 30],
        "comment": "see 2",
    }
    send(other, "undo")
    assert "nothing to take back" in other.screen["note"]
    assert len(store.judgements(current=False)) == 2


def test_undo_of_an_imported_verdict_finds_the_edited_answer_again(store):
    kept = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")
    store.add(
        {key: TASKS[0][key] for key in kept}
        | {"annotator": "anna", "verdict": "b", "edited": "In Texas", "source": "import:rows.csv"}
    )
    shown = widget.Annotate(TASKS, store, "anna")
    send(shown, "undo")
    assert shown.screen["answers"][{"left": 0, "right": 1}[shown.draft["base"]]] == TASKS[0]["answer_b"]


def test_undo_takes_back_only_ones_own(store):
    judge(widget.Annotate(TASKS, store, "ben"))
    send(widget.Annotate(TASKS, store, "anna"), "undo")
    assert [row["annotator"] for row in store.judgements()] == ["ben"]


def test_skipped_pairs_are_counted_and_not_asked_again(store):
    shown = widget.Annotate(TASKS[:2], store, "anna")
    judge(shown, "skip")
    judge(shown, "skip")
    assert (shown.screen["kind"], shown.progress["skipped"], shown.progress["done"]) == ("end", 2, 2)


def test_an_answer_confirmed_as_it_was_is_no_edit(store):
    shown = widget.Annotate(TASKS, store, "anna")
    judge(shown, "left", edited=shown.screen["answers"][0] + "\n")
    judge(shown, "left", edited="In Ohio")
    judge(shown, "both_wrong", edited="In Maine")
    assert [row["edited"] for row in store.judgements()] == [None, "In Ohio", "In Maine"]


def test_the_annotator_is_asked_for_never_guessed(store, monkeypatch):
    monkeypatch.setenv("USER", "root-user")
    judge(widget.Annotate(TASKS, store, "ben"))
    shown = widget.Annotate(TASKS, store)
    assert (shown.screen["kind"], shown.screen["names"]) == ("name", ["ben"])
    send(shown, "name", name="  ")
    judge(shown, "left")
    assert (shown.screen["kind"], len(store.judgements())) == ("name", 1)
    send(shown, "name", name=" Anna  Maria ")
    assert (shown.annotator, shown.screen["kind"]) == ("Anna Maria", "pair")


def test_agreement_with_the_others_is_part_of_the_progress(store):
    for name in ("anna", "ben"):
        shown = widget.Annotate(TASKS, store, name)
        for verdict in ("tie", "both_wrong", "tie"):
            judge(shown, verdict)
    assert "100%" in shown.progress["agreement"] and "kappa 1.00" in shown.progress["agreement"]


def test_the_same_pair_given_twice_is_asked_once(store):
    shown = widget.Annotate([TASKS[0], TASKS[0], TASKS[1]], store, "anna")
    assert shown.progress["total"] == 2
    assert widget.Annotate([], store, "anna").screen["kind"] == "end"


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=4)


@given(text=st.text(max_size=40), start=st.integers(0, 20), left=SPANS, right=SPANS)
def test_pieces_hold_the_text_and_colour_what_is_cited(text, start, left, right):
    pieces = widget.screen_pieces(text, start, left, right)
    assert "".join(piece for piece, _, _ in pieces) == without_surrogates(text)
    for piece, at, tone in pieces:
        assert without_surrogates(text)[at - start : at - start + len(piece)] == piece
        for place in range(at, at + len(piece)):
            by = [any(a <= place < b for a, b in spans) for spans in (left, right)]
            assert tone == {(1, 1): "both", (1, 0): "left", (0, 1): "right", (0, 0): ""}[tuple(by)]


@given(text=st.text(st.characters(), min_size=1))
def test_any_text_can_be_sent_to_a_browser(text):
    odd = text + "\ud800\0"
    shown = task(question=odd, answer_a=odd, passages=[{"start": 5, "end": 5 + len(odd), "text": odd}])
    screen = widget.pair_screen(shown, "a")
    json.dumps(screen, ensure_ascii=False).encode()
    assert screen["stretches"][0]["end"] == 5 + len(odd)


def test_citations_are_counted():
    assert widget.pair_screen(task(spans_a=[[0, 6], [3, 9]], spans_b=[]), "b")["cites"] == [0, 2]
