"""The command line: what each command of `cuadft` does, as a thin call into the package."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from cuadft.arguments import ROLES, parser
from cuadft.errors import InputError, redact


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for bad input, 1 for a failed stage or check, 3 for an incomplete run, 130 interrupted."""
    arguments, code = parser(HANDLERS).parse_args(argv), 0
    try:
        code = arguments.command(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader (head, less) has closed: nothing more to say, also not at exit
        sys.stdout = None
    except (InputError, OSError) as error:
        return _complain(error, arguments.debug, code=2)
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on where this one stopped.", file=sys.stderr)
        return 130
    except RuntimeError as error:
        from cuadft.loop import StageFailed

        if not isinstance(error, StageFailed):
            raise
        return _complain(error, arguments.debug, code=1)
    return code


def _complain(error: Exception, debug: bool, *, code: int) -> int:
    if debug:
        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"error: {redact(str(error))}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    from cuadft import loop

    done = loop.run(
        arguments.preset,
        iterations=arguments.iterations,
        run_dir=arguments.run_dir,
        until=arguments.until,
        overrides=arguments.set,
        log=lambda line: print(line, flush=True),
    )
    print(f"Run folder: {done['run_dir']} (see `cuadft status {done['run_dir']}`)")
    lacking = [step for step in done["steps"] if step["state"] == "incomplete"]
    for step in lacking:
        print(f"Incomplete: {step['stage']} of iteration {step['iteration']}: {step['reason']}")
    if lacking:
        print("What could be done is done. When the endpoint is back, the same command makes up for the rest.")
    return 3 if lacking else 0


def _status(arguments: argparse.Namespace) -> None:
    from cuadft import loop

    print(loop.status(arguments.run_dir))


def _verify(arguments: argparse.Namespace) -> int:
    from cuadft import verify, verify_text

    verdict = verify.check(arguments.run_dir, arguments.artefact)
    print(verify_text.text(verdict))
    return 1 if verdict.findings else 0


def _promote(arguments: argparse.Namespace) -> None:
    from cuadft import by_hand

    line = by_hand.promote(arguments.run_dir, arguments.system, reason=arguments.reason, iteration=arguments.iteration)
    _changed(arguments.run_dir, line)


def _rollback(arguments: argparse.Namespace) -> None:
    from cuadft import by_hand

    _changed(arguments.run_dir, by_hand.rollback(arguments.run_dir, reason=arguments.reason))


def _changed(run_dir: str, line: Mapping[str, Any]) -> None:
    from cuadft import runs
    from cuadft.champion import label

    print(f"Champion: {label(line['to'])} (before: {label(line['from'])}). The next iteration starts from it.")
    if (runs.resolve(run_dir) / "trackers").is_dir() or "MLFLOW_TRACKING_URI" in os.environ:
        from cuadft import trackers

        for shown in trackers.follow(run_dir).to_dict("records"):
            print(f"{shown['tracker']}: {shown['error'] or 'shows it too'}")


def _score(arguments: argparse.Namespace) -> None:
    from cuadft import score_report, scoring

    done = scoring.score(
        arguments.predictions,
        published=arguments.published,
        judge=arguments.judge,
        out=arguments.out,
        columns={role: getattr(arguments, role) for role in ROLES},
        verdict=arguments.verdict,
        votes=arguments.votes,
        embedder=arguments.embedder,
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        seed=arguments.seed,
        log=lambda line: print(line, flush=True),
    )
    print(f"\n{score_report.summary(done)}\n")
    for line in done.published.findings if done.published else ():
        print(f"- {line}")
    print(f"Results: {done.out} (start with report.md)")


def _retrieval(arguments: argparse.Namespace) -> None:
    from cuadft import retrieval_report, retrieval_text

    done = retrieval_report.measure(
        arguments.retriever,
        cuad=arguments.cuad,
        only=arguments.only_contracts,
        include_trained=arguments.include_trained,
        embedder=arguments.embedder,
        reranker=arguments.reranker,
        model=arguments.model,
        size=arguments.passage_chars,
        overlap=arguments.overlap,
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        log=lambda line: print(line, flush=True),
    )
    print(f"\n{retrieval_text.text(done)}")
    for path in retrieval_text.write(done, arguments.out) if arguments.out else ():
        print(f"Written: {path}")


def _ablate(arguments: argparse.Namespace) -> None:
    from cuadft import ablation

    done = ablation.run(
        arguments.preset,
        arguments.name,
        tuple(arguments.values),
        run_dir=arguments.run_dir,
        until=arguments.until,
        overrides=arguments.set,
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        log=lambda line: print(line, flush=True),
    )
    print(f"\n{done.text}\nWritten: {done.folder / 'ablation.md'} and ablation.csv")


def _fetch(arguments: argparse.Namespace) -> None:
    from cuadft import fetch, models, runs

    everything = not arguments.cuad and arguments.models is None
    if everything or arguments.cuad:
        folder = runs.resolve(arguments.data_dir or runs.root() / "data")
        print(f"CUAD: {fetch.cuad_from_zenodo(folder)}")
    if everything or arguments.models is not None:
        for name, path in models.fetch(arguments.models or None):
            print(f"{name}: {path}")


def _feedback(arguments: argparse.Namespace) -> None:
    from cuadft import exchange, labelstudio

    if arguments.action == "import":
        done = exchange.import_file(
            arguments.file,
            arguments.run,
            file_format="trl" if arguments.format == "kto" else arguments.format,
            annotator=arguments.annotator,
            contract=arguments.contract,
        )
        print(done.text())
        return
    if arguments.annotator or arguments.contract:
        raise InputError("--annotator and --contract belong to import: leave them out of an export.")
    counts = exchange.export_file(arguments.file, arguments.run, file_format=arguments.format)
    print(f"{arguments.file}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    if arguments.format == "labelstudio":
        print(f"Labelling interface of the project:\n{labelstudio.CONFIG}")


def _params(arguments: argparse.Namespace) -> None:
    from cuadft import params, runs

    known = params.declared(runs.root() / "notebooks")
    if arguments.name and arguments.name not in known:
        hint = params.nearest(arguments.name, known) or ", see `cuadft params`"
        raise InputError(f"No parameter {arguments.name!r}{hint}.")
    for name in [arguments.name] if arguments.name else sorted(known):
        one = known[name]
        where = " ".join(notebook[:2] for notebook in one.notebooks)
        by_loop = " (set by the loop)" if name in params.SET_BY_LOOP else ""
        print(f"{name}: {one.type} = {one.default!r} {one.limits}".rstrip() + by_loop)
        print(f"    {one.help}  (notebooks {where})")


HANDLERS = {
    "run": _run, "status": _status, "promote": _promote, "rollback": _rollback, "verify": _verify,
    "score": _score, "retrieval": _retrieval, "ablate": _ablate, "fetch": _fetch, "feedback": _feedback,
    "params": _params,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
