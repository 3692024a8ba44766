"""The parser, the exit codes, and the one place where errors become sentences."""

import argparse
import contextlib
import sys
import textwrap
import traceback
from collections.abc import Sequence

from lps_hf.evaluation.json_text import json_text

from .command import Command, Outcome
from .making import CONVERT, QUICKSTART, SYMMETRIZE, TRAIN
from .sharing import CARD, INFO, PUBLISH, VERIFY
from .using import EQUIVARIANCE, EVALUATE, PREDICT

COMMANDS = (QUICKSTART, SYMMETRIZE, TRAIN, EVALUATE, PREDICT, EQUIVARIANCE, CARD, PUBLISH, VERIFY, CONVERT, INFO)
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
            print(json_text(outcome.data))
        else:
            outcome = options.run(options)
            if outcome.text:
                print(outcome.text)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        if options.traceback:
            traceback.print_exc()
        print(f"lps-hf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lps-hf: interrupted", file=sys.stderr)
        return 130
    return 3 if outcome.found_fault else 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="lps-hf",
        description="Make any pretrained network equivariant, use it, and share it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
