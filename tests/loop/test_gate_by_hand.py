"""The champion: a choice by hand comes before the gate's, every change is kept, and an earlier one can come back."""

import pytest

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import (
    champion_history,
    incoming_champion,
    outgoing_champion,
    record_decision,
    system_record,
)
from cuadft.loop import gate, lineage, status
from cuadft.loop.kernel import lock


def finish(run, number, winner=None, adapters=("sft", "dpo")):
    """Make an iteration with all parts of its systems, decided by the gate: `winner`, or the champion kept."""
    iteration = runs.Iteration(run, number)
    for name in ("rag", "rag_compiled"):
        files.write_json(iteration.path("program", f"{name}.json"), {})
    files.write_json(iteration.path("retriever", "settings.json"), {})
    for name in adapters:
        files.write_json(iteration.path("adapters", name, "adapter_config.json"), {})
        files.write_text(iteration.path("adapters", name, "adapter_model.safetensors"), "w")
    decide(iteration, winner)
    return iteration


def decide(iteration, winner=None):
    decision = {
        "promoted": system_record(iteration, winner or "incumbent", "rag_compiled"),
        "reason": f"because {winner}",
        "tuned_program": "rag_compiled",
    }
    files.write_json(iteration.path("decision.json"), decision)
    record_decision(iteration, decision)


def now(run):
    """Return the name of the champion that the next iteration starts from."""
    return runs.champion_label(incoming_champion(runs.Iteration(run, runs.decided_iterations(run)[-1] + 1)))


@pytest.fixture
def run(tmp_path):
    """A run of two iterations, whose gates promoted sft and then dpo."""
    lineage.describe_run(tmp_path, preset=None)
    finish(tmp_path, 1, "sft")
    finish(tmp_path, 2, "dpo")
    return tmp_path


def test_the_first_iteration_starts_from_plain_rag_and_the_next_from_what_was_promoted(run):
    assert incoming_champion(runs.Iteration(run, 1)) == {
        "system": "rag",
        "program": None,
        "weights": None,
        "retriever": None,
    }
    assert incoming_champion(runs.Iteration(run, 3)) == {
        "system": "dpo",
        "program": "iter-02/program/rag_compiled.json",
        "weights": "iter-02/adapters/dpo",
        "retriever": "iter-02/retriever",
    }
    with pytest.raises(InputError, match="decision.json is missing: finish iteration 3 .05_evaluate."):
        incoming_champion(runs.Iteration(run, 4))


def test_a_decision_of_an_older_version_lacks_the_retriever(run):
    files.write_json(
        run / "iter-02" / "decision.json", {"promoted": {"system": "sft", "program": None, "weights": "iter-02/x"}}
    )
    assert incoming_champion(runs.Iteration(run, 3))["retriever"] is None
    files.write_json(run / "iter-02" / "decision.json", {"promoted": False})
    with pytest.raises(InputError, match="names no promoted system: run 05_evaluate of that iteration again"):
        incoming_champion(runs.Iteration(run, 3))


def test_the_gate_notes_promotions_and_refusals_once(run):
    finish(run, 3)
    lines = champion_history(run)
    assert [(h["iteration"], h["action"], h["from"]["system"], h["to"]["system"]) for h in lines] == [
        (1, "promoted", "rag", "sft"),
        (2, "promoted", "sft", "dpo"),
        (3, "kept", "dpo", "dpo"),
    ]
    decide(runs.Iteration(run, 3))  # the stage runs again
    assert champion_history(run) == lines
    decide(runs.Iteration(run, 3), "sft")  # with another outcome
    assert len(champion_history(run)) == 4 and now(run) == "sft of iteration 3"
    with open(run / "history.jsonl", "a") as file:
        file.write('{"time": "20')  # a kill
    assert len(champion_history(run)) == 4


def test_by_hand_comes_before_the_gate_whose_decision_stays(run):
    before = (run / "iter-02" / "decision.json").read_bytes()
    line = gate.promote(run, "sft", reason=" reads\n better ")
    assert (run / "iter-02" / "decision.json").read_bytes() == before
    assert now(run) == "sft of iteration 2" == runs.champion_label(line["to"]) and line["reason"] == "reads better"
    assert line["to"]["program"] == "iter-02/program/rag_compiled.json"  # the one that it was tuned for
    assert (
        champion_history(run)[-1] == line
        and line["action"] == "promote"
        and runs.champion_label(line["from"]) == "dpo of iteration 2"
    )
    kept = files.read_json(run / "iter-02" / "by_hand.json")
    assert kept["promoted"] == line["to"] and (kept["action"], kept["reason"]) == ("promote", "reads better")
    decide(runs.Iteration(run, 2), "rag")  # an evaluation that is run again does not undo a person's choice
    assert now(run) == "sft of iteration 2"


