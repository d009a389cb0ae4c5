"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

    check_trackers(["mlflow"])  # before anything is computed
    report_to_trackers(iteration, ["mlflow"])  # a table with one row per tracker

The run folder is the truth, and a tracker only shows it: parameters, scores, figures and decisions of all iterations
that have decided, without secrets and without paths of this computer. `tracker_folders` writes the views of TensorBoard
and Trackio; MLflow's is written here: an experiment with the run folder's name, and an MLflow run for each iteration.
Scores are metrics such as "test/quote_f1/sft" with the iteration as step, so that MLflow's pages compare iterations.
With MLFLOW_TRACKING_URI, several run folders share one store and are compared.
In the registry, a model named after the run has a version for each champion, and the alias "champion" marks the present
one. Weights are not copied: a version's tags name their place in the run folder, and their hash.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from cuadft.core import files, runs
from cuadft.core.errors import InputError, brief, redact
from cuadft.core.params import SET_BY_LOOP, did_you_mean
from cuadft.core.recorded import recorded_parameters
from cuadft.loop import tracker_folders
from cuadft.loop.manifest import Hashes

if TYPE_CHECKING:
    import pandas as pd

TRACKERS = ("mlflow", "tensorboard", "trackio")
KEY_TAG, DIGEST_TAG = "cuadft.key", "cuadft.digest"  # of an MLflow run: its iteration, and the hash of what it shows
CHAMPION_ALIAS = "champion"
SCORE_PARTS = ["value", "low", "high", "n"]
NOT_SHOWN = (*SET_BY_LOOP, "run_dir")  # parameters that differ from stage to stage, or between computers
# an absolute path, but not the host and path of an address; its last name is shown
ABSOLUTE_PATH = re.compile(r"(?<![\w:.~])(?<!:/)/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]+)")
NOT_IN_NAMES = re.compile(r"[^\w. :/-]")  # characters that MLflow refuses in a metric's name
LONGEST_PARAMETER = 6000  # characters; MLflow refuses longer values
BATCH = 100  # metrics or parameters in one request; MLflow takes at most 100 parameters
# nothing about the use of MLflow is sent anywhere, and a server that is down is not waited for
ENVIRONMENT = {"DISABLE_TELEMETRY": "true", "HTTP_REQUEST_MAX_RETRIES": "2", "HTTP_REQUEST_TIMEOUT": "20"}
CHATTY = ("alembic", "mlflow.store.db.utils", "mlflow.tracking._model_registry.client")


def check_trackers(report_to: Sequence[str]) -> None:
    """Raise InputError on a tracker that is unknown or not installed, before anything is computed."""
    for name in report_to:
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS)
            raise InputError(f"Invalid tracker {name!r} in report_to{hint}: choose from {', '.join(TRACKERS)}.")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name has no origin
            raise InputError(f"Tracker {name!r} in report_to is not installed: run `pip install -e '.[{name}]'`.")


def report_to_trackers(iteration: runs.Iteration, report_to: Sequence[str]) -> pd.DataFrame:
    """Show all iterations that have decided in each tracker; return a row of each: tracker, store, iterations, error.

    A tracker that fails costs nothing but its view: its row says so, and the next call sends what is missing.
    """
    import pandas as pd

    check_trackers(report_to)
    return pd.DataFrame([_send(name, iteration.run) for name in dict.fromkeys(report_to)])


def follow_run(run_dir: str | Path) -> list[dict[str, Any]]:
    """Bring the trackers that show a run up to date after a choice by hand; return a row of each."""
    run = runs.resolve_path(run_dir)
    newest = runs.Iteration(run, runs.decided_iterations(run)[-1])
    return [_send(name, run) for name in dict.fromkeys(recorded_parameters(newest).get("report_to", []))]


