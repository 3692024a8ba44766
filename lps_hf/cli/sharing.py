"""Subcommands around sharing: card, publish, verify, info."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from .command import Command, Outcome, table


def _add_card_fields(parser: ArgumentParser) -> None:
    parser.add_argument("--license", help="licence of the weights, as the Hub writes it: apache-2.0, mit, cc-by-nc-4.0, …")
    parser.add_argument("--base_model", help="Hub id of the pretrained backbone (default: as results.json says)")
    parser.add_argument("--datasets", nargs="+", metavar="ID", help="Hub ids of the data sets (default: as results.json says)")
    parser.add_argument("--tags", nargs="+", metavar="TAG", help="tags beside the package's own")


def _card_fields(options: Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("license", "base_model", "datasets", "tags")}


def _add_card_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", help="checkpoint folder; its results.json gives the figures")
    parser.add_argument("--output", help="file to write, or - for stdout (default: README.md in the folder)")
    parser.add_argument("--model_id", help="Hub id that the examples of the card load")
    _add_card_fields(parser)


def _run_card(options: Namespace) -> Outcome:
    from lps_hf.hub.publishing import card_of_folder

    card = card_of_folder(options.folder, model_id=options.model_id, **_card_fields(options))
    if options.output == "-":
        return Outcome({"card": str(card)}, str(card))
    target = Path(options.output or Path(options.folder) / "README.md")
    card.save(target)
    return Outcome({"card": str(card), "file": str(target)}, f"Written to {target}")


CARD = Command(
    name="card",
    summary="write the model card of a checkpoint folder",
    description="""
        Makes README.md from the folder's configuration and results.json: what the model is, what goes in and comes out, its
        metric and its equivariance error against the number of samples, how it was trained, what its limits are. Every figure
        comes from results.json; what is not known is left out.
    """,
    examples=(
        "lps-hf card quickstart --license apache-2.0 --model_id me/skip-links",
        "lps-hf card quickstart --output -",
    ),
    add_arguments=_add_card_arguments,
    run=_run_card,
)


def _add_publish_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", help="checkpoint folder, as quickstart, train and symmetrize write it")
    parser.add_argument("repo_id", help="user/name on the Hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to; created if it does not exist")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--tag", help="tag the commit, such as v1.0")
    parser.add_argument("--commit_message", default="Upload symmetrized model", help="default: %(default)s")
    parser.add_argument("--dry_run", action="store_true", help="list what would go up, and send nothing")
    _add_card_fields(parser)


def _run_publish(options: Namespace) -> Outcome:
    from lps_hf.hub import PublishPlan, publish_folder

    done = publish_folder(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        create_pr=options.create_pr,
        tag=options.tag,
        commit_message=options.commit_message,
        dry_run=options.dry_run,
        **_card_fields(options),
    )
    if isinstance(done, PublishPlan):
        return Outcome(done.to_dict(), str(done))
    data = {"url": done.commit_url, "commit": done.oid, "pull_request": done.pr_url}
    return Outcome(data, table([(name, value) for name, value in data.items() if value]))


PUBLISH = Command(
    name="publish",
    summary="upload a checkpoint folder to the Hub as one commit",
    description="""
        Uploads weights, configuration, processor, the code that loads them without lps_hf, results.json and the model card,
        in one commit: the repository holds the old state or the new one, never a mixture.

        The token is that of `hf auth login` or of the variable HF_TOKEN.
    """,
    examples=(
        "lps-hf publish quickstart me/skip-links --dry_run",
        "lps-hf publish quickstart me/skip-links --private --license apache-2.0 --tag v1.0",
    ),
    add_arguments=_add_publish_arguments,
    run=_run_publish,
)


def _add_verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="checkpoint folder or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of the checkpoint")
    parser.add_argument("--dataset_name", help="where the data set is now, if not where results.json says")


def _run_verify(options: Namespace) -> Outcome:
    from lps_hf.hub.verification import verify

    found = verify(options.checkpoint, revision=options.revision, dataset=options.dataset_name, progress=True)
    return Outcome(found.to_dict(), str(found), found_fault=not found.ok)


VERIFY = Command(
    name="verify",
    summary="reload a checkpoint, measure again what its card says, and tell what differs",
    description="""
        Reloads a checkpoint in a fresh process, recomputes the equivariance figures of its card and, where the data set can
        be reached, its metrics. Only lps_hf's own code runs, never that of the checkpoint.

        Ends with exit code 3 where a figure differs by more than its error bar allows.
    """,
    examples=("lps-hf verify quickstart", "lps-hf verify me/my-model --revision v1.0 --json"),
    add_arguments=_add_verify_arguments,
    run=_run_verify,
)


# What some part of the package can use, and the extra that brings it.
_OPTIONAL = {
    "matplotlib": "viz",
    "rdkit": "chem",
    "canonaut": "canonical",
    "PIL": "vision",
    "networkx": None,
    "torch_geometric": None,
    "peft": None,
}


def _run_info(options: Namespace) -> Outcome:
    from importlib.metadata import packages_distributions, version
    from importlib.util import find_spec

    from lps_hf.evaluation.environment import environment

    data: dict[str, Any] = dict(environment())
    for name in ("accelerate", "datasets", "huggingface_hub", "safetensors", "numpy"):
        data[name] = version(name)
    distributions = packages_distributions()
    data["optional"] = {
        name: version(distributions[name][0]) if find_spec(name) and name in distributions else None for name in _OPTIONAL
    }
    lines = [(name, value) for name, value in data.items() if name != "optional"]
    for name, found in data["optional"].items():
        extra = _OPTIONAL[name]
        lines.append((name, found or "not installed" + (f"; pip install 'lps_hf[{extra}]'" if extra else "")))
    return Outcome(data, table(lines))


INFO = Command(
    name="info",
    summary="versions, device, and what is installed",
    description="""
        Prints what a bug report should hold: versions, the device that would be used, and which optional packages are there.
    """,
    examples=("lps-hf info", "lps-hf info --json"),
    add_arguments=lambda parser: None,
    run=_run_info,
)
