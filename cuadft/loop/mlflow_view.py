"""MLflow's view of a run: an experiment of its name, an MLflow run for each iteration, and the champion in the registry.

Scores are metrics such as "test.f1.sft", with the iteration as step, so that MLflow's pages compare iterations and, in one
store (MLFLOW_TRACKING_URI), run folders.

The champion in MLflow's model registry: a model named after the run, a version for each champion, an alias on the present.

Weights are not copied: a version's tags name their place in the run folder, and their hash.
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
from cuadft.loop.snapshot import Snapshot, clean_value, identity, origin, tracker_store

KEY, DIGEST, NOTE = "cuadft.key", "cuadft.digest", "mlflow.note.content"
NAME = re.compile(r"[^\w. :/-]")  # what MLflow takes in no name
LONGEST_PARAMETER = 6000  # characters that MLflow takes
BATCH = 100  # metrics, parameters or tags in one request; MLflow takes 100 of the latter two
# nothing about the use of MLflow is sent anywhere, and a server that is down is not waited for
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
CHATTY = ("alembic", "mlflow.store.db.utils", "mlflow.tracking._model_registry.client")


def send_mlflow(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Bring the view up to date, the champion in the registry included; return the address of the store."""
    uri = address(run)
    with _quietly():
        if uri == _own(run):
            _prepare(run)
        _try(uri)
        client = _client(uri)
        experiment = _experiment(client, run.name, uri)
        found = {one.iteration.number: _send(client, experiment, one) for one in snapshots}
        follow_champions(client, run, snapshots, found)
    return uri


def mlflow_exists(run: Path) -> bool:
    """Tell whether the run's own store is there, or the user's (MLFLOW_TRACKING_URI) knows this run."""
    uri = address(run)
    if uri == _own(run):
        return _database(run).is_file()
    with _quietly():
        _try(uri)
        client = _client(uri)
        experiment = client.get_experiment_by_name(run.name)
        mine = f"tags.`{KEY}` LIKE '{identity(run)}%'"
        return bool(experiment) and bool(
            client.search_runs([experiment.experiment_id], filter_string=mine, max_results=1)
        )


def address(run: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else the address of the SQLite file in the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _own(run)


def _own(run: Path) -> str:
    path = str(_database(run))
    for sign in "%?#":  # they mean something in an address
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


def _prepare(run: Path) -> None:
    """Make the run's own database, whole or not at all; put one aside that is damaged or came from another folder."""
    path = _database(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not _usable(path, run.name, _artifacts(_own(run))):
        taken = sum(1 for _ in path.parent.glob(f"{path.stem}.db.old*"))
        os.replace(path, path.with_suffix(f".db.old{taken or ''}"))
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "mlflow.db")
            _client(f"sqlite:///{part}").search_experiments(max_results=1)
            files.write_bytes(path, part.read_bytes())


def _usable(path: Path, name: str, artifacts: str | None) -> bool:
    """Tell whether the database is whole, and the run's files lie beside it (they don't once a folder was moved)."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            places = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (name,)).fetchall()
            whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return True
        return False
    return whole and all(place == artifacts for (place,) in places)


def _file(uri: str) -> Path | None:
    """Return the file of an SQLite address, None for another address."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


def _try(uri: str) -> None:
    """Open an SQLite store once: where that fails, MLflow would try for minutes."""
    path = _file(uri)
    if path:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version")


def _artifacts(uri: str) -> str | None:
    """Return where the files of an SQLite store go, beside it (MLflow's default is the current folder); None for others."""
    path = _file(uri)
    return path.with_name(f"{path.stem}-artifacts").as_uri() if path else None


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=_artifacts(uri))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _send(client: Any, experiment: str, one: Snapshot) -> str:
    """Make the iteration's MLflow run, or bring it up to date; return its id."""
    digest, metrics, parameters = one.digest(), _metrics(one), _parameters(one)
    found = client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{one.key}'")
    same = next((run for run in found if _takes(run.data, metrics, parameters)), None)
    for run in found:
        if run is not same:  # MLflow changes no parameter and takes no metric back: another run says it instead
            client.delete_run(run.info.run_id)
    if same and same.data.tags.get(DIGEST) == digest:
        return same.info.run_id
    run_id = (
        same.info.run_id if same else client.create_run(experiment, run_name=one.name, tags={KEY: one.key}).info.run_id
    )
    _log(client, run_id, metrics, parameters, one.iteration.number)
    _log_files(client, run_id, one)
    for name, value in (
        _tags(one) | {DIGEST: digest}
    ).items():  # the digest last: a view that a kill cut short is sent again
        client.set_tag(run_id, name, value)
    client.set_terminated(run_id)
    return run_id


def _takes(data: Any, metrics: dict[str, float], parameters: dict[str, str]) -> bool:
    return set(data.metrics) <= set(metrics) and all(
        parameters.get(name) == value for name, value in data.params.items()
    )


