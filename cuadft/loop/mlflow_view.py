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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
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
PLACES = ("program", "weights", "retriever")  # parts of a champion that lie in the run folder
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


# The experiment and its runs.


def send_mlflow(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Bring the view up to date, the champion in the registry included; return the address of the store."""
    uri = store_address(run)
    with _quietly():
        if uri == _own_address(run):
            _prepare_database(run)
        _open_once(uri)
        client = _client(uri)
        experiment = _experiment(client, run.name, uri)
        found = {one.iteration.number: _send_iteration(client, experiment, one) for one in snapshots}
        follow_champions(client, run, snapshots, found)
    return uri


def mlflow_exists(run: Path) -> bool:
    """Tell whether the run's own store is there, or the user's (MLFLOW_TRACKING_URI) knows this run."""
    uri = store_address(run)
    if uri == _own_address(run):
        return _database(run).is_file()
    with _quietly():
        _open_once(uri)
        client = _client(uri)
        experiment = client.get_experiment_by_name(run.name)
        if not experiment:
            return False
        mine = f"tags.`{KEY_TAG}` LIKE '{run_identity(run)}%'"
        return bool(client.search_runs([experiment.experiment_id], filter_string=mine, max_results=1))


def store_address(run: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else the address of the SQLite file in the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own_address(run)


def _own_address(run: Path) -> str:
    path = str(_database(run))
    for sign in "%?#":  # these characters have a meaning of their own in an address
        path = path.replace(sign, quote(sign))
    return f"sqlite:///{path}"


def _database(run: Path) -> Path:
    return tracker_store(run, "mlflow").with_suffix(".db")


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _quietly() -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    before = {name: logging.getLogger(name).level for name in CHATTY}
    for name in before:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _prepare_database(run: Path) -> None:
    """Make the run's own database, whole or not at all; put one aside that is damaged or came from another folder."""
    path = _database(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not _usable(path, run.name, _artifact_address(_own_address(run))):
        taken = sum(1 for _ in path.parent.glob(f"{path.stem}.db.old*"))
        os.replace(path, path.with_suffix(f".db.old{taken or ''}"))
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "mlflow.db")
            _client(f"sqlite:///{part}").search_experiments(max_results=1)
            files.write_bytes(path, part.read_bytes())


def _usable(path: Path, name: str, artifacts: str | None) -> bool:
    """Tell whether the database is whole, and names the folder beside it for the run's files.

    It names another folder if the run folder was moved.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            places = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (name,)).fetchall()
            whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return True
        return False
    return whole and all(place == artifacts for (place,) in places)


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite address, None for another address."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def _open_once(uri: str) -> None:
    """Open an SQLite store once: where that fails, MLflow would try for minutes."""
    path = _sqlite_file(uri)
    if path:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version")


def _artifact_address(uri: str) -> str | None:
    """Return the address of the folder beside an SQLite store where its files go, None for another store.

    Without it, MLflow would put the files into the current folder.
    """
    path = _sqlite_file(uri)
    return path.with_name(f"{path.stem}-artifacts").as_uri() if path else None


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=_artifact_address(uri))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _send_iteration(client: Any, experiment: str, one: Snapshot) -> str:
    """Make the iteration's MLflow run, or bring it up to date; return its id."""
    digest, metrics = one.digest(), _metrics(one)
    parameters = {name: value[:LONGEST_PARAMETER] for name, value in one.parameters.items()}
    found = client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{one.key}'")
    same = next((run for run in found if _can_show(run.data, metrics, parameters)), None)
    for run in found:
        if run is not same:  # MLflow can neither change a parameter nor remove a metric, so that a new run is needed
            client.delete_run(run.info.run_id)
    if same and same.data.tags.get(DIGEST_TAG) == digest:
        return same.info.run_id
    sent_to = same or client.create_run(experiment, run_name=one.name, tags={KEY_TAG: one.key})
    run_id = sent_to.info.run_id
    _log_scores(client, run_id, metrics, parameters, one.iteration.number)
    _log_files(client, run_id, one)
    tags = _run_tags(one) | {DIGEST_TAG: digest}  # the digest last: a view that a kill cut short is sent again
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    client.set_terminated(run_id)
    return run_id


def _can_show(data: Any, metrics: dict[str, float], parameters: dict[str, str]) -> bool:
    """Tell whether an MLflow run with this data can come to show exactly these metrics and parameters."""
    same_parameters = all(parameters.get(name) == value for name, value in data.params.items())
    return set(data.metrics) <= set(metrics) and same_parameters


def _log_scores(client: Any, run_id: str, metrics: dict[str, float], parameters: dict[str, str], step: int) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    points = [Metric(name, value, now, step) for name, value in metrics.items()]
    settings = [Param(name, value) for name, value in parameters.items()]
    for start in range(0, max(len(points), len(settings)), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH], params=settings[start : start + BATCH])


