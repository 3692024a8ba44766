"""What a subcommand is, and how its result is printed."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# Of `lps_hf.data.rows.TASK_COLUMNS`, whose import takes seconds that a help page should not.
TASK_NAMES = (
    "graph-classification",
    "node-classification",
    "link-prediction",
    "particle-dynamics",
    "molecule-regression",
    "point-cloud-classification",
    "image-classification",
)


class Outcome(NamedTuple):
    """What a subcommand has to say."""

    data: dict[str, Any]
    """For machines: what `--json` prints."""
    text: str
    """For people; nothing where it is empty."""
    found_fault: bool = False
    """Whether a check was made and failed; the exit code is then 3."""


@dataclass(frozen=True)
class Command:
    """One subcommand of `lps-hf`."""

    name: str
    summary: str
    """One line in the list of commands."""
    description: str
    """Paragraphs, which are wrapped anew."""
    examples: Sequence[str]
    """Command lines, for the end of the help."""
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Outcome]
    takes_more: bool = False
    """Whether arguments that the parser does not know are handed on, as `options.more`."""


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