def _log(client: Any, run_id: str, metrics: dict[str, float], parameters: dict[str, str], step: int) -> None:
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
        NAME.sub("_", f"{split}.{metric}.{system}".replace("@", "_at_")) + names[part]: value
        for (split, metric, system), known in one.scores().items()
        for part, value in known.items()
    }


def _parameters(one: Snapshot) -> dict[str, str]:
    return {name: value[:LONGEST_PARAMETER] for name, value in one.parameters.items()}


def _tags(one: Snapshot) -> dict[str, str]:
    chosen = runs.champion_label(one.champion) if one.champion else "none"
    reason = str(one.decision.get("reason", ""))
    note = f"Champion afterwards: {chosen}{' (chosen by hand)' if one.by_hand else ''}. The gate: {reason}"
    code = {f"code.{name}": value for name, value in origin(one.iteration).items()}
    decided = {"decided_by": str(one.decision["decided_by"])} if one.decision.get("decided_by") else {}
    return {"iteration": str(one.iteration.number), "champion": chosen, "decision": reason, NOTE: note} | decided | code


ALIAS = "champion"
RECORD, RUN = "cuadft.record", "cuadft.run"  # tags that tell a version's champion and run folder
PLACES = ("program", "weights", "retriever")


def follow_champions(client: Any, run: Path, snapshots: Sequence[Snapshot], run_ids: Mapping[int, str]) -> str | None:
    """Give each champion that was promoted, or chosen by hand, a version, and the present one the alias; return its number.

    run_ids: the MLflow run of each iteration. Where nothing was ever promoted, there is no version and no alias.
    """
    name, present = model_name(client, run), None
    for one in snapshots:
        promoted = one.decision.get("promoted") if one.gate_promoted else None
        for record, reason in ((promoted, one.decision.get("reason")), (one.by_hand, "chosen by hand")):
            if record:
                made = run_ids.get(_iteration(record), run_ids[one.iteration.number])
                present = _version(client, run, record, made, f"{runs.champion_label(record)}: {reason}")
    if present:
        client.set_registered_model_alias(name, ALIAS, present)
    elif any(model.name == name for model in client.search_registered_models()):
        _withdraw(client, run)
    return present


def model_name(client: Any, run: Path) -> str:
    """Return the registered model's name: the run's, without the signs that MLflow does not take.

    Another run folder of that name may have it already in a common store; then a part of this one's identity follows.
    """
    name = re.sub(r"[/:'\"%]", "-", run.name)
    owners = {version.tags.get(RUN) for version in client.search_model_versions(f"name = '{name}'")}
    return name if not owners or identity(run) in owners else f"{name}-{identity(run)[:6]}"


def _version(client: Any, run: Path, record: runs.ChampionRecord, run_id: str, description: str) -> str:
    """Return the number of a champion's version; made anew if its weights changed, or its MLflow run was replaced."""
    name, tags = model_name(client, run), _version_tags(run, record)
    if not any(model.name == name for model in client.search_registered_models()):
        client.create_registered_model(
            name, description=f"Champions of the run {run.name}: see the tags for their files."
        )
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(tag) == value for tag, value in tags.items()):
            if version.run_id == run_id:
                return str(version.version)
            client.delete_model_version(name, version.version)
    folder = f"champion/{tags[RECORD]}"
    client.log_dict(run_id, tags, f"{folder}/champion.json")
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
    made = client.create_model_version(name, source, run_id=run_id, tags=tags, description=clean_value(description))
    return str(made.version)


def _version_tags(run: Path, record: runs.ChampionRecord) -> dict[str, str]:
    """Return what tells a champion: its system, the places of its parts in the run folder, and the hashes of those."""
    found = {
        RECORD: files.value_hash([record.get(part) for part in runs.CHAMPION_PARTS])[:16],
        RUN: identity(run),
        "system": str(record["system"]),
    }
    hashes = Hashes(run)
    for part in PLACES:
        if record.get(part):
            found[part] = str(record[part])
        if record.get(part) and (run / record[part]).exists():  # old weights may have been deleted since
            found[f"{part}_sha256"] = files.file_hash(run / record[part], of_file=hashes)
    return found


def _iteration(record: runs.ChampionRecord) -> int | None:
    """Return the number of the iteration that made a champion."""
    number = runs.champion_label(record).rpartition(" ")[2]
    return int(number) if number.isdigit() else None


def _withdraw(client: Any, run: Path) -> None:
    """Take the alias off a version of this run, that another evaluation no longer promotes."""
    name = model_name(client, run)
    number = client.get_registered_model(name).aliases.get(ALIAS)
    if number and client.get_model_version(name, number).tags.get(RUN) == identity(run):
        client.delete_registered_model_alias(name, ALIAS)
