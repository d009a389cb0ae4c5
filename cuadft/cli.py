"""The command line: `cuadft run | status | score | fetch | params`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from cuadft import __version__
from cuadft.errors import InputError

ROLES = ("question", "reference", "answer", "system", "contract")  # columns of an answer file that an option can name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for bad input or files, 1 for a failed stage, 130 for an interruption."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
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
    return 0


def _complain(error: Exception, debug: bool, *, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cuadft", description="Fine-tune small language models for contract review on CUAD."
    )
    parser.add_argument("--version", action="version", version=f"cuadft {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_run, _add_status, _add_score, _add_fetch, _add_params):
        add(commands, shared)
    return parser


def _add_run(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "run", parents=[shared], help="run a preset's notebooks in order; resume where a run stopped"
    )
    command.add_argument("preset", metavar="PRESET", help="a YAML file, or the name of one in params/")
    command.add_argument(
        "--iterations", type=int, default=1, metavar="N", help="rounds of the loop (default 1)"
    )
    command.add_argument("--run-dir", metavar="D", help="run folder (default runs/<name of the preset>)")
    command.add_argument("--until", metavar="STAGE", help="stop after this stage of the last iteration")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter (repeatable)"
    )
    command.set_defaults(command=_run)


def _add_status(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "status", parents=[shared], help="show a run's stages, scores and decisions"
    )
    command.add_argument("run_dir", metavar="D", help="run folder")
    command.set_defaults(command=_status)


def _add_score(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "score", parents=[shared], help="score any file of questions, references and answers",
        description="Score answer files (CSV, JSON lines): scoreboard, paired tests, figure, report and rows.",
    )  # fmt: skip
    add = command.add_argument
    add("predictions", nargs="*", metavar="PREDICTIONS", help="files with question, reference and answer; a file's "
        "name is the system's, unless a column names it")  # fmt: skip
    add("--judge", default="offline", metavar="ID", help="offline (default), or a LiteLLM id such as openai/gpt-4o")
    add("--votes", type=int, default=1, metavar="N", help="verdicts of an LLM judge per answer, the majority counts")
    add("--published", default="", metavar="DIR", help="a folder of published answers, to score and compare as well")
    add("--out", default="scores", metavar="DIR", help="folder of the results (default scores/)")
    for role in ROLES:
        add(f"--{role}", default="", metavar="COLUMN", help=f"column of the {role} (default: found by its name)")
    add("--verdict", default="", metavar="COLUMN", help="column of others' verdicts, to check the judge by")
    add("--n-resamples", type=int, default=2000, metavar="N", help="bootstrap resamples (default 2000)")
    add("--confidence", type=float, default=0.95, metavar="P", help="level of the intervals (default 0.95)")
    add("--seed", type=int, default=7, metavar="N", help="seed of the bootstrap (default 7)")
    add("--embedder", metavar="ID", default="", help="sentence-transformers model for the offline judge: slower, a "
        "little more exact (default none)")
    command.set_defaults(command=_score)


def _add_fetch(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "fetch", parents=[shared], help="download CUAD and model weights (without options: both)"
    )
    command.add_argument("--cuad", action="store_true", help="the CUAD contracts, from Zenodo")
    command.add_argument(
        "--models", nargs="*", metavar="ID", help="model weights (default: the quick start's)"
    )
    command.add_argument("--data-dir", metavar="D", help="folder for CUAD (default data/ in the project)")
    command.set_defaults(command=_fetch)


def _add_params(commands: argparse._SubParsersAction, shared: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "params", parents=[shared], help="list the parameters that a preset may set"
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="show this one only")
    command.set_defaults(command=_params)


def _run(arguments: argparse.Namespace) -> None:
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


def _status(arguments: argparse.Namespace) -> None:
    from cuadft import loop

    print(loop.status(arguments.run_dir))


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


def _fetch(arguments: argparse.Namespace) -> None:
    from cuadft import fetch, models, runs

    everything = not arguments.cuad and arguments.models is None
    if everything or arguments.cuad:
        folder = runs.resolve(arguments.data_dir or runs.root() / "data")
        print(f"CUAD: {fetch.cuad_from_zenodo(folder)}")
    if everything or arguments.models is not None:
        for name, path in models.fetch(arguments.models or None):
            print(f"{name}: {path}")


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


if __name__ == "__main__":
    sys.exit(main())
