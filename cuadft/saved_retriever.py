"""A retriever's folder: readable files; a killed save can't be loaded, and what no longer fits is not used."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError
from cuadft.files import file_hash, read_json, read_jsonl, value_hash, write_json, write_jsonl
from cuadft.index import FILE, Index
from cuadft.passages import Passage
from cuadft.rocchio import SPANS, VECTORS, Feedback

if TYPE_CHECKING:
    from cuadft.embedder import Embedder
    from cuadft.retriever import Retriever

SETTINGS, PASSAGES, CLASSIFIER = "settings.json", "passages.jsonl", "classifier"


def save(retriever: Retriever, index: Index, folder: Path) -> None:
    """Write the folder; settings.json comes last and says what the other files were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).unlink(missing_ok=True)
    made: dict[str, Any] = {"cutting": retriever.cutting, "classifier": retriever.classifier is not None}
    write_jsonl(folder / PASSAGES, [asdict(passage) for passage in index.passages])
    (folder / FILE).unlink(missing_ok=True)
    if retriever.mode != "bm25" and retriever.classifier_weight < 1:
        made["index"] = index.save(folder)
    if retriever.feedback is not None:
        retriever.feedback.save(folder)
        made["feedback"] = _made_of(folder, retriever.feedback.spans, retriever.embedder)
    if retriever.classifier is not None:
        (folder / CLASSIFIER).mkdir(exist_ok=True)
        retriever.classifier.save(folder / CLASSIFIER)
    write_json(folder / SETTINGS, retriever.settings | made)


def load(folder: Path, embedder: Embedder | None) -> tuple[dict[str, Any], Index]:
    """Return the keyword arguments of the saved retriever, and its index."""
    settings = read_json(folder / SETTINGS)
    try:
        passages = [Passage(**record) for record in read_jsonl(folder / PASSAGES)]
        names = ("mode", "feedback_weight", "dense_weight", "classifier_weight", "rerank", "contract_weight",
                 "cutting")
        parts = {name: settings[name] for name in names}
        index = Index(passages, embedder)
        if made := settings.get("index"):
            index.restore(folder, made)
        if settings.get("feedback"):
            parts["feedback"] = _feedback(folder, settings["feedback"], embedder)
        holds_classifier = settings["classifier"]
    except (AttributeError, KeyError, TypeError) as error:
        message = f"'{folder}' holds no retriever that this version saved ({error!r}): build it again"
        raise InputError(message) from error
    if holds_classifier:
        from cuadft.classifier import ClauseClassifier

        parts["classifier"] = ClauseClassifier.load(folder / CLASSIFIER, embedder)
    return parts, index


def _feedback(folder: Path, made: dict[str, Any], embedder: Embedder | None) -> Feedback:
    """Return the saved feedback, with its vectors only if they are of these spans and of this model."""
    if embedder is None:
        raise InputError(f"The retriever in '{folder}' holds relevance feedback: give an embedder, got None")
    fits = _made_of(folder, read_jsonl(folder / SPANS), embedder) == made
    return Feedback.load(folder, embedder, vectors=fits)


def _made_of(folder: Path, spans: list[dict[str, str]], embedder: Embedder | None) -> dict[str, Any]:
    vectors = folder / VECTORS
    found = file_hash(vectors) if vectors.is_file() else None
    return {"spans": value_hash(spans), "model": embedder and embedder.key, "sha256": found}
