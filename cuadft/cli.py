"""The command line: each command of `cuadft` with its options, as a thin call into the package.

    main(["run", "params/smoke.yaml", "--iterations", "2"])  # the same as `cuadft run params/smoke.yaml --iterations 2`

Every command stands here twice, one below the other: first the function that names its options, then the function that
runs it. They import the package only when they run, so that `cuadft --help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cuadft import __version__
from cuadft.core.errors import InputError, redact

ROLES = ("question", "reference", "answer", "system", "contract")  # columns of an answer file that an option can name
SHARED_OPTIONS: dict[str, dict[str, Any]] = {  # options that several commands have
    "preset": {"metavar": "PRESET", "help": "a YAML file, or the name of one in params/"},
    "run_dir": {"metavar": "D", "help": "run folder"},
    "--reason": {"required": True, "metavar": "TEXT", "help": "why, for the history"},
    "--n-resamples": {"type": int, "default": 2000, "metavar": "N", "help": "bootstrap resamples (default 2000)"},
    "--confidence": {"type": float, "default": 0.95, "metavar": "P", "help": "level of the intervals (default 0.95)"},
}
_Commands = argparse._SubParsersAction


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0: success. 1: a failed stage or check. 2: bad input. 3: an incomplete run. 130: interrupted.
    """
    arguments, code = parser().parse_args(argv), 0
    try:
        code = arguments.command(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader (head, less) has closed: nothing more can be written, also not at exit
        sys.stdout = None
    except (InputError, OSError) as error:
        return _complain(error, arguments.debug, code=2)
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on where this one stopped.", file=sys.stderr)
        return 130
    except RuntimeError as error:
        from cuadft.loop.runner import StageFailed

        if not isinstance(error, StageFailed):
            raise
        return _complain(error, arguments.debug, code=1)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the parsed `command` is the function that runs the command."""
    parser = argparse.ArgumentParser(
        prog="cuadft", description="Fine-tune small language models for contract review on CUAD."
    )
    parser.add_argument("--version", action="version", version=f"cuadft {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_status(commands)
    _add_promote(commands)
    _add_rollback(commands)
    _add_verify(commands)
    _add_score(commands)
    _add_retrieval(commands)
    _add_evaluate(commands)
    _add_ablate(commands)
    _add_fetch(commands)
    _add_feedback(commands)
    _add_params(commands)
    return parser


def _add(
    commands: _Commands,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    description: str | None = None,
    *,
    shared: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add the command that `run` runs, named after it, with --debug and some of `SHARED_OPTIONS`."""
    command = commands.add_parser(run.__name__.strip("_"), help=summary, description=description)
    command.set_defaults(command=run)
    command.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    _add_shared(command, *shared)
    return command


def _add_shared(command: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        command.add_argument(name, **SHARED_OPTIONS[name])


def _add_text(command: argparse.ArgumentParser, name: str, metavar: str, summary: str, default: str = "") -> None:
    """Add an option that takes a text, "" if it is left out."""
    command.add_argument(name, default=default, metavar=metavar, help=summary)


def _add_set(command: argparse.ArgumentParser, summary: str) -> None:
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=summary)


def _complain(error: Exception, debug: bool, *, code: int) -> int:
    if debug:
        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"error: {redact(str(error))}", file=sys.stderr)
    return code


def _print_now(line: str) -> None:
    print(line, flush=True)


def _add_run(commands: _Commands) -> None:
    summary = "run a preset's notebooks in order; resume where a run stopped"
    command = _add(commands, _run, summary, shared=["preset"])
    command.add_argument("--iterations", type=int, default=1, metavar="N", help="rounds of the loop (default 1)")
    command.add_argument("--run-dir", metavar="D", help="run folder (default runs/<name of the preset>)")
    command.add_argument("--until", metavar="STAGE", help="stop after this stage of the last iteration")
    _add_set(command, "set a parameter (repeatable)")


def _run(arguments: argparse.Namespace) -> int:
    from cuadft.loop import runner

    done = runner.run(
        arguments.preset,
        iterations=arguments.iterations,
        run_dir=arguments.run_dir,
        until=arguments.until,
        overrides=arguments.set,
        log=_print_now,
    )
    print(f"Run folder: {done['run_dir']} (see `cuadft status {done['run_dir']}`)")
    lacking = [step for step in done["steps"] if step["state"] == "incomplete"]
    for step in lacking:
        print(f"Incomplete: {step['stage']} of iteration {step['iteration']}: {step['reason']}")
    if lacking:
        print("What could be done is done. When the endpoint is back, the same command makes up for the rest.")
    return 3 if lacking else 0