def _log_files(client: Any, run_id: str, one: Snapshot) -> None:
    for path in one.figures:
        client.log_artifact(run_id, str(path), "figures")
    with tempfile.TemporaryDirectory() as folder:
        files.write_json(Path(folder, "decision.json"), one.decision)
        files.write_text(Path(folder, "scoreboard.csv"), one.board.to_csv(index=False))
        client.log_artifacts(run_id, folder)


def _metrics(one: Snapshot) -> dict[str, float]:
    names = {"value": "", "low": ".low", "high": ".high", "n": ".n"}
    return {
        NOT_IN_NAMES.sub("_", f"{split}.{metric}.{system}".replace("@", "_at_")) + names[part]: value
        for (split, metric, system), known in one.scores().items()
        for part, value in known.items()
    }


def _run_tags(one: Snapshot) -> dict[str, str]:
    chosen = runs.champion_label(one.champion) if one.champion else "none"
    reason = str(one.decision.get("reason", ""))
    note = f"Champion afterwards: {chosen}{' (chosen by hand)' if one.by_hand else ''}. The gate: {reason}"
    tags = {"iteration": str(one.iteration.number), "champion": chosen, "decision": reason, NOTE_TAG: note}
    code = {f"code.{name}": value for name, value in code_origin(one.iteration).items()}
    decided = {"decided_by": str(one.decision["decided_by"])} if one.decision.get("decided_by") else {}
    return tags | decided | code


# The champion in the model registry.


def follow_champions(client: Any, run: Path, snapshots: Sequence[Snapshot], run_ids: Mapping[int, str]) -> str | None:
    """Give each champion that was promoted or chosen by hand a version, and the present champion the alias.

    run_ids: the MLflow run of each iteration. Returns the number of the present champion's version. If nothing was ever
    promoted, there is no version and no alias, and the result is None.
    """
    name, present = model_name(client, run), None
    for one in snapshots:
        promoted = one.decision.get("promoted") if one.gate_promoted else None
        for record, reason in ((promoted, one.decision.get("reason")), (one.by_hand, "chosen by hand")):
            if record:
                made = run_ids.get(_made_in(record), run_ids[one.iteration.number])
                present = _champion_version(client, run, record, made, f"{runs.champion_label(record)}: {reason}")
    if present:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, present)
    elif any(model.name == name for model in client.search_registered_models()):
        _remove_alias(client, run)
    return present


def model_name(client: Any, run: Path) -> str:
    """Return the registered model's name: the run's, without the characters that MLflow refuses.

    In a common store, another run folder of the same name may have that model already; then a part of this run's
    identity is added to the name.
    """
    name = re.sub(r"[/:'\"%]", "-", run.name)
    owners = {version.tags.get(RUN_TAG) for version in client.search_model_versions(f"name = '{name}'")}
    return name if not owners or run_identity(run) in owners else f"{name}-{run_identity(run)[:6]}"


def _champion_version(client: Any, run: Path, record: runs.ChampionRecord, run_id: str, description: str) -> str:
    """Return the number of a champion's version; a new one if its files changed or its MLflow run was replaced."""
    name, tags = model_name(client, run), _version_tags(run, record)
    if not any(model.name == name for model in client.search_registered_models()):
        about = f"Champions of the run {run.name}: see the tags for their files."
        client.create_registered_model(name, description=about)
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
    hashes, places = Hashes(run), {part: record.get(part) for part in PLACES}
    calibration = runs.calibration_file(record)
    if calibration and (run / calibration).is_file():  # it depends on the dev answers, which a champion may lack
        places["calibration"] = calibration
    for part, place in places.items():
        if place:
            found[part] = str(place)
        if place and (run / place).exists():  # old weights may have been deleted since
            found[f"{part}_sha256"] = files.file_hash(run / place, of_file=hashes)
    return found


def _made_in(record: runs.ChampionRecord) -> int | None:
    """Return the number of the iteration that made a champion."""
    number = runs.champion_label(record).rpartition(" ")[2]
    return int(number) if number.isdigit() else None


def _remove_alias(client: Any, run: Path) -> None:
    """Take the alias off a version of this run which a later evaluation no longer promotes."""
    name = model_name(client, run)
    number = client.get_registered_model(name).aliases.get(CHAMPION_ALIAS)
    if number and client.get_model_version(name, number).tags.get(RUN_TAG) == run_identity(run):
        client.delete_registered_model_alias(name, CHAMPION_ALIAS)
