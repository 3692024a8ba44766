"""The parser, the exit codes, and the one place where errors become sentences."""

import argparse
import contextlib
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence

import lps_hf
from lps_hf.evaluation.json_text import json_text

from .command import Command, Outcome
from .making import CONVERT, QUICKSTART, SYMMETRIZE, TRAIN
from .sharing import CARD, INFO, PUBLISH, VERIFY
from .using import EQUIVARIANCE, EVALUATE, PREDICT

COMMANDS = (QUICKSTART, SYMMETRIZE, TRAIN, EVALUATE, PREDICT, EQUIVARIANCE, CARD, PUBLISH, VERIFY, CONVERT, INFO)
# Errors that say what happened and what to do.
_IN_WORDS = (OSError, ValueError, TypeError, RuntimeError, ImportError)
EXIT_CODES = """exit codes:
  0    done
  1    failed; the reason is on stderr, in one line
  2    wrong arguments
  3    checked, and something is wrong (verify, equivariance)
  130  interrupted

Results go to stdout, progress and messages to stderr."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        Exit code: 0 on success, 1 where the job failed with a message, 2 where the arguments are wrong, 3 where a check failed,
        130 where the user interrupted it.
    """
    parser = make_parser()
    options, more = parser.parse_known_args(arguments)
    if more and not options.takes_more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.more = more
    try:
        if options.json:
            # Stdout holds the one object and nothing that the job prints on its way.
            with contextlib.redirect_stdout(sys.stderr):
                outcome: Outcome = options.run(options)
            print(json_text(outcome.data), flush=True)
        else:
            outcome = options.run(options)
            if outcome.text:
                print(outcome.text, flush=True)
    except BrokenPipeError:
        # Whoever reads has seen enough, such as `head`. Python would complain once more when it closes stdout.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        _end_progress_bars()
        print(f"lps-hf: {_in_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _end_progress_bars()
        print("lps-hf: interrupted", file=sys.stderr)
        return 130
    return 3 if outcome.found_fault else 0


def _end_progress_bars() -> None:
    """Go to a new line, where a job that failed has left a bar behind."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    for bar in list(bars):
        bar.close()


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, _IN_WORDS) and text:
        return text
    # Its text was not written for those who read it here, and it may be a mistake of ours.
    causes = [one for one in (error, error.__cause__) if one is not None]
    texts = [f"{type(one).__name__}: {' '.join(str(one).split())}".rstrip(": .") for one in causes]
    return f"{'; '.join(texts)}. Add --traceback to see where it comes from."


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="lps-hf",
        description="Make any pretrained network equivariant, use it, and share it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lps-hf {lps_hf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        _add(commands, command)
    return parser


def _add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", command: Command) -> None:
    description = "\n\n".join(textwrap.fill(" ".join(part.split()), 100) for part in command.description.strip().split("\n\n"))
    examples = "examples:\n" + "\n".join(f"  {example}" for example in command.examples)
    parser = commands.add_parser(
        command.name,
        help=command.summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser.set_defaults(run=command.run, takes_more=command.takes_more)
