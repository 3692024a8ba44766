"""Subcommands that use a checkpoint: evaluate, predict, equivariance."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import Command, Outcome, table
from .reading import SourceRows, add_source_arguments, read_source

if TYPE_CHECKING:
    from lps_hf.models.modeling_heads_lps import LPSTaskModel
    from lps_hf.models.processing_lps import LPSProcessor


def _add_shared_arguments(parser: ArgumentParser, max_rows: int | None = None) -> None:
    parser.add_argument("checkpoint", help="checkpoint folder or Hub id")
    add_source_arguments(parser, max_rows)
    parser.add_argument("--revision", help="branch, tag or commit of the checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")


def _add_sampling_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--num_samples", type=_number_or_auto, help="group elements per input, or 'auto' (default: as the checkpoint says)"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="rows per batch (default: %(default)s)")


def _number_or_auto(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise ArgumentTypeError(f"expected a whole number or 'auto', got {text!r}")
    return text if text == "auto" else int(text)


def _load_head(options: Namespace) -> "tuple[LPSTaskModel, LPSProcessor]":
    from lps_hf.hub.loading import load_checkpoint
    from lps_hf.models.modeling_heads_lps import LPSTaskModel

    model, processor = load_checkpoint(options.checkpoint, revision=options.revision)
    if not isinstance(model, LPSTaskModel):
        raise ValueError(f"{options.checkpoint}: expected a model of a task, got {type(model).__name__}, which has no head.")
    return model, processor


def _read_rows(options: Namespace, processor: "LPSProcessor") -> SourceRows:
    return read_source(options, lambda row: processor([row]))


def _run_evaluate(options: Namespace) -> Outcome:
    from lps_hf.data.recorded_rows import evaluated_rows
    from lps_hf.evaluation.prediction import evaluate, task_of

    model, processor = _load_head(options)
    task = task_of(model)
    source = _read_rows(options, processor)
    rows = evaluated_rows(task, source.rows)
    sampling = {"num_samples": options.num_samples, "batch_size": options.batch_size, "seed": options.seed}
    metrics = evaluate(model, processor, rows, task, progress=True, **sampling)
    source.report()
    data = {"task": task, "num_rows": len(rows), **source.facts(), **sampling, "metrics": metrics}
    return Outcome(data, table([("rows", len(rows)), *((name, f"{value:.4f}") for name, value in metrics.items())]))


def _add_evaluate_arguments(parser: ArgumentParser) -> None:
    _add_shared_arguments(parser)
    _add_sampling_arguments(parser)


EVALUATE = Command(
    name="evaluate",
    summary="metrics of a checkpoint on a labelled data set",
    description="""
        Loads a checkpoint and computes the metrics of its task over one split of a data set, or over the rows of a file.

        The draws are seeded: the same command prints the same figures, which are those of LPSTrainer.evaluate with the same
        batch size and seed.
    """,
    examples=(
        "lps-hf evaluate me/my-model graphs-datasets/MUTAG --split train",
        "lps-hf evaluate my-model rows.jsonl --num_samples auto --json",
    ),
    add_arguments=_add_evaluate_arguments,
    run=_run_evaluate,
)


def _add_predict_arguments(parser: ArgumentParser) -> None:
    _add_shared_arguments(parser)
    _add_sampling_arguments(parser)
    parser.add_argument("--tolerance", type=float, help="draw for each row until the error bars of its scores are that small")
    parser.add_argument("--top_k", type=int, help="how many labels, or pairs, of each row")
    parser.add_argument("--confidence_level", type=float, help="such as 0.95: add confidence intervals of the scores")
    parser.add_argument("--output", help="file to write: .csv, or .jsonl with one result per line (default: a table on stdout)")


def _run_predict(options: Namespace) -> Outcome:
    from tqdm.auto import tqdm

    from .prediction_tables import check_output, table_of, write_results

    check_output(options.output, options.source)
    model, processor = _load_head(options)
    predict = _pipeline_of(model, processor)
    # Labels are not looked at, and the number of draws is of no matter here.
    source = read_source(options, lambda row: predict.preprocess(row, num_samples="auto"))
    rows = source.rows
    sampling = {
        name: getattr(options, name)
        for name in ("num_samples", "tolerance", "top_k", "confidence_level")
        if getattr(options, name) is not None
    }
    stream = predict((row for row in rows), batch_size=options.batch_size, seed=options.seed, **sampling)
    results = list(tqdm(stream, total=len(rows), desc="Predicting", unit="row"))
    source.report()
    data = {"results": source.in_place(results), **source.facts()}
    if options.output is None:
        return Outcome(data, table_of(data["results"]))
    write_results(data["results"], Path(options.output))
    return Outcome({**data, "file": options.output}, f"{len(results)} rows written to {options.output}")


def _pipeline_of(model: Any, processor: Any) -> Any:
    """The pipeline of the model's own task."""
    from transformers import pipeline

    (task,) = model.config.custom_pipelines
    return pipeline(task, model=model, processor=processor)


