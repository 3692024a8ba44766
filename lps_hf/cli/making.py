"""Subcommands that make a checkpoint: quickstart, symmetrize, train, convert."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .command import TASK_NAMES, Command, Outcome, table

_FIELDS = ("group", "distribution", "max_nodes", "node_categories", "edge_categories", "num_labels", "problem_type", "grid_size")
_SET_HELP = "any other field of LPSConfig, read by its type, such as centered_padding=true; may be given several times"


def _add_quickstart_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output_dir", default="quickstart", help="folder to write to (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, weights and draws (default: %(default)s)")


def _run_quickstart(options: Namespace) -> Outcome:
    if find_spec("matplotlib") is None:
        raise ImportError("quickstart draws a figure and needs matplotlib: pip install 'lps_hf[viz]'.")
    from transformers.utils import logging

    from lps_hf.training.quickstart import run_quickstart

    logging.disable_progress_bar()
    results = run_quickstart(options.output_dir, options.steps, options.seed)
    text = (
        f"\nTest accuracy           {results['test_accuracy']:.1%}   (best 1-WL network {results['wl1_accuracy']:.1%}, chance "
        f"{results['chance_accuracy']:.1%})\n"
        f"Equivariance error      {results['equivariance_error']:.3f} ± {results['equivariance_error_standard_error']:.3f}"
        f"   relative, {results['num_eval_samples']} samples; falls as 1/√samples\n"
        f"  of the plain backbone {results['backbone_equivariance_error']:.3f} ± "
        f"{results['backbone_equivariance_error_standard_error']:.3f}\n"
        f"Reloaded logits         equal\n"
        f"Time                    {results['seconds']:.0f} s\n"
        f"Written to              {options.output_dir}  (see README.md and quickstart.png)"
    )
    return Outcome(results, text)


QUICKSTART = Command(
    name="quickstart",
    summary="train, evaluate, save and reload a small symmetrized model; no network, under two minutes",
    description="""
        Symmetrizes a tiny ViT, trains it on circular skip links (a task that no 1-WL network can solve), saves it, reloads it
        in a fresh process and measures its equivariance.

        Writes a checkpoint with its model card, results.json and quickstart.png.
    """,
    examples=("lps-hf quickstart --output_dir quickstart", "lps-hf verify quickstart"),
    add_arguments=_add_quickstart_arguments,
    run=_run_quickstart,
)


def _add_symmetrize_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("backbone", help="pretrained backbone: a Hub id or a folder")
    parser.add_argument("folder", help="checkpoint folder to write")
    parser.add_argument(
        "--task",
        choices=TASK_NAMES,
        default="graph-classification",
        metavar="TASK",
        help="one of " + ", ".join(TASK_NAMES) + " (default: %(default)s)",
    )
    parser.add_argument("--dataset_name", help="read sizes, categories and labels off this data set: a Hub id or a folder")
    parser.add_argument("--dataset_config_name", help="its configuration, where it has several")
    parser.add_argument("--revision", help="branch, tag or commit of the backbone")
    parser.add_argument("--group", help="symmetry group, such as S_n, 'S_n x E(3)' or C_4; default: the task's own")
    parser.add_argument("--distribution", help="learned, canonical, frame, haar, exact or none (default: learned)")
    parser.add_argument("--max_nodes", type=int, help="largest graph that the model takes")
    parser.add_argument("--node_categories", type=int, nargs="+", metavar="SIZE", help="values of each categorical node feature")
    parser.add_argument("--edge_categories", type=int, nargs="+", metavar="SIZE", help="values of each categorical edge feature")
    parser.add_argument("--num_labels", type=int, help="classes or targets")
    parser.add_argument("--problem_type", help="single_label_classification, multi_label_classification or regression")
    parser.add_argument("--grid_size", type=int, help="the backbone sees grid_size² tokens (default: its own grid)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=_SET_HELP)
    parser.add_argument("--seed", type=int, default=0, help="seed of the new weights (default: %(default)s)")


def _run_symmetrize(options: Namespace) -> Outcome:
    from transformers import set_seed

    from lps_hf.data.rows import load_dataset_for
    from lps_hf.hub.checkpoints import save_checkpoint
    from lps_hf.models.processing_lps import LPSProcessor
    from lps_hf.random_state import unchanged_random_state
    from lps_hf.training.tasks import TASKS

    if Path(options.backbone).is_absolute() and not Path(options.backbone).is_dir():  # and so no Hub id
        raise FileNotFoundError(f"backbone: expected a Hub id or a folder, got {options.backbone}, which does not exist.")
    splits = None
    if options.dataset_name is not None:
        splits = load_dataset_for(options.task, options.dataset_name, options.dataset_config_name)
    fields: dict[str, Any] = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    fields |= dict(map(_parse_setting, options.set))
    with unchanged_random_state():
        set_seed(options.seed)
        model = TASKS[options.task].from_backbone_pretrained(
            options.backbone, dataset=splits, revision=options.revision, **fields
        )
    if options.task == "image-classification":
        processor = LPSProcessor.from_backbone_pretrained(options.backbone, model.config, revision=options.revision)
    else:
        processor = LPSProcessor.from_config(model.config)
    folder = save_checkpoint(model, processor, options.folder)
    pretrained = sum(parameter.numel() for parameter in model.backbone_parameters())
    new = sum(parameter.numel() for parameter in model.parameters()) - pretrained
    data = {
        "folder": str(folder),
        "model": type(model).__name__,
        "group": model.config.group,
        "distribution": model.config.distribution,
        "pretrained_parameters": pretrained,
        "new_parameters": new,
    }
    text = table(
        [
            ("Model", f"{data['model']}, {data['group']}, {data['distribution']}"),
            ("Pretrained parameters", f"{pretrained:,}"),
            ("New parameters", f"{new:,}, random: fine-tune with `lps-hf train {options.task} --model_name_or_path {folder} …`"),
            ("Written to", folder),
        ]
    )
    return Outcome(data, text)


def _parse_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--set: expected FIELD=VALUE, such as --set noise_scale=0.5, got {text!r}.")
    from lps_hf.models.configuration_lps import LPSConfig
    from lps_hf.models.field_types import field_types, value_from_text

    # A name that is no field is refused by whoever takes it.
    types = {**field_types(LPSConfig), "num_labels": int}
    return name, value_from_text(name, value, types.get(name, Any))


SYMMETRIZE = Command(
    name="symmetrize",
    summary="make a pretrained backbone equivariant: a backbone in, a checkpoint folder out",
    description="""
        Loads a pretrained backbone, puts new token projections, an interface network and a read-out around it, and writes a
        checkpoint that loads by from_pretrained. The new parts are random: fine-tune the checkpoint with `lps-hf train`.

        With --dataset_name the sizes that depend on the data are read off a data set; options that are given come first.
    """,
    examples=(
        "lps-hf symmetrize facebook/dinov2-small my-model --dataset_name graphs-datasets/MUTAG --grid_size 7",
        "lps-hf symmetrize facebook/dinov2-small my-model --max_nodes 28 --node_categories 7 --num_labels 2",
        "lps-hf symmetrize google/vit-base-patch16-224 upright --task image-classification --group C_4 --distribution exact",
    ),
    add_arguments=_add_symmetrize_arguments,
    run=_run_symmetrize,
)


def _add_train_arguments(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False  # what is not known here belongs to the training flags, as it is
    parser.add_argument("task", choices=TASK_NAMES, help="one of " + ", ".join(TASK_NAMES), metavar="TASK")
    parser.add_argument("--list_flags", action="store_true", help="print every training flag with its meaning, and stop")
    parser.usage = "lps-hf train TASK [RECIPE.yaml] [--json] [--FLAG VALUE …]"


def _run_train(options: Namespace) -> Outcome:
    from transformers import HfArgumentParser

    from lps_hf.training.arguments import LPSTrainingArguments
    from lps_hf.training.task_arguments import DataArguments, ModelArguments
    from lps_hf.training.trainer_run import run_with_trainer

    if options.list_flags:
        groups: Any = (ModelArguments, DataArguments, LPSTrainingArguments)
        parser = HfArgumentParser(groups, prog=f"lps-hf train {options.task}")
        return Outcome({action.dest: action.help for action in parser._actions}, parser.format_help())
    return Outcome(run_with_trainer(options.task, options.more), "")


TRAIN = Command(
    name="train",
    summary="fine-tune a model with a recipe or flags, as scripts/run_<task>.py",
    description="""
        Fine-tunes a symmetrized model on a data set of rows with LPSTrainer, evaluates it on the test split, measures its
        equivariance, and writes the checkpoint with its card and results.json.

        A recipe is a YAML file of flags; flags on the command line override it. The flags are those of transformers'
        TrainingArguments and a few more; --list_flags prints them all.
    """,
    examples=(
        "lps-hf train graph-classification scripts/recipes/mutag.yaml --fold 3",
        "lps-hf train graph-classification --model_name_or_path my-model --dataset_name graphs-datasets/MUTAG --fold 0 \\\n"
        "    --output_dir outputs/mutag --learning_rate 1e-4 --num_train_epochs 12",
        "lps-hf train node-classification --list_flags",
    ),
    add_arguments=_add_train_arguments,
    run=_run_train,
    takes_more=True,
)


def _add_convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="the published checkpoint: .ckpt, .pt, .pth or .safetensors")
    parser.add_argument("folder", help="checkpoint folder to write")
    parser.add_argument("--case", metavar="NAME", help="the experiment, such as pattern or nbody-gnn (default: by the tensors)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=_SET_HELP)
    parser.add_argument("--allow_unknown", action="store_true", help="leave out tensors of unknown names, do not refuse them")


def _run_convert(options: Namespace) -> Outcome:
    from lps_hf.hub import convert_published, save_checkpoint

    settings = dict(map(_parse_setting, options.set))
    conversion = convert_published(options.file, case=options.case, strict=not options.allow_unknown, **settings)
    folder = save_checkpoint(conversion.model, conversion.processor, options.folder)
    data = {"folder": str(folder), **conversion.report.to_dict()}
    return Outcome(data, f"{conversion.report}\n\nWritten to {folder}")


CONVERT = Command(
    name="convert",
    summary="turn a checkpoint of the published implementation into a checkpoint folder",
    description="""
        Reads a checkpoint of the code that came with the paper (Lightning .ckpt of the ViT experiments, state dicts of the
        n-body and EXP-classify code) and writes a folder that loads by from_pretrained. The report lists every tensor: where
        it went, or why it was dropped. Nothing in a pickle is ever run.

        The experiment is one of pattern, peptides-func, peptides-struct, pcqm-contact, nbody-transformer, nbody-gnn and exp-
        classify. What the tensors do not tell comes from the checkpoint's own options, the name of its folder, the published
        configuration, or --set, which takes fields of LPSConfig and num_attention_heads.
    """,
    examples=(
        "lps-hf convert best.ckpt my-model",
        "lps-hf convert nbody.pt my-model --case nbody-transformer --set noise_scale=0.5",
    ),
    add_arguments=_add_convert_arguments,
    run=_run_convert,
)
