"""The champion in MLflow's model registry: a model named after the run, a version for each champion, an alias on the present.

Weights are not copied: a version's tags name their place in the run folder, and their hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft import champion, files
from cuadft.hashes import Hashes
from cuadft.snapshot import Snapshot, clean, identity

ALIAS = "champion"
RECORD, RUN = "cuadft.record", "cuadft.run"  # tags that tell a version's champion and run folder
PLACES = ("program", "weights", "retriever")


def follow(client: Any, run: Path, snapshots: Sequence[Snapshot], run_ids: Mapping[int, str]) -> str | None:
    """Give each champion that was promoted, or chosen by hand, a version, and the present one the alias; return its number.

    run_ids: the MLflow run of each iteration. Where nothing was ever promoted, there is no version and no alias.
    """
    name, present = model_name(client, run), None
    for one in snapshots:
        promoted = one.decision.get("promoted") if one.gate_promoted else None
        for record, reason in ((promoted, one.decision.get("reason")), (one.by_hand, "chosen by hand")):
            if record:
                made = run_ids.get(_iteration(record), run_ids[one.iteration.number])
                present = _version(client, run, record, made, f"{champion.label(record)}: {reason}")
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


def _version(client: Any, run: Path, record: champion.Record, run_id: str, description: str) -> str:
    """Return the number of a champion's version; made anew if its weights changed, or its MLflow run was replaced."""
    name, tags = model_name(client, run), _tags(run, record)
    if not any(model.name == name for model in client.search_registered_models()):
        client.create_registered_model(name, description=f"Champions of the run {run.name}: see the tags for their files.")
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(tag) == value for tag, value in tags.items()):
            if version.run_id == run_id:
                return str(version.version)
            client.delete_model_version(name, version.version)
    folder = f"champion/{tags[RECORD]}"
    client.log_dict(run_id, tags, f"{folder}/champion.json")
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
    made = client.create_model_version(name, source, run_id=run_id, tags=tags, description=clean(description))
    return str(made.version)


def _tags(run: Path, record: champion.Record) -> dict[str, str]:
    """Return what tells a champion: its system, the places of its parts in the run folder, and the hashes of those."""
    found = {RECORD: files.value_hash([record.get(part) for part in champion.PARTS])[:16], RUN: identity(run),
             "system": str(record["system"])}
    hashes = Hashes(run)
    for part in PLACES:
        if record.get(part):
            found[part] = str(record[part])
        if record.get(part) and (run / record[part]).exists():  # old weights may have been deleted since
            found[f"{part}_sha256"] = files.file_hash(run / record[part], of_file=hashes)
    return found


def _iteration(record: champion.Record) -> int | None:
    """Return the number of the iteration that made a champion."""
    number = champion.label(record).rpartition(" ")[2]
    return int(number) if number.isdigit() else None


def _withdraw(client: Any, run: Path) -> None:
    """Take the alias off a version of this run, that another evaluation no longer promotes."""
    name = model_name(client, run)
    number = client.get_registered_model(name).aliases.get(ALIAS)
    if number and client.get_model_version(name, number).tags.get(RUN) == identity(run):
        client.delete_registered_model_alias(name, ALIAS)