PREDICT = Command(
    name="predict",
    summary="predictions with error bars: a file or data set in, a table out",
    description="""
        Loads a checkpoint and predicts for the rows of a file or of one split of a data set, with the pipeline of its task.
        Every score comes with its standard error over the draws.

        A file may hold rows (.jsonl, .json, .parquet, .csv, .tsv), SMILES strings (.smi, or a column named smiles), molecules
        (.sdf, .xyz), graphs (.g6, .graphml) or be an image. The same row and seed give the same answer in any batch.

        With --on_error skip, rows that cannot be read are left out and named at the end; results keep the numbers that their
        rows have in the source, and a .jsonl file has a null in the place of those left out.
    """,
    examples=(
        "lps-hf predict me/my-model molecules.smi",
        "lps-hf predict my-model graphs-datasets/MUTAG --split train --max_rows 5 --num_samples 50",
        "lps-hf predict my-model rows.jsonl --tolerance 0.02 --output predictions.csv",
    ),
    add_arguments=_add_predict_arguments,
    run=_run_predict,
)


def _add_equivariance_arguments(parser: ArgumentParser) -> None:
    _add_shared_arguments(parser, max_rows=64)
    parser.add_argument("--max_samples", type=int, default=32, help="up to so many samples (default: %(default)s)")
    parser.add_argument("--figure", metavar="FILE", help="draw metric and error against the number of samples, as .png or .svg")


def _run_equivariance(options: Namespace) -> Outcome:
    from lps_hf.evaluation.prediction import task_of
    from lps_hf.evaluation.sampling_report import sampling_report
    from lps_hf.hub.card_facts import interpolates
    from lps_hf.hub.verification import COUPLED_TOLERANCE

    if options.figure and not Path(options.figure).absolute().parent.is_dir():
        raise FileNotFoundError(f"--figure: expected a folder that exists, got {Path(options.figure).parent}.")
    if options.figure and find_spec("matplotlib") is None:
        raise ImportError("--figure: needs matplotlib: pip install 'lps_hf[viz]'.")
    model, processor = _load_head(options)
    task = task_of(model)
    source = _read_rows(options, processor)
    rows, sampling = source.rows, {"max_samples": options.max_samples, "seed": options.seed}
    report = sampling_report(model, processor, rows, task, num_rows=len(rows), progress=True, **sampling)
    source.report()
    if options.figure:
        from lps_hf.evaluation.metrics import metric_of
        from lps_hf.evaluation.samples_figure import samples_figure

        samples_figure({**report, "metric": metric_of(task, model.config.problem_type)}).savefig(options.figure)
    overall = report["equivariance"]
    lines = [f"{'samples':>8}  {'equivariance error':<20}  metric"]
    for point in report["samples"]:
        error = _plus_minus(point["equivariance_error"], point["equivariance_standard_error"])
        metric = _plus_minus(point.get("metric"), point.get("metric_deviation"))
        lines.append(f"{point['num_samples']:>8}  {error:<20}  {metric}".rstrip())
    backbone = _plus_minus(overall["backbone_relative_error"], overall["backbone_standard_error"])
    exact = overall.get("coupled_relative_error")  # none where nothing is symmetrized
    known = [("noise moved along, float64", f"{exact:.1e}")] if exact is not None else []
    lines += [
        "",
        table([("plain backbone", backbone), *known]),
        f"Relative errors on {overall['num_rows']} rows, ± standard error; metric on {report['samples_rows']}, ± deviation.",
    ]
    # Between pixels is interpolated, and then only the error against the backbone's tells something.
    is_wrong = exact is not None and exact > COUPLED_TOLERANCE and not interpolates(model.config)
    return Outcome({**report, **source.facts()}, "\n".join(lines), found_fault=is_wrong)


def _plus_minus(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


EQUIVARIANCE = Command(
    name="equivariance",
    summary="measure how equivariant a checkpoint is, against the number of samples",
    description="""
        Moves rows by random group elements and compares: the error of the model for 1, 2, 4, … samples (it falls as
        1/√samples), that of the plain backbone (it stays), and that with the noise moved along in double precision, where
        only rounding is left if the model is what it claims to be.

        Ends with exit code 3 where that last error is more than rounding.
    """,
    examples=(
        "lps-hf equivariance my-model graphs-datasets/MUTAG --split train --figure equivariance.png",
        "lps-hf equivariance me/my-model rows.jsonl --max_rows 32 --json",
    ),
    add_arguments=_add_equivariance_arguments,
    run=_run_equivariance,
)
