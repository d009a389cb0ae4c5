"""A small run to import votes into, and Label Studio's tasks."""

import csv

from small import ROWS, TEXTS

from cuadft.core import files
from cuadft.feedback import exchange
from cuadft.feedback.store import Store

TRAIN, OTHER, DEV, TEST = TEXTS
SPLITS = {TRAIN: "train", OTHER: "train", DEV: "dev", TEST: "test"}
LAW, AUDIT, CAP, RENEWAL = (row["question"] for row in ROWS[:4])
LAW_ID = f"{TRAIN}__Governing Law"


def make_run(tmp_path):
    folder = tmp_path / "run"
    files.write_jsonl(
        folder / "contracts.jsonl", [{"title": t, "text": TEXTS[t], "split": s} for t, s in SPLITS.items()]
    )
    for name in ("train", "dev", "test"):
        rows = [row for row in ROWS if SPLITS[row["contract"]] == name]
        files.write_jsonl(folder / "iter-01" / "data" / f"{name}.jsonl", rows)
    return folder


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pair(**changes):
    return {"id": LAW_ID, "chosen": "Ohio", "rejected": "Texas", "annotator": "anna"} | changes


def imported(run, rows, name="file.jsonl", **options):
    path = run.parent / name
    if path.suffix == ".csv":
        write_csv(path, rows)
    else:
        (files.write_json if path.suffix == ".json" else files.write_jsonl)(path, rows)
    return exchange.import_file(path, run, **options)


def from_store(run, judgements):
    """Import another run's store, which holds these judgements."""
    other = Store(run.parent / "other.sqlite")
    other.add_many([{k: v for k, v in one.items() if k not in ("chosen", "rejected")} for one in judgements])
    return exchange.import_file(other.path, run)


def stored(run):
    return Store(run / exchange.STORE_FILE).judgements()


def preferred(run):
    """Return (annotator, id, better, worse) of all current judgements with a winner."""
    other = {"a": "b", "b": "a"}
    return {
        (j["annotator"], j["id"], j[f"answer_{j['verdict']}"], j[f"answer_{other[j['verdict']]}"])
        for j in stored(run)
        if j["verdict"] in other
    }


def task(*annotations, **data):
    return {
        "id": 17,
        "data": {"contract": TRAIN, "question": LAW, "text1": "Ohio", "text2": "Texas"} | data,
        "annotations": list(annotations),
    }


def annotation(selected="left", by=1, **more):
    said = [{"from_name": "pw", "to_name": "text1,text2", "type": "pairwise", "value": {"selected": selected}}]
    return {"id": 9, "completed_by": by, "result": said, "was_cancelled": False, "lead_time": 4.5} | more
