"""The command line: each command of `cuadft` with its options, as a thin call into the package.

    main(["run", "params/smoke.yaml", "--iterations", "2"])  # the same as `cuadft run params/smoke.yaml --iterations 2`

A command is one function: its parameters are the options, its docstring is the help. It passes its options on by name
(`options`), and imports the package only when it runs, so that `cuadft --help` is quick.
"""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from cuadft import __version__
from cuadft.core import progress
from cuadft.core.errors import InputError, StageFailed, redact

LOCAL = "127.0.0.1"  # where `serve` listens
ROLES = ("question", "reference", "answer", "system", "contract")  # columns of an answer file that an option can name


class _Commands(TyperGroup):
    """The commands, each of which ends an error that is no fault of cuadft with one message and an exit code."""

    def invoke(self, ctx: typer.Context) -> None:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # the reader (head, less) has closed: nothing more can be written, also not at exit
            code, sys.stdout = 0, None
        except KeyboardInterrupt:
            print("\nInterrupted: the same command goes on where this one stopped.", file=sys.stderr)
            code = 130
        except (InputError, OSError, StageFailed) as error:
            code = 1 if isinstance(error, StageFailed) else 2
            if ctx.params["debug"]:
                print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
            print(f"error: {redact(str(error))}", file=sys.stderr)
        ctx.exit(code or 0)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_print_now = partial(print, flush=True)

# groups of commands in the help
LOOP, MEASURE, USE, GIVE = "The loop", "Measure and compare", "Use it", "Data, weights and parameters"


def _argument(metavar: str, summary: str) -> Any:
    return typer.Argument(metavar=metavar, help=summary, show_default=False)


def _option(name: str, metavar: str, summary: str) -> Any:
    return typer.Option(name, metavar=metavar, help=summary)


