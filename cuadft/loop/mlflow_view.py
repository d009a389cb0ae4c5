"""MLflow's view of a run: an experiment, an MLflow run for each iteration, and the champion in the model registry.

    send_mlflow(run, snapshot.finished_snapshots(run))  # returns "sqlite:///.../trackers/mlflow.db"

The experiment has the run folder's name. Scores are metrics such as "test.quote_f1.sft" with the iteration as step, so
that MLflow's pages compare iterations. With MLFLOW_TRACKING_URI, several run folders share one store and are compared.
In the registry, a model named after the run has a version for each champion, and the alias "champion" marks the present
one. Weights are not copied: a version's tags name their place in the run folder, and their hash.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from cuadft.core import files, runs
from cuadft.loop.manifest import Hashes
from cuadft.loop.snapshot import Snapshot, clean_value, code_origin, run_identity, tracker_store

# tags of an MLflow run: the iteration that it shows, the hash of what it shows, and the text on its page
KEY_TAG, DIGEST_TAG, NOTE_TAG = "cuadft.key", "cuadft.digest", "mlflow.note.content"
RECORD_TAG, RUN_TAG = "cuadft.record", "cuadft.run"  # tags of a version: its champion and its run folder
CHAMPION_ALIAS = "champion"
NOT_IN_NAMES = re.compile(r"[^\w. :/-]")  # characters that MLflow refuses in a metric's name
LONGEST_PARAMETER = 6000  # characters; MLflow refuses longer values
BATCH = 100  # metrics or parameters in one request; MLflow takes at most 100 parameters
# nothing about the use of MLflow is sent anywhere, and a server that is down is not waited for
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
CHATTY = ("alembic", "mlflow.store.db.utils", "mlflow.tracking._model_registry.client")


def send_mlflow(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Bring the view up to date, the champion in the registry included; return the address of the store."""
    if "MLFLOW_TRACKING_URI" not in os.environ:
        prepare_database(run)
    client, uri = _open(run)
    experiment = client.get_experiment_by_name(run.name)
    if experiment and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    number = experiment.experiment_id if experiment else client.create_experiment(run.name, _artifact_address(uri))
    _follow_champions(client, run, snapshots, {one.iteration.number: _send(client, number, one) for one in snapshots})
    return uri


def mlflow_exists(run: Path) -> bool:
    """Tell whether the run's own store is there, or the user's (MLFLOW_TRACKING_URI) knows this run."""
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return _database(run).is_file()
    client, _ = _open(run)
    experiment = client.get_experiment_by_name(run.name)
    mine = f"tags.`{KEY_TAG}` LIKE '{run_identity(run)}%'"
    return bool(experiment and client.search_runs([experiment.experiment_id], filter_string=mine, max_results=1))


# The store.


def _database(run: Path) -> Path:
    return tracker_store(run, "mlflow").with_suffix(".db")


def _own_address(run: Path) -> str:
    path = str(_database(run))
    for sign in "%?#":  # these characters have a meaning of their own in an address
        path = path.replace(sign, quote(sign))
    return f"sqlite:///{path}"


def _open(run: Path) -> tuple[Any, str]:
    """Return a client of the store and its address: MLFLOW_TRACKING_URI, else the SQLite file in the run folder.

    An SQLite store is opened once beforehand: where that fails, MLflow would try for minutes.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or _own_address(run)
    if path := _sqlite_file(uri):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version")
    return _client(uri), uri


def _client(uri: str) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite address, None for another address."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def _artifact_address(uri: str) -> str | None:
    """Return the address of the folder beside an SQLite store where its files go, None for another store.

    Without it, MLflow would put the files into the current folder.
    """
    path = _sqlite_file(uri)
    return path.with_name(f"{path.stem}-artifacts").as_uri() if path else None


def prepare_database(run: Path) -> None:
    """Make the run's own database, whole or not at all; put one aside that is damaged or came from another folder."""
    path = _database(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not _usable(path, run.name, _artifact_address(_own_address(run))):
        os.replace(path, path.with_suffix(".db.old"))
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "mlflow.db")
            _client(f"sqlite:///{part}").search_experiments(max_results=1)
            files.write_bytes(path, part.read_bytes())