def _add_status(commands: _Commands) -> None:
    _add(commands, _status, "show a run's stages, scores and decisions", shared=["run_dir"])


def _status(arguments: argparse.Namespace) -> None:
    from cuadft.loop import status

    print(status.run_status(arguments.run_dir))


def _add_promote(commands: _Commands) -> None:
    command = _add(
        commands,
        _promote,
        "make a system the champion by hand",
        "Make a system of a decided iteration the champion that the next iteration starts from. The gate's decision "
        "stays as it is; the choice, with its reason, goes into the run's history.",
        shared=["run_dir"],
    )
    systems = "rag, rag_compiled, retriever, or a folder of adapters such as sft"
    command.add_argument("system", metavar="SYSTEM", help=systems)
    _add_shared(command, "--reason")
    whose = "whose system it is (default: the newest that has decided)"
    command.add_argument("--iteration", type=int, metavar="N", help=whose)


def _promote(arguments: argparse.Namespace) -> None:
    from cuadft.loop import gate

    line = gate.promote(arguments.run_dir, arguments.system, reason=arguments.reason, iteration=arguments.iteration)
    _tell_champion(arguments.run_dir, line)


def _add_rollback(commands: _Commands) -> None:
    _add(
        commands,
        _rollback,
        "go back to the champion before the present one",
        "Make the champion before the present one the champion again; a second call goes back two steps.",
        shared=["run_dir", "--reason"],
    )


def _rollback(arguments: argparse.Namespace) -> None:
    from cuadft.loop import gate

    _tell_champion(arguments.run_dir, gate.rollback(arguments.run_dir, reason=arguments.reason))


def _tell_champion(run_dir: str, line: Mapping[str, Any]) -> None:
    """Print a change of the champion, and show it in the trackers that show the run."""
    from cuadft.core import runs

    after, before = runs.champion_label(line["to"]), runs.champion_label(line["from"])
    print(f"Champion: {after} (before: {before}). The next iteration starts from it.")
    if (runs.resolve_path(run_dir) / "trackers").is_dir() or "MLFLOW_TRACKING_URI" in os.environ:
        from cuadft.loop import trackers

        for shown in trackers.follow_run(run_dir).to_dict("records"):
            print(f"{shown['tracker']}: {shown['error'] or 'shows it too'}")


def _add_verify(commands: _Commands) -> None:
    command = _add(
        commands,
        _verify,
        "compute all hashes of a run again; show where an artefact comes from",
        "Name what is changed, missing, stale, unfinished or unaccounted for in a run folder; exit code 0 only if "
        "nothing is. With ARTEFACT: print its chain back to the contracts, and check that chain alone.",
    )
    command.add_argument("run_dir", metavar="RUN", help="run folder")
    artefact = "a file or folder of the run, such as iter-02/adapters/sft or scoreboard.csv"
    command.add_argument("artefact", nargs="?", default="", metavar="ARTEFACT", help=artefact)


def _verify(arguments: argparse.Namespace) -> int:
    from cuadft.loop import verify

    verdict = verify.verify_run(arguments.run_dir, arguments.artefact)
    print(verify.verification_text(verdict))
    return 1 if verdict.findings else 0


def _add_score(commands: _Commands) -> None:
    command = _add(
        commands,
        _score,
        "score any file of questions, references and answers",
        "Score answer files (CSV, JSON lines): scoreboard, paired tests, figure, report and rows.",
    )
    predictions = "files with question, reference and answer; a file's name is the system's, unless a column names it"
    command.add_argument("predictions", nargs="*", metavar="PREDICTIONS", help=predictions)
    _add_text(command, "--judge", "ID", "offline (default), or a LiteLLM id such as openai/gpt-4o", "offline")
    votes = "verdicts of an LLM judge per answer, the majority counts"
    command.add_argument("--votes", type=int, default=1, metavar="N", help=votes)
    _add_text(command, "--published", "DIR", "a folder of published answers, to score and compare as well")
    _add_text(command, "--out", "DIR", "folder of the results (default scores/)", "scores")
    for role in ROLES:
        _add_text(command, f"--{role}", "COLUMN", f"column of the {role} (default: found by its name)")
    _add_text(command, "--verdict", "COLUMN", "column of others' verdicts, to check the judge by")
    _add_shared(command, "--n-resamples", "--confidence")
    command.add_argument("--seed", type=int, default=7, metavar="N", help="seed of the bootstrap (default 7)")
    embedder = "sentence-transformers model for the offline judge: slower, a little more exact (default none)"
    _add_text(command, "--embedder", "ID", embedder)