def _send(name: str, run: Path) -> dict[str, Any]:
    """Send a view; return the tracker's row: what was sent, or what failed."""
    done = [runs.Iteration(run, number) for number in runs.decided_iterations(run)]
    shown = [iteration for iteration in done if iteration.path("scoreboard.csv").is_file()]
    try:
        check_trackers([name])
        if name == "mlflow":
            store = send_mlflow(run, shown)
        else:
            send = {"tensorboard": tracker_folders.send_tensorboard, "trackio": tracker_folders.send_trackio}[name]
            store = send(run, [content_of(iteration) for iteration in shown])
        return {"tracker": name, "store": clean_text(store), "iterations": len(shown), "error": ""}
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows it
        return {"tracker": name, "store": "", "iterations": 0, "error": clean_text(brief(error))}


# What is shown.


def content_of(iteration: runs.Iteration) -> dict[str, Any]:
    """Return what is shown of an iteration that has decided, without secrets and without paths of this computer.

    number, parameters (texts by name), scores (by names such as "test/quote_f1/sft" and "test/quote_f1/sft.low"),
    figures (PNG files), decision (the gate's reason) and champion (afterwards).
    """
    champion = runs.champion_label(runs.outgoing_champion(iteration))
    by_hand = " (chosen by hand)" if iteration.path(runs.BY_HAND).is_file() else ""
    known = sorted(recorded_parameters(iteration).items())
    return {
        "number": iteration.number,
        "parameters": {name: value_text(value) for name, value in known if name not in NOT_SHOWN},
        "scores": _scores(iteration.path("scoreboard.csv")),
        "figures": sorted(iteration.path("figures").glob("*.png")),
        "decision": clean_text(files.read_json(iteration.path(runs.DECISION)).get("reason", "")),
        "champion": champion + by_hand,
    }


def _scores(path: Path) -> dict[str, float]:
    import pandas as pd

    keys = ["split", "metric", "system"]
    known = pd.read_csv(path).melt(keys, SCORE_PARTS, "part", "figure").dropna(subset="figure")
    names = known[keys].agg("/".join, axis=1) + ("." + known["part"]).replace(".value", "")
    return dict(zip(names, known["figure"].astype(float)))


def digest_of(content: dict[str, Any]) -> str:
    """Return the hash of all that is shown but for the champion, whom a later choice by hand can change."""
    figures = {path.name: files.file_hash(path) for path in content["figures"]}
    return files.value_hash([content["parameters"], content["scores"], figures, content["decision"]])


def clean_text(value: object) -> str:
    """Return a value's text without secrets and without this computer's paths."""
    return ABSOLUTE_PATH.sub(r".../\1", redact(str(value)).replace(f"{runs.project_root()}/", ""))


def value_text(value: object) -> str:
    """Return a parameter's value as it is shown, without secrets and paths of this computer."""
    return clean_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _identity(run: Path) -> str:
    """Return a hash that tells the run folder from others of the same name."""
    created = files.read_json(run / "run.json").get("created") if (run / "run.json").is_file() else None
    return files.value_hash([run.name, created])[:16]


# MLflow.


def send_mlflow(run: Path, shown: Sequence[runs.Iteration]) -> str:
    """Bring the view up to date, the champion in the registry included; return the address of the store."""
    client, uri, place = _open(run)
    experiment = client.get_experiment_by_name(run.name)
    own = "MLFLOW_TRACKING_URI" not in os.environ
    if experiment and own and experiment.artifact_location != place:  # the folder was moved: its files lie elsewhere
        client.rename_experiment(experiment.experiment_id, f"{run.name} (moved, {runs.history_time()})")
        experiment = None
    number = experiment.experiment_id if experiment else client.create_experiment(run.name, place)
    run_ids = [_send_iteration(client, number, iteration) for iteration in shown]
    if shown:
        _mark_champion(client, shown[-1], run_ids[-1])
    return uri


