#!/usr/bin/env python
"""Make the finished model cards in `model_cards/` from the runs of the released recipes.

    python scripts/make_model_cards.py
    python scripts/make_model_cards.py --check   # writes nothing, and fails where a card is not what would be written

A released run is a folder `scripts/recipes/results/<recipe>/` with `config.json` and `results.json` as the run has left them in
its output folder, and `card.yaml`, what its author has to say: arguments of `lps_hf.hub.model_card.make_model_card`. No weights
are needed. The figure is drawn where matplotlib is installed.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lps_hf.hub.model_card import make_model_card
from lps_hf.models.configuration_lps import LPSConfig

ROOT = Path(__file__).parents[1]
RUNS, CARDS = ROOT / "scripts" / "recipes" / "results", ROOT / "model_cards"


def released_runs(folder: Path = RUNS) -> dict[str, Path]:
    """The folders of the released runs, by recipe."""
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/results.json"))}


def read_run(folder: Path) -> tuple[LPSConfig, dict[str, Any], dict[str, Any]]:
    """Configuration, results and what the author gives."""
    given = folder / "card.yaml"
    return (
        LPSConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))),
        json.loads((folder / "results.json").read_text(encoding="utf-8")),
        yaml.safe_load(given.read_text(encoding="utf-8")) if given.is_file() else {},
    )


def card_of(folder: Path) -> str:
    """The card of a run."""
    config, results, given = read_run(folder)
    figure = f"{folder.name}.png" if results.get("samples") else None
    return str(make_model_card(config, results, figure=figure, **given))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a card is out of date")
    parser.add_argument("--results_dir", type=Path, default=RUNS, help="folder with a folder for every released run")
    parser.add_argument("--output_dir", type=Path, default=CARDS, help="where the cards go")
    args = parser.parse_args(arguments)
    outdated = []
    for name, folder in released_runs(args.results_dir).items():
        card, file = card_of(folder), args.output_dir / f"{name}.md"
        if args.check:
            outdated += [] if file.is_file() and file.read_text(encoding="utf-8") == card else [str(file)]
            continue
        args.output_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(card, encoding="utf-8")
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if results.get("samples") and find_spec("matplotlib"):
            from lps_hf.evaluation.samples_figure import samples_figure

            samples_figure(results).savefig(file.with_suffix(".png"))
        print(file)
    if outdated:
        print(f"Out of date, run scripts/make_model_cards.py: {', '.join(outdated)}", file=sys.stderr)
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