Preset = Annotated[str, _argument("PRESET", "a YAML file, or the name of one in params/")]
RunFolder = Annotated[str, _argument("RUN", "run folder")]
Overrides = Annotated[list[str], _option("--set", "NAME=VALUE", "set parameters (--set a=1 b=2)")]
Resamples = Annotated[int, _option("--n-resamples", "N", "bootstrap resamples")]
Confidence = Annotated[float, _option("--confidence", "P", "level of the intervals")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0: success. 1: a failed stage or check. 2: bad input. 3: an incomplete run. 130: interrupted.
    """
    progress.escape_unprintable()
    # --debug may stand anywhere, and belongs to the group of commands
    words = sorted(_one_set_each(sys.argv[1:] if argv is None else argv), key=lambda word: word != "--debug")
    try:
        app(words, prog_name="cuadft")
    except SystemExit as end:
        return end.code


def _one_set_each(words: Sequence[str]) -> list[str]:
    """Return the words with --set before each NAME=VALUE that follows another: `--set seed=1 sft_rows=64` sets both."""
    spread: list[str] = []
    setting = False
    for word in words:
        is_pair = bool(re.match(r"\w+=", word))
        spread += ["--set"] * (setting and is_pair and spread[-1] != "--set") + [word]
        setting = word == "--set" or word.startswith("--set=") or (setting and is_pair)
    return spread


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cuadft {__version__}")
        raise typer.Exit


@app.callback()
def _cuadft(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the full traceback of an error")] = False,
) -> None:
    """Fine-tune small language models for contract review on CUAD."""


@app.command(rich_help_panel=LOOP)
def init(
    folder: Annotated[str, _argument("FOLDER", "a new folder")],
    documents: Annotated[str, _option("--documents", "DIR", "your PDF, DOCX or TXT files")] = "",
    questions: Annotated[str, _option("--questions", "FILE", "your questions (TXT, CSV or a schema in YAML)")] = "",
) -> None:
    """Start your own: a schema of questions, a preset, and an example or a table of answers to fill in."""
    from cuadft.loop import start

    print(start.started_text(start.start_folder(folder, documents=documents, questions=questions, log=_print_now)))


@app.command(rich_help_panel=LOOP)
def label(
    folder: Annotated[str, _argument("FOLDER", "a folder of `cuadft init`, with a filled labels.csv")],
    documents: Annotated[list[str], _argument("DOCUMENTS", "the documents, as files or folders")],
) -> None:
    """Make annotated documents of the answers in labels.csv, for the first run or the next iteration."""
    from cuadft.loop import labels

    print(labels.label_documents(folder, documents).text())


@app.command(rich_help_panel=LOOP)
def run(
    preset: Preset,
    iterations: Annotated[int, _option("--iterations", "N", "rounds of the loop")] = 1,
    run_dir: Annotated[str | None, _option("--run-dir", "D", "run folder (default runs/<name of the preset>)")] = None,
    until: Annotated[
        str | None, _option("--until", "STAGE", "last stage of the last iteration, as fine_tune or 04")
    ] = None,
    overrides: Overrides = (),
) -> int:
    """Run a preset's notebooks in order; resume where a run stopped."""
    from cuadft.loop import runner

    done = runner.run(preset, iterations=iterations, run_dir=run_dir, until=until, overrides=overrides, log=_print_now)
    print(f"Run folder: {done['run_dir']} (see `cuadft status {shlex.quote(done['run_dir'])}`)")
    return _end_of_steps(done["steps"])


def _end_of_steps(steps: Sequence[dict[str, Any]]) -> int:
    """Say what is incomplete, and return the exit code."""
    lacking = [step for step in steps if step["state"] == "incomplete"]
    for step in lacking:
        print(f"Incomplete: {step['stage']} of iteration {step['iteration']}: {step['reason']}")
    if lacking:
        print("What could be done is done. When the endpoint is back, the same command makes up for the rest.")
    return 3 if lacking else 0


@app.command(rich_help_panel=LOOP)
def stage(
    run_dir: RunFolder,
    iteration: Annotated[int, _argument("ITERATION", "round of the loop, from 1")],
    name: Annotated[str, _argument("NAME", "as `cuadft status` shows it: fine_tune, inference_sft ...")],
    preset: Annotated[str | None, _option("--preset", "PRESET", "default: that of the run's last call")] = None,
    overrides: Overrides = None,
) -> int:
    """Run one stage of a run, for an orchestrator such as Dagster.

    Does what `cuadft run` does for this stage: nothing if it is done and unchanged. A stage before it that is not done
    is named. --preset and --set are needed once; later calls take those of the run's last call.
    """
    options = {**locals()}
    from cuadft.loop import runner

    return _end_of_steps(runner.run_stage(**options, log=_print_now)["steps"])


@app.command(rich_help_panel=LOOP)
def status(run_dir: RunFolder) -> None:
    """Show a run's stages, scores and decisions."""
    from cuadft.loop import status

    print(status.run_status(run_dir))


@app.command(rich_help_panel=LOOP)
def report(
    run_dir: RunFolder,
    out: Annotated[str, _option("--out", "FILE", "an HTML file (default RUN/report.html)")] = "",
) -> None:
    """Write one web page of a whole run, for people who did not watch it.

    What was asked, scores with intervals, decisions, what was forgotten, training curves, the best and worst answers,
    cost, where the champion comes from, and parameters. It holds all that it needs, loads nothing and prints well; a
    run that is not finished has a page, too, which says what is missing.
    """
    from cuadft.loop import report

    print(f"Written: {report.write_report(run_dir, out, log=_print_now)}")


@app.command(rich_help_panel=LOOP)
def promote(
    run_dir: RunFolder,
    system: Annotated[str, _argument("SYSTEM", "rag, rag_compiled, retriever, or a folder of adapters such as sft")],
    reason: Annotated[str, _option("--reason", "TEXT", "why, for the history")],
    iteration: Annotated[int | None, _option("--iteration", "N", "default: the newest that has decided")] = None,
) -> None:
    """Make a system the champion by hand, or go back to that of an earlier iteration.

    The next iteration starts from it. The gate's decision stays as it is; the choice, with its reason, goes into the
    run's history.
    """
    from cuadft.core import runs
    from cuadft.loop import gate, trackers

    line = gate.promote(run_dir, system, reason=reason, iteration=iteration)
    after, before = runs.champion_label(line["to"]), runs.champion_label(line["from"])
    print(f"Champion: {after} (before: {before}). The next iteration starts from it.")
    for shown in trackers.follow_run(run_dir):
        print(f"{shown['tracker']}: {shown['error'] or 'shows it too'}")


@app.command(rich_help_panel=LOOP)
def verify(
    run_dir: RunFolder,
    artefact: Annotated[str, _argument("ARTEFACT", "part of the run, such as iter-02/adapters/sft")] = "",
) -> int:
    """Compute all hashes of a run again; show where an artefact comes from.

    Names what is changed, missing, stale, unfinished or unaccounted for; the exit code is 0 only if nothing is. With
    ARTEFACT: prints its chain back to the contracts, and checks that chain alone.
    """
    from cuadft.loop import verify

    verdict = verify.verify_run(run_dir, artefact)
    print(verify.verification_text(verdict))
    return 1 if verdict.findings else 0


@app.command(rich_help_panel=MEASURE)
def score(
    paths: Annotated[list[str], _argument("PREDICTIONS", "files of questions, references and answers")] = (),
    judge: Annotated[str, _option("--judge", "ID", "offline, or a LiteLLM id such as openai/gpt-4o")] = "offline",
    votes: Annotated[int, _option("--votes", "N", "verdicts of an LLM judge per answer, the majority counts")] = 1,
    published: Annotated[str, _option("--published", "DIR", "published answers, to score and compare as well")] = "",
    out: Annotated[str, _option("--out", "DIR", "folder of the results")] = "scores",
    question: Annotated[str, _option("--question", "COLUMN", "column of the question (default: by its name)")] = "",
    reference: Annotated[str, _option("--reference", "COLUMN", "column of the reference")] = "",
    answer: Annotated[str, _option("--answer", "COLUMN", "column of the answer")] = "",
    system: Annotated[str, _option("--system", "COLUMN", "column of the system")] = "",
    contract: Annotated[str, _option("--contract", "COLUMN", "column of the contract")] = "",
    verdict: Annotated[str, _option("--verdict", "COLUMN", "others' verdicts, to check the judge by")] = "",
    refusals: Annotated[str, _option("--refusals", "READING", "what refuses: whole, sentence or judge")] = "whole",
    n_resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
    seed: Annotated[int, _option("--seed", "N", "seed of the bootstrap")] = 7,
) -> None:
    """Score any file of questions, references and answers.

    Reads CSV, JSON lines, JSON and parquet; writes a scoreboard, paired tests, a figure, a report and the rows.
    """
    options = {**locals()}
    from cuadft.evaluation import score

    options["columns"] = {role: options.pop(role) for role in ROLES}
    done = score.score_files(**options, log=_print_now)
    print(f"\n{done.summary}\n")
    print(f"Results: {out} (start with report.txt)")


@app.command(rich_help_panel=MEASURE)
def retrieval(
    folder: Annotated[str, _argument("FOLDER", "a retriever/ folder that notebook 02 saved")],
    cuad: Annotated[
        str, _option("--cuad", "FILE", "contracts in a layout of CUAD (file, zip, folder), sample or auto")
    ],
    include_trained: Annotated[bool, typer.Option("--include-trained", help="measure these contracts also")] = False,
    embedder: Annotated[str, _option("--embedder", "ID", "of a folder without an embedder (default MiniLM)")] = "",
    model: Annotated[str, _option("--model", "ID", "model whose tokens are counted (default SmolLM2-135M)")] = "",
    out: Annotated[str, _option("--out", "CSV", "write the table there, and the rows beside it")] = "",
    n_resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
) -> None:
    """Measure a saved retriever on the contracts of a file.

    Each question is searched for in its contract. Contracts that it was trained or tuned on are left out and named.
    """
    options = {**locals()}
    from cuadft.retrieval import report

    del options["out"]
    done = report.measure_saved(**options, log=_print_now)
    print(f"\n{report.measured_text(done)}")
    for path in report.write_measured(done, out) if out else ():
        print(f"Written: {path}")


@app.command(rich_help_panel=MEASURE)
def evaluate(
    run_dir: RunFolder,
    file: Annotated[str, _argument("FILE", "contracts in a layout of CUAD (file, zip, folder), sample or auto")],
    system: Annotated[str, _option("--system", "NAME", "rag, sft ... (default: the champion)")] = "",
    iteration: Annotated[int | None, _option("--iteration", "N", "whose system (default: the newest)")] = None,
    out: Annotated[str, _option("--out", "DIR", "results (default RUN/evaluations/<FILE>-<NAME>)")] = "",
    n_resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
) -> None:
    """Answer all questions of a file with a run's champion, and score the answers.

    Prints CUAD's measures as lines: name value [low, high] n. Contracts that the run learned from are left out and
    named. The same command goes on after a kill.
    """
    options = {**locals()}
    from cuadft.loop import unseen

    done = unseen.evaluate_file(**options, log=_print_now)
    print(f"\n{unseen.evaluation_text(done)}\n")
    print(f"Written: {done.out / 'measures.csv'}, measures.json and predictions.jsonl")


@app.command(rich_help_panel=MEASURE)
def compare(
    run_a: Annotated[str, _argument("RUN_A", "run folder")],
    run_b: Annotated[str, _argument("RUN_B", "run folder of the same test questions")],
    iteration: Annotated[int, _option("--iteration", "N", "of both runs")] = 1,
    n_resamples: Resamples = 2000,
    confidence: Confidence = 0.95,
) -> None:
    """Show the paired differences of two runs on the test split, RUN_B less RUN_A.

    For an ablation run a preset twice, with --run-dir and --set.
    """
    options = {**locals()}
    from cuadft.loop import run_comparison

    print(run_comparison.compare_runs(**options).round(3).to_string(index=False))


@app.command(rich_help_panel=USE)
def review(
    run_dir: RunFolder,
    paths: Annotated[list[str], _argument("FILE_OR_FOLDER", "PDF, DOCX, TXT, or CUAD's layout (JSON, zip)")],
    questions: Annotated[str, _option("--questions", "FILE", "your own questions (TXT, CSV, JSON lines)")] = "",
    out: Annotated[str, _option("--out", "DIR", "results (default RUN/reviews/<FILE>-<NAME>)")] = "",
    system: Annotated[str, _option("--system", "NAME", "rag, sft ... (default: the champion)")] = "",
    iteration: Annotated[int | None, _option("--iteration", "N", "whose system (default: the newest)")] = None,
) -> int:
    """Find the clauses of contracts with a run's champion.

    Writes a page for each contract, review.csv, review.jsonl and review.xlsx. Correct review.csv in a spreadsheet, and
    `cuadft feedback import RUN review.csv` takes it back. The same command goes on after a kill; the exit code is 3 if
    a file could not be read.
    """
    options = {**locals()}
    from cuadft.review import folder

    done = folder.review_files(**options, log=_print_now)
    print(f"\n{folder.reviewed_text(done)}")
    return 0 if done.complete else 3


@app.command(rich_help_panel=USE)
def export(
    run_dir: RunFolder,
    system: Annotated[str, _argument("SYSTEM", "rag, sft ... (default: the champion)")] = "",
    to: Annotated[str, _option("--to", "DIR", "folder of the export, new or empty")] = "",
    push: Annotated[str, _option("--push", "REPO", "upload it to the hub, owner/name, private if it is new")] = "",
    iteration: Annotated[int | None, _option("--iteration", "N", "whose system (default: the newest)")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="write over an earlier export in DIR")] = False,
    check: Annotated[int, _option("--check", "N", "test prompts to compare the exported weights on")] = 20,
) -> None:
    """Write a system's weights, prompt, search and a model card to a folder.

    Merged weights, the adapter, GGUF with an Ollama Modelfile. README.md there says what each file is for. The exported
    weights answer some of the run's test prompts, and how many alike is printed. --push takes the hub's token from
    HF_TOKEN.
    """
    options = {**locals()}
    from cuadft.review import export

    if not options.pop("to"):
        raise InputError("Name the folder of the export: --to DIR.")
    if options.pop("push"):
        export.hub(push)  # a missing token is told before the work
    done = export.export_system(options.pop("run_dir"), to, **options, log=_print_now)
    for note in done.notes:
        print(note)
    print(f"{'Written' if done.new else 'Already there'}: {done.folder} ({done.system}; start with README.md)")
    if push:
        print(f"Pushed: {export.push(done.folder, push)}")