def test_an_earlier_champion_is_promoted_again_by_its_iteration(run):
    finish(run, 3)  # kept: no champion of its own
    gate.promote(run, "sft", reason="the later one is worse", iteration=1)
    assert now(run) == "sft of iteration 1"
    gate.promote(run, "rag", reason="worse as well", iteration=1)
    assert now(run) == "rag of iteration 1"
    finish(run, 4, "sft")
    assert now(run) == "sft of iteration 4"


def test_a_choice_that_a_kill_kept_out_of_the_history_is_in_force_and_noted_later(run, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "append_jsonl", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        gate.promote(run, "sft", reason="better", iteration=1)
    assert now(run) == "sft of iteration 1" and len(champion_history(run)) == 2
    with pytest.raises(InputError, match="sft of iteration 1 is the champion already"):
        gate.promote(run, "sft", reason="again", iteration=1)
    assert champion_history(run)[-1]["reason"] == "better" and len(champion_history(run)) == 3


@pytest.mark.parametrize(
    ("system", "reason", "iteration", "message"),
    [
        ("spo", "x", None, "'spo' is no system of .*iter-02.*choose one of rag, rag_compiled, retriever, dpo, sft"),
        ("stf", "x", None, "did you mean 'sft'"),
        ("kto", "x", None, "'kto' is no system of"),
        ("dpo", "x", None, "champion already"),
        ("sft", "  ", None, "Invalid reason ''"),
        ("sft", "x", 7, "'sft' is no system of .*iter-07"),
        ("retriever", "x", 1, "'retriever' is no system"),
        ("rag", "x", 1, "not whole: .*iter-01/retriever/settings.json is missing"),
    ],
)
def test_what_cannot_be_promoted_is_refused_and_nothing_changes(run, system, reason, iteration, message):
    (run / "iter-02" / "adapters" / "kto").mkdir()
    (run / "iter-02" / "adapters" / "kto" / "adapter_config.json").write_text("{}")  # killed before its weights
    (run / "iter-01" / "retriever" / "settings.json").unlink()
    with pytest.raises(InputError, match=message):
        gate.promote(run, system, reason=reason, iteration=iteration)
    assert len(champion_history(run)) == 2 and not (run / "iter-02" / "by_hand.json").exists()


def test_a_champion_that_is_gone_is_not_promoted(run):
    (run / "iter-01" / "adapters" / "sft" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="'sft' is no system of .*iter-01"):
        gate.promote(run, "sft", reason="better", iteration=1)


def test_nothing_is_chosen_by_hand_while_a_run_works_nor_where_there_is_none(run, tmp_path_factory):
    with lock(run), pytest.raises(InputError, match="[Aa]nother"):
        gate.promote(run, "sft", reason="better")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="No iteration of .* has decided"):
        gate.promote(empty / "none", "sft", reason="x")
    assert not (empty / "none").exists()
    lineage.describe_run(empty, preset=None)
    with pytest.raises(InputError, match="No iteration of .* has decided"):
        gate.promote(empty, "sft", reason="x")


def test_the_new_retriever_can_be_promoted_alone(run):
    line = gate.promote(run, "retriever", reason="finds more")
    assert line["to"] == {
        "system": "retriever",
        "program": "iter-01/program/rag_compiled.json",
        "weights": "iter-01/adapters/sft",
        "retriever": "iter-02/retriever",
    }
    assert outgoing_champion(runs.Iteration(run, 2)) == line["to"] and now(run) == "retriever of iteration 2"


def test_the_command_line_promotes_and_shows_the_history(run, capsys):
    assert cli.main(["promote", str(run), "sft", "--reason", "reads better"]) == 0
    assert "Champion: sft of iteration 2 (before: dpo of iteration 2)." in capsys.readouterr().out
    assert cli.main(["promote", str(run), "dpo", "--reason", "it does not"]) == 0
    assert cli.main(["promote", str(run), "stf", "--reason", "x"]) == 2
    assert "did you mean 'sft'" in capsys.readouterr().err
    shown = status.run_status(run)
    assert "by gate  promoted  sft of iteration 1 -> dpo of iteration 2: because dpo" in shown
    assert "by hand  promote   dpo of iteration 2 -> sft of iteration 2: reads better" in shown
    assert "by hand  promote   sft of iteration 2 -> dpo of iteration 2: it does not" in shown
    assert shown.endswith("champion now: dpo of iteration 2")
    assert cli.main(["promote", str(run), "sft"]) == 2  # without a reason