def _usable(path: Path, name: str, artifacts: str | None) -> bool:
    """Tell whether the database is whole, and names the folder beside it for the files: a moved run names another."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            places = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (name,)).fetchall()
            whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
    return whole and all(place == artifacts for (place,) in places)


# The runs.


def _send(client: Any, experiment: str, one: Snapshot) -> str:
    """Make the iteration's MLflow run unless it is there, and bring its tags up to date; return its id.

    MLflow can neither change a parameter nor remove a metric, so that a run with other content is replaced.
    """
    digest, found = replace(one, by_hand=None).digest(), None
    for known in client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{one.key}'"):
        if known.data.tags.get(DIGEST_TAG) == digest:
            found = known.info.run_id
        else:
            client.delete_run(known.info.run_id)
    run_id = found or _new_run(client, experiment, one)
    # the digest comes last: a view that a kill cut short is sent again
    for name, value in (_run_tags(one) | {DIGEST_TAG: digest}).items():
        client.set_tag(run_id, name, value)
    return run_id


def _new_run(client: Any, experiment: str, one: Snapshot) -> str:
    run_id = client.create_run(experiment, run_name=one.name, tags={KEY_TAG: one.key}).info.run_id
    _log_scores(client, run_id, one)
    for path in one.figures:
        client.log_artifact(run_id, str(path), "figures")
    client.log_text(run_id, one.board.to_csv(index=False), "scoreboard.csv")
    client.log_dict(run_id, dict(one.decision), "decision.json")
    client.set_terminated(run_id)
    return run_id


def _log_scores(client: Any, run_id: str, one: Snapshot) -> None:
    from mlflow.entities import Metric, Param

    now, step = int(time.time() * 1000), one.iteration.number
    scores = {NOT_IN_NAMES.sub("_", name.replace("@", "_at_")): value for name, value in one.flat_scores(".").items()}
    points = [Metric(name, value, now, step) for name, value in scores.items()]
    settings = [Param(name, value[:LONGEST_PARAMETER]) for name, value in one.parameters.items()]
    for start in range(0, max(len(points), len(settings)), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH], params=settings[start : start + BATCH])


def _run_tags(one: Snapshot) -> dict[str, str]:
    by_hand = " (chosen by hand)" if one.by_hand else ""
    note = "Champion afterwards: {champion}{by_hand}. The gate: {decision}".format(**one.outcome, by_hand=by_hand)
    tags = {"iteration": str(one.iteration.number), NOTE_TAG: note} | one.outcome
    tags |= {f"code.{name}": value for name, value in code_origin(one.iteration).items()}
    decided_by = one.decision.get("decided_by")
    return tags | ({"decided_by": str(decided_by)} if decided_by else {})


# The champion in the model registry.


def _follow_champions(client: Any, run: Path, snapshots: Sequence[Snapshot], run_ids: Mapping[int, str]) -> None:
    """Give each champion that was promoted or chosen by hand a version, and the present champion the alias.

    run_ids: the MLflow run of each iteration. If nothing was ever promoted, there is no version and no alias.
    """
    name, present = model_name(client, run), None
    for one in snapshots:
        promoted = one.decision.get("promoted") if one.gate_promoted else None
        for record, reason in ((promoted, one.decision.get("reason")), (one.by_hand, "chosen by hand")):
            if record:
                label = runs.champion_label(record)
                made_in = int(label.rpartition(" ")[2]) if label[-1].isdigit() else one.iteration.number
                made = run_ids.get(made_in, run_ids[one.iteration.number])
                present = _champion_version(client, name, run, record, made, f"{label}: {reason}")
    if present:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, present)
    elif _has_model(client, name):  # a later evaluation no longer promotes anything
        client.delete_registered_model_alias(name, CHAMPION_ALIAS)


def model_name(client: Any, run: Path) -> str:
    """Return the registered model's name: the run's, without the characters that MLflow refuses.

    In a common store, another run folder of the same name may have that model already; then a part of this run's
    identity is added to the name.
    """
    name = re.sub(r"[/:'\"%]", "-", run.name)
    owners = {version.tags.get(RUN_TAG) for version in client.search_model_versions(f"name = '{name}'")}
    return name if not owners or run_identity(run) in owners else f"{name}-{run_identity(run)[:6]}"


def _has_model(client: Any, name: str) -> bool:
    return any(model.name == name for model in client.search_registered_models())


def _champion_version(
    client: Any, name: str, run: Path, record: runs.ChampionRecord, run_id: str, description: str
) -> str:
    """Return the number of a champion's version; a new one if its files changed or its MLflow run was replaced."""
    tags = _version_tags(run, record)
    if not _has_model(client, name):
        client.create_registered_model(name, description=f"Champions of the run {run.name}: see the tags for files.")
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(tag) == value for tag, value in tags.items()):
            if version.run_id == run_id:
                return str(version.version)
            client.delete_model_version(name, version.version)
    folder = f"champion/{tags[RECORD_TAG]}"
    client.log_dict(run_id, tags, f"{folder}/champion.json")
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
    made = client.create_model_version(name, source, run_id=run_id, tags=tags, description=clean_value(description))
    return str(made.version)


def _version_tags(run: Path, record: runs.ChampionRecord) -> dict[str, str]:
    """Return a champion's tags: its system, the places of its parts in the run folder, and the hashes of the parts."""
    key = files.value_hash([record.get(part) for part in runs.CHAMPION_PARTS])[:16]
    found = {RECORD_TAG: key, RUN_TAG: run_identity(run), "system": str(record["system"])}
    hashes, places = Hashes(run), {part: record.get(part) for part in runs.CHAMPION_PARTS[1:]}
    calibration = runs.calibration_file(record)
    if calibration and (run / calibration).is_file():  # it depends on the dev answers, which a champion may lack
        places["calibration"] = calibration
    for part, place in places.items():
        if place:
            found[part] = str(place)
        if place and (run / place).exists():  # old weights may have been deleted since
            found[f"{part}_sha256"] = files.file_hash(run / place, of_file=hashes)
    return found