@app.command(rich_help_panel=USE)
def serve(
    run_dir: RunFolder,
    host: Annotated[
        str, _option("--host", "ADDRESS", "another one than this machine's own needs CUADFT_TOKEN")
    ] = LOCAL,
    port: Annotated[int, _option("--port", "N", "0 for any free one")] = 8000,
    system: Annotated[str, _option("--system", "NAME", "rag, sft ... (default: the champion)")] = "",
    iteration: Annotated[int | None, _option("--iteration", "N", "whose system (default: the newest)")] = None,
    megabytes: Annotated[float, _option("--megabytes", "N", "largest request")] = 20,
    seconds: Annotated[float, _option("--seconds", "N", "longest time of a request, the wait included")] = 600,
) -> None:
    """Review contracts over HTTP, with a page that takes a dropped PDF.

    POST /review (a form with file or text), POST /ask (JSON with contract and question), GET /health; /docs tells the
    rest. Only this machine can reach it, unless --host says otherwise and the environment sets CUADFT_TOKEN.
    """
    from cuadft.review import serve

    limits = serve.Limits(megabytes, seconds)
    serve.serve(run_dir, host=host, port=port, system=system, iteration=iteration, limits=limits, log=_print_now)


@app.command(rich_help_panel=GIVE)
def fetch(
    ids: Annotated[list[str], _argument("ID", "models to fetch (default: the quick start's)")] = (),
    cuad: Annotated[bool, typer.Option("--cuad", help="the CUAD contracts, from Zenodo")] = False,
    models: Annotated[bool, typer.Option("--models", help="model weights")] = False,
) -> None:
    """Download CUAD and model weights (without options: both)."""
    from cuadft.core import runs
    from cuadft.data import download
    from cuadft.models import weights

    if cuad or not (models or ids):
        print(f"CUAD: {download.cuad_from_zenodo(runs.project_root() / 'data')}")
    if models or ids or not cuad:
        for name, path in weights.fetch_weights(ids or None):
            print(f"{name}: {path}")


