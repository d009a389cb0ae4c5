"""MLflow's view of a run: an experiment, an MLflow run for each iteration, and the champion in the model registry.

    send_mlflow(run, snapshot.finished_snapshots(run))  # returns "sqlite:///.../trackers/mlflow.db"

The experiment has the run folder's name. Scores are metrics such as "test/quote_f1/sft" with the iteration as step, so
that MLflow's pages compare iterations. With MLFLOW_TRACKING_URI, several run folders share one store and are compared.
In the registry, a model named after the run has a version for each champion, and the alias "champion" marks the present
one. Weights are not copied: a version's tags name their place in the run folder, and their hash.
"""

from __future__ import annotations

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
from cuadft.loop.manifest import Hashes

if TYPE_CHECKING:
    from cuadft.loop.snapshot import Snapshot

KEY_TAG, DIGEST_TAG = "cuadft.key", "cuadft.digest"  # of an MLflow run: its iteration, and the hash of what it shows
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
    client, uri, place = _open(run)
    experiment = client.get_experiment_by_name(run.name)
    own = "MLFLOW_TRACKING_URI" not in os.environ
    if experiment and own and experiment.artifact_location != place:  # the folder was moved: its files lie elsewhere
        client.rename_experiment(experiment.experiment_id, f"{run.name} (moved, {runs.history_time()})")
        experiment = None
    number = experiment.experiment_id if experiment else client.create_experiment(run.name, place)
    run_ids = [_send(client, number, run.name, one) for one in snapshots]
    if snapshots:
        _mark_champion(client, run, snapshots[-1], run_ids[-1])
    return uri


def _open(run: Path) -> tuple[Any, str, str | None]:
    """Return a client of the store, its address, and the address of the folder for its files.

    The store is MLFLOW_TRACKING_URI, else an SQLite file in the run folder. The files of an SQLite store go beside it:
    without an address, MLflow would put them into the current folder. Other stores have a place of their own (None).
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
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
    return MlflowClient(tracking_uri=uri, registry_uri=uri), uri, place


def _send(client: Any, experiment: str, name: str, one: Snapshot) -> str:
    """Make the iteration's MLflow run unless it is there, and bring its tags up to date; return its id.

    MLflow can neither change a parameter nor remove a metric, so that a run with other content is replaced.
    """
    key, digest, found = f"{one.identity}-{one.number}", one.digest(), None
    for known in client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{key}'"):
        if known.data.tags.get(DIGEST_TAG) == digest:
            found = known.info.run_id
        else:
            client.delete_run(known.info.run_id)
    run_id = found or _new_run(client, experiment, f"{name} iter-{one.number:02d}", key, one)
    # the digest comes last: a view that a kill cut short is sent again
    for tag, value in (one.outcome | {DIGEST_TAG: digest}).items():
        client.set_tag(run_id, tag, value)
    return run_id


def _new_run(client: Any, experiment: str, name: str, key: str, one: Snapshot) -> str:
    run_id = client.create_run(experiment, run_name=name, tags={KEY_TAG: key}).info.run_id
    _log_scores(client, run_id, one)
    for path in one.figures:
        client.log_artifact(run_id, str(path), "figures")
    client.set_terminated(run_id)
    return run_id


def _log_scores(client: Any, run_id: str, one: Snapshot) -> None:
    from mlflow.entities import Metric, Param

    now, step = int(time.time() * 1000), one.number
    scores = {NOT_IN_NAMES.sub("_", name.replace("@", "_at_")): value for name, value in one.scores.items()}
    points = [Metric(name, value, now, step) for name, value in scores.items()]
    settings = [Param(name, value[:LONGEST_PARAMETER]) for name, value in one.parameters.items()]
    for start in range(0, max(len(points), len(settings)), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH], params=settings[start : start + BATCH])


def _mark_champion(client: Any, run: Path, newest: Snapshot, run_id: str) -> None:
    """Give the present champion a version of the run's model, unless it has one, and the alias.

    In a common store, another run folder of the same name may have a model; so a part of the identity is in the name.
    """
    name = re.sub(r"[/:'\"%]", "-", run.name)  # MLflow refuses these characters
    if "MLFLOW_TRACKING_URI" in os.environ:
        name += f"-{newest.identity[:6]}"
    tags = _version_tags(run, runs.outgoing_champion(runs.Iteration(run, newest.number)))
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
    found, hashes = {"system": runs.champion_label(record)}, Hashes(run)
    for part, place in places.items():
        if place and (run / place).exists():  # a champion may lack a calibration, and old weights may be deleted
            found |= {part: place, f"{part}_sha256": files.file_hash(run / place, of_file=hashes)}
    return found