def _open(run: Path) -> tuple[Any, str, str | None]:
    """Return a client of the store, its address, and the address of the folder for its files.

    The store is MLFLOW_TRACKING_URI, else an SQLite file in the run folder. The files of an SQLite store go beside it:
    without an address, MLflow would put them into the current folder. Other stores have a place of their own (None).
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        database = run / "trackers" / "mlflow.db"
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{quote(str(database))}"
    place = None
    if uri.startswith("sqlite:///"):
        path = Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()
        with closing(sqlite3.connect(path)) as connection:  # where this fails, MLflow would try for an hour
            connection.execute("PRAGMA user_version")
        place = path.with_name(f"{path.stem}-artifacts").as_uri()
    # of a plain sqlite:/// address MLflow makes the folder before it unquotes the name: "50%25 x" beside "50% x"
    with_driver = uri.replace("sqlite:///", "sqlite+pysqlite:///", 1)
    return MlflowClient(tracking_uri=with_driver, registry_uri=with_driver), uri, place


def _send_iteration(client: Any, experiment: str, iteration: runs.Iteration) -> str:
    """Make the iteration's MLflow run unless it is there, and bring its tags up to date; return its id.

    MLflow can neither change a parameter nor remove a metric, so that a run with other content is replaced.
    """
    content, run_id = content_of(iteration), None
    key, digest = f"{_identity(iteration.run)}-{iteration.number}", digest_of(content)
    for known in client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{key}'"):
        if known.data.tags.get(DIGEST_TAG) == digest:
            run_id = known.info.run_id
        else:
            client.delete_run(known.info.run_id)
    if run_id is None:
        name = f"{iteration.run.name} {iteration.dir.name}"
        run_id = client.create_run(experiment, run_name=name, tags={KEY_TAG: key}).info.run_id
        _log_content(client, run_id, content, iteration.number)
        client.set_terminated(run_id)
    # the digest comes last: a view that a kill cut short is sent again
    for tag, value in (("decision", content["decision"]), ("champion", content["champion"]), (DIGEST_TAG, digest)):
        client.set_tag(run_id, tag, value)
    return run_id


def _log_content(client: Any, run_id: str, content: dict[str, Any], step: int) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    scores = {NOT_IN_NAMES.sub("_", name.replace("@", "_at_")): value for name, value in content["scores"].items()}
    points = [Metric(name, value, now, step) for name, value in scores.items()]
    settings = [Param(name, value[:LONGEST_PARAMETER]) for name, value in content["parameters"].items()]
    for start in range(0, max(len(points), len(settings)), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH], params=settings[start : start + BATCH])
    for path in content["figures"]:
        client.log_artifact(run_id, str(path), "figures")


def _mark_champion(client: Any, newest: runs.Iteration, run_id: str) -> None:
    """Give the present champion a version of the run's model, unless it has one, and the alias.

    In a common store, another run folder of the same name may have a model; so a part of the identity is in the name.
    """
    run, name = newest.run, re.sub(r"[/:'\"%]", "-", newest.run.name)  # MLflow refuses these characters
    if "MLFLOW_TRACKING_URI" in os.environ:
        name += f"-{_identity(run)[:6]}"
    tags = _version_tags(run, runs.outgoing_champion(newest))
    if not any(model.name == name for model in client.search_registered_models()):
        client.create_registered_model(name, description=f"Champions of the run {run.name}: see the tags for files.")
    known = client.search_model_versions(f"name = '{name}'")
    version = next((one.version for one in known if tags.items() <= one.tags.items()), None)
    if version is None:
        client.log_dict(run_id, tags, "champion/champion.json")
        source = f"{client.get_run(run_id).info.artifact_uri}/champion"
        version = client.create_model_version(name, source, run_id=run_id, tags=tags).version
    client.set_registered_model_alias(name, CHAMPION_ALIAS, str(version))


def _version_tags(run: Path, record: runs.ChampionRecord) -> dict[str, str]:
    """Return a champion's tags: its system, the places of its parts in the run folder, and the hashes of the parts."""
    places = {part: record[part] for part in runs.CHAMPION_PARTS[1:]} | {"calibration": runs.calibration_file(record)}
    found, hashes = {"system": runs.champion_label(record)}, Hashes()
    for part, place in places.items():
        if place and (run / place).exists():  # a champion may lack a calibration, and old weights may be deleted
            found |= {part: place, f"{part}_sha256": files.file_hash(run / place, of_file=hashes)}
    return found