@app.command(rich_help_panel=GIVE)
def feedback(
    action: Annotated[Literal["import", "export"], typer.Argument(help="read FILE into the run's store, or write it")],
    paths: Annotated[list[str], _argument("[RUN] FILE", "import: a table, JSON lines or a store; export: JSON lines")],
    run: Annotated[str, _option("--run", "D", "run folder, if it is not given before FILE")] = "",
    annotator: Annotated[str, _option("--annotator", "NAME", "import: who gave verdicts without a name")] = "",
    contract: Annotated[str, _option("--contract", "TITLE", "import: the contract of rows that name none")] = "",
    verdict: Annotated[str, _option("--verdict", "COLUMN", "import: what says which answer is better")] = "",
    means: Annotated[
        list[str], _option("--means", "WORDS=V", "import: a, b, tie, both_wrong or skip (repeatable)")
    ] = (),
) -> None:
    """Take verdicts on answers from a file, or write them to one.

    Import reads people's verdicts on pairs of answers into a run's feedback.sqlite. Only training questions are taken;
    held-out ones are refused, duplicates and contradictions reported. Read are TRL's preference pairs and thumbs, Label
    Studio's exports (JSON, JSON_MIN, CSV), tables of two answers and a winner, the AWS sample's answers and another
    run's feedback.sqlite; written are TRL's pairs as JSON lines. Words that are not understood are named; say what they
    mean, as in --means "Antwort 1=a". The review.csv of `cuadft review`, corrected in a spreadsheet, is read as well:
    the next iteration learns from it.
    """
    options = {"annotator": annotator, "contract": contract, "verdict": verdict, "means": means}
    from cuadft.feedback import corrections, exchange

    *before, file = paths
    if len([*before, *filter(None, [run])]) != 1:
        raise InputError("Give one run and one file: cuadft feedback import RUN FILE, or FILE --run RUN.")
    run = run or before[0]
    if action == "import" and corrections.is_review(file):
        if contract or verdict or means:
            raise InputError("A review.csv takes no --contract, --verdict or --means: they belong to files of votes.")
        print(corrections.import_corrections(file, run, annotator=annotator).text())
        return
    if action == "import":
        print(exchange.import_file(file, run, **options).text())
        return
    if any(options.values()):
        given = " and ".join(f"--{name}" for name, value in options.items() if value)
        raise InputError(f"{given} belong to import: leave them out of an export.")
    counts = exchange.export_file(file, run)
    print(f"{file}: {', '.join(f'{count} {name}' for name, count in counts.items())}")


@app.command(rich_help_panel=GIVE)
def params(name: Annotated[str, _argument("NAME", "show this one only")] = "") -> None:
    """List the parameters that a preset may set."""
    from cuadft.core import params, runs

    known = params.declared_parameters(runs.project_root() / "notebooks")
    if name and name not in known:
        raise InputError(f"No parameter {name!r}{params.did_you_mean(name, known) or ', see `cuadft params`'}.")
    for one in [known[name]] if name else sorted(known.values(), key=lambda one: one.name):
        by_loop = " (set by the loop)" if one.name in params.SET_BY_LOOP else ""
        print(f"{one.name}: {one.type} = {one.default!r} {one.limits}".rstrip() + by_loop)
        print(f"    {one.help}  (notebooks {' '.join(notebook[:2] for notebook in one.notebooks)})")


if __name__ == "__main__":
    sys.exit(main())