def _score(arguments: argparse.Namespace) -> None:
    from cuadft.evaluation import score

    done = score.score_files(
        arguments.predictions,
        published=arguments.published,
        judge=arguments.judge,
        out=arguments.out,
        columns={role: getattr(arguments, role) for role in ROLES},
        verdict=arguments.verdict,
        votes=arguments.votes,
        encode=_encoder(arguments.embedder),
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        seed=arguments.seed,
        log=_print_now,
    )
    print(f"\n{score.score_summary(done)}\n")
    for line in done.published.findings if done.published else ():
        print(f"- {line}")
    print(f"Results: {done.out} (start with report.md)")


def _encoder(embedder: str) -> Callable[[list[str]], Any] | None:
    """Return what turns texts into unit vectors with a sentence-transformers model, None for ""."""
    if not embedder:
        return None
    from cuadft.models.weights import cache_dir, find_weights
    from cuadft.retrieval.embedder import Embedder

    try:
        return Embedder(find_weights(embedder), cache_dir=cache_dir()).encode
    except InputError as error:
        raise InputError(f"{error} Or leave --embedder out: the offline judge needs none.") from error


def _add_retrieval(commands: _Commands) -> None:
    command = _add(
        commands,
        _retrieval,
        "measure a saved retriever on the contracts of a file",
        "Measure a saved retriever, searching each question in its contract. Contracts that it was trained or tuned on "
        "are left out and named.",
    )
    add = command.add_argument
    add("retriever", metavar="FOLDER", help="a retriever/ folder that notebook 02 saved")
    add("--cuad", required=True, metavar="FILE", help="contracts in CUAD's layout (zip or JSON), sample or auto")
    add("--only-contracts", nargs="+", default=[], metavar="TITLE", help="titles, or a file with one title a line")
    add("--include-trained", action="store_true", help="measure also contracts that it was trained or tuned on")
    _add_text(command, "--embedder", "ID", "embedding model (default: the folder's own, else MiniLM)")
    _add_text(command, "--reranker", "ID", "cross-encoder, for a retriever that was saved with one")
    _add_text(command, "--model", "ID", "model whose tokens are counted (default SmolLM2-135M)")
    add("--passage-chars", type=int, metavar="N", help="size of new contracts' passages (default: as saved)")
    add("--overlap", type=float, metavar="S", help="share by which they overlap (default: as saved)")
    _add_text(command, "--out", "CSV", "write the table there, and the rows beside it")
    _add_shared(command, "--n-resamples", "--confidence")


def _retrieval(arguments: argparse.Namespace) -> None:
    from cuadft.retrieval import report

    done = report.measure_saved(
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
        log=_print_now,
    )
    print(f"\n{report.measured_text(done)}")
    for path in report.write_measured(done, arguments.out) if arguments.out else ():
        print(f"Written: {path}")


def _add_evaluate(commands: _Commands) -> None:
    command = _add(
        commands,
        _evaluate,
        "answer all questions of a file with a run's champion, and score the answers",
        "Ask a system of a run every question of a file, and print CUAD's measures as lines: name value [low, high] n. "
        "Contracts that the run learned from are left out and named. The same command goes on after a kill.",
    )
    add = command.add_argument
    add("run_dir", metavar="RUN", help="run folder")
    add("file", metavar="FILE", help="contracts in CUAD's layout (zip, JSON or a folder with it), sample or auto")
    system = "rag, rag_compiled, sft, dpo, ..., always_refuses or top_passage (default: the champion)"
    _add_text(command, "--system", "NAME", system)
    whose = "whose system it is (default: the newest; of the champion, the newest that has decided)"
    add("--iteration", type=int, metavar="N", help=whose)
    _add_text(command, "--out", "DIR", "folder of answers and measures (default RUN/evaluations/<FILE>-<NAME>)")
    _add_shared(command, "--n-resamples", "--confidence")


def _evaluate(arguments: argparse.Namespace) -> None:
    from cuadft.loop import unseen

    done = unseen.evaluate_file(
        arguments.run_dir,
        arguments.file,
        system=arguments.system,
        iteration=arguments.iteration,
        out=arguments.out,
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        log=_print_now,
    )
    print(f"\n{unseen.evaluation_text(done)}\n")
    print(f"Written: {done.out / 'measures.csv'}, measures.json and predictions.jsonl")


