#!/usr/bin/env python
"""Write a data set as a folder of parquet files, for `--dataset_name` of the training scripts.

Generated ones need no file; options are those of the generator:

    python scripts/make_dataset.py pattern --output_dir data/pattern --num_train 1000 --option "sizes=[3, 8]"

Others are made from a raw file or folder:

    python scripts/make_dataset.py qm9 --source qm9.npz --output_dir data/qm9 --option targets=HOMO_LUMO_gap_au

The folder has a card, README.md, and is what the Hub calls a data set repository; to publish it:

    hf upload --repo-type dataset me/pattern data/pattern
"""

import argparse
from functools import partial
from typing import Any

import datasets
import yaml

from lps_hf.data.dataset_folders import DATASET_KINDS, SPLITS, check_new, make_splits, save_splits
from lps_hf.hub.dataset_card import make_dataset_card


def main() -> None:
    arguments = parse_arguments()
    check_new(arguments.output_dir)
    sizes = {split: getattr(arguments, f"num_{split}") for split in SPLITS if getattr(arguments, f"num_{split}")}
    options = dict(map(parse_option, arguments.option))
    datasets.disable_progress_bars()  # there is a bar over the splits
    splits = make_splits(arguments.kind, sizes, arguments.seed, arguments.source, options)
    kind = DATASET_KINDS[arguments.kind]
    make_card = partial(make_dataset_card, arguments.kind, seed=arguments.seed, options=options, license=arguments.license)
    folder = save_splits(splits, arguments.output_dir, kind.class_names, kind.task, make_card)
    rows = ", ".join(f"{split} {len(part)}" for split, part in splits.items())
    print(f"{folder}: {rows}; for {kind.task}")


def parse_arguments() -> argparse.Namespace:
    kinds = "\n".join(
        f"  {name:<22}{kind.task}; options: {', '.join(kind.option_names()) or 'none'}" for name, kind in DATASET_KINDS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"kinds:\n{kinds}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=DATASET_KINDS, metavar="kind", help="which data set; see below")
    parser.add_argument("--output_dir", required=True, help="a new folder")
    parser.add_argument("--source", help="raw file or folder, for kinds that are made from one")
    for split, size in zip(SPLITS, (1000, 200, 200), strict=True):
        parser.add_argument(f"--num_{split}", type=int, default=size, help=f"rows of this split, 0 for none; default {size}")
    parser.add_argument("--seed", type=int, default=0, help="seed of rows and cuts")
    parser.add_argument("--license", help="licence for the card; default: CC0 of generated rows, that of the source of others")
    parser.add_argument("--option", action="append", default=[], help="name=value, value as in YAML; may be repeated")
    return parser.parse_args()


def parse_option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"option: expected name=value, got {text!r}.")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    main()