def _add_ablate(commands: _Commands) -> None:
    command = _add(
        commands,
        _ablate,
        "run a preset with two values of one parameter and compare",
        "Run a preset's first iteration with either value of a parameter, all else equal, and report the paired "
        "differences on the test split.",
        shared=["preset"],
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the parameter to vary, such as use_synthetic")
    add("values", nargs=2, metavar="VALUE", help="its two values, such as false true; the second less the first")
    add("--run-dir", metavar="D", help="folder of both runs and of the report (default runs/<name of the preset>)")
    until = "last stage (default inference_sft); rag_compile compares retrieval only"
    _add_text(command, "--until", "STAGE", until, "inference_sft")
    _add_set(command, "set a parameter in both (repeatable)")
    _add_shared(command, "--n-resamples", "--confidence")


def _ablate(arguments: argparse.Namespace) -> None:
    from cuadft.loop import ablation

    done = ablation.ablate(
        arguments.preset,
        arguments.name,
        tuple(arguments.values),
        run_dir=arguments.run_dir,
        until=arguments.until,
        overrides=arguments.set,
        n_resamples=arguments.n_resamples,
        confidence=arguments.confidence,
        log=_print_now,
    )
    print(f"\n{done.text}\nWritten: {done.folder / 'ablation.md'} and ablation.csv")


def _add_fetch(commands: _Commands) -> None:
    command = _add(commands, _fetch, "download CUAD and model weights (without options: both)")
    command.add_argument("--cuad", action="store_true", help="the CUAD contracts, from Zenodo")
    command.add_argument("--models", nargs="*", metavar="ID", help="model weights (default: the quick start's)")
    command.add_argument("--data-dir", metavar="D", help="folder for CUAD (default data/ in the project)")


def _fetch(arguments: argparse.Namespace) -> None:
    from cuadft.core import runs
    from cuadft.data import download
    from cuadft.models import weights

    everything = not arguments.cuad and arguments.models is None
    if everything or arguments.cuad:
        folder = runs.resolve_path(arguments.data_dir or runs.project_root() / "data")
        print(f"CUAD: {download.cuad_from_zenodo(folder)}")
    if everything or arguments.models is not None:
        for name, path in weights.fetch_weights(arguments.models or None):
            print(f"{name}: {path}")


def _add_feedback(commands: _Commands) -> None:
    command = _add(
        commands,
        _feedback,
        "take verdicts on answers from a file, or write them to one",
        "Import people's verdicts on pairs of answers into a run's feedback.sqlite, or export what is there. Only "
        "training questions are taken; held-out ones are refused, duplicates and contradictions reported.",
    )
    add = command.add_argument
    add("action", choices=("import", "export"), help="read FILE into the run's store, or write it")
    add("file", metavar="FILE", help="CSV, JSON lines or JSON")
    add("--run", required=True, metavar="D", help="run folder")
    layouts = (
        "layout of FILE: auto (default; export: trl), TRL's preference pairs, thumbs for KTO (import: trl reads them), "
        "Label Studio's pairwise comparisons, the AWS sample's answers (import only), or all that was said"
    )
    formats = ("auto", "trl", "kto", "labelstudio", "aws", "raw")
    add("--format", default="auto", choices=formats, help=layouts)
    _add_text(command, "--annotator", "NAME", "import: who gave the verdicts of rows that name nobody")
    _add_text(command, "--contract", "TITLE", "import: the contract of rows that name none")


def _feedback(arguments: argparse.Namespace) -> None:
    from cuadft.feedback import exchange, labelstudio

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
        print(f"Labelling interface of the project:\n{labelstudio.LABELLING_INTERFACE}")


def _add_params(commands: _Commands) -> None:
    command = _add(commands, _params, "list the parameters that a preset may set")
    command.add_argument("name", nargs="?", metavar="NAME", help="show this one only")


def _params(arguments: argparse.Namespace) -> None:
    from cuadft.core import params, runs

    known = params.declared_parameters(runs.project_root() / "notebooks")
    if arguments.name and arguments.name not in known:
        hint = params.did_you_mean(arguments.name, known) or ", see `cuadft params`"
        raise InputError(f"No parameter {arguments.name!r}{hint}.")
    for name in [arguments.name] if arguments.name else sorted(known):
        one = known[name]
        where = " ".join(notebook[:2] for notebook in one.notebooks)
        by_loop = " (set by the loop)" if name in params.SET_BY_LOOP else ""
        print(f"{name}: {one.type} = {one.default!r} {one.limits}".rstrip() + by_loop)
        print(f"    {one.help}  (notebooks {where})")


if __name__ == "__main__":
    sys.exit(main())
