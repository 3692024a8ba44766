#!/usr/bin/env python
"""Error against samples and against seconds for each way to draw: independent, antithetic, stratified, orthogonal.

    python scripts/bench_sampling.py --figure sampling.png --json sampling.json
    python scripts/bench_sampling.py --preset nbody-haar --samplers orthogonal:12 orthogonal:120
    python scripts/bench_sampling.py --model my_checkpoint --dataset my_rows

Without `--model` small models are trained first, about ten minutes in all on one core: particles under Haar and under learned
elements of S_n x E(3), and graphs that 1-WL cannot tell apart under learned permutations; `--save_dir` keeps them. A sampler is
written as its name, or as name:m with the size m of a group of dependent draws.

Every estimate is compared with the mean of many independent draws, whose own variance is taken off. `ratio` is the mean squared
error divided by that of plain Monte-Carlo with as many samples, which is the variance of one draw over their number: 0.5 is an
equal error with half of the samples. Its spread is a bootstrap over the inputs. `correlation` is that of two draws of a group,
and `additive_share` the part of the variance that is a sum over single numbers of the noise, which is what stratifying them can
remove. A sampler with groups of m is measured at numbers of samples below m (a part of one group) and at multiples of m.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import load_dataset
from tqdm.auto import tqdm

from lps_hf import LPSConfig, LPSForGraphClassification, LPSForParticleDynamics, LPSProcessor
from lps_hf.data import charged_particles, circular_skip_links
from lps_hf.evaluation.benchmarks import elapsed, interleave, write_json
from lps_hf.evaluation.sampling_error import additive_share, outputs_of_draws, ratio_of_errors, squared_errors
from lps_hf.evaluation.sampling_figures import sampling_figure
from lps_hf.models import modeling_heads_lps as heads
from lps_hf.models.configuration_base_networks import PairTransformerBaseConfig
from lps_hf.training.short_runs import fit, small_vit

SAMPLERS = ["antithetic", "stratified:4", "stratified:16", "orthogonal:4"]
MATRIX_SAMPLERS = [*SAMPLERS, "orthogonal:12", "orthogonal:24", "orthogonal:120"]
# What the issue asks of at least one sampler on a trained model.
RATIO_BAR = 0.5
TIMED_INPUTS, TIMING_ROUNDS, MOST_IN_A_PASS = 8, 5, 128


class Subject(NamedTuple):
    """A trained model and inputs that it was not trained on."""

    name: str
    model: heads.LPSTaskModel
    batch: dict[str, torch.Tensor]
    training: str


def main() -> None:
    options = parse_options()
    if options.model:
        subjects = [partial(load_subject, options)]
    else:
        subjects = [partial(train_subject, name, options) for name in options.preset]
    result = {
        "bar": RATIO_BAR,
        "num_inputs": options.num_inputs,
        "num_draws": options.num_draws,
        "num_reference_draws": options.num_reference_draws,
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "models": [measure(make(), options) for make in subjects],
    }
    print(describe(result), file=sys.stderr if options.json == "-" else sys.stdout)
    write_json(result, options.json)
    if options.figure:
        sampling_figure(result).savefig(options.figure)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint to measure (default: small models that are trained first)")
    parser.add_argument("--dataset", help="rows for --model: a Hub id or a folder; its test split if it has one")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="models to train")
    parser.add_argument("--epochs", type=float, help="of the training (default: the preset's)")
    parser.add_argument("--save_dir", help="folder for the trained models; those that are there are not trained again")
    parser.add_argument("--samplers", nargs="+", help="such as antithetic stratified:16 (default: all that the group has)")
    parser.add_argument("--num_samples", nargs="+", type=int, default=[4, 8, 16, 32, 64], help="samples of an estimate")
    parser.add_argument("--num_inputs", type=int, default=32, help="inputs")
    parser.add_argument("--num_draws", type=int, default=1440, help="draws of each sampler for each input")
    parser.add_argument("--num_reference_draws", type=int, default=2048, help="independent draws for the reference")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and draws")
    parser.add_argument("--json", help="file for the result, - for standard output")
    parser.add_argument("--figure", help="file for a picture of the result")
    options = parser.parse_args()
    if bool(options.model) != bool(options.dataset):
        parser.error("--model and --dataset: expected both or none.")
    if min(options.num_samples) < 1 or options.num_draws < max(options.num_samples):
        parser.error(f"--num_samples: expected numbers from 1 to --num_draws {options.num_draws}, got {options.num_samples}.")
    return options


# ------------------------------------------------------------------------------------------------------------ trained models


def particle_model(distribution: str) -> heads.LPSTaskModel:
    """The transformer of the paper's particle experiment."""
    config = LPSConfig(
        backbone_config=PairTransformerBaseConfig(hidden_size=32),
        group="S_n x E(3)",
        distribution=distribution,
        max_nodes=5,
        **heads.PARTICLE_DEFAULTS,
    )
    return LPSForParticleDynamics(config)


def graph_model() -> heads.LPSTaskModel:
    """A small ViT for circular skip links, as in the quickstart."""
    return LPSForGraphClassification(LPSConfig(backbone_config=small_vit(), max_nodes=13, grid_size=7, num_labels=3))


def particle_rows(number: int, seed: int) -> list[dict[str, Any]]:
    """Particles followed for fewer steps than in the benchmark, to be made in seconds."""
    return charged_particles(number, first_step=500, num_steps=1000, seed=seed)


def graph_rows(number: int, seed: int) -> list[dict[str, Any]]:
    """Circular skip links of 13 nodes with three skips."""
    return circular_skip_links(number, 13, (2, 3, 5), seed=seed)


class Preset(NamedTuple):
    """How a model is made and trained."""

    make: Callable[[], heads.LPSTaskModel]
    rows: Callable[[int, int], list[dict[str, Any]]]
    num_rows: int
    epochs: float
    learning_rate: float
    batch_size: int


PRESETS = {
    "nbody-haar": Preset(partial(particle_model, "haar"), particle_rows, 2000, 20, 1e-3, 100),
    "nbody-learned": Preset(partial(particle_model, "learned"), particle_rows, 2000, 12, 1e-3, 100),
    "graphs-learned": Preset(graph_model, graph_rows, 2100, 15, 3e-3, 64),
}


def train_subject(name: str, options: argparse.Namespace) -> Subject:
    """Train a preset's model, or take it from `--save_dir`."""
    preset = PRESETS[name]
    epochs = preset.epochs if options.epochs is None else options.epochs
    torch.manual_seed(options.seed)
    model = preset.make()
    processor = LPSProcessor.from_config(model.config)
    folder = Path(options.save_dir) / name if options.save_dir else None
    if folder and folder.exists():
        model = type(model).from_pretrained(folder)
    else:
        rows = preset.rows(preset.num_rows, options.seed)
        fit(model, processor, rows, epochs, preset.learning_rate, preset.batch_size, options.seed)
        if folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    batch = processor(preset.rows(options.num_inputs, options.seed + 1), return_tensors="pt")
    training = f"{preset.num_rows} generated rows, {epochs:g} epochs"
    return Subject(name, model.cpu().eval(), without_labels(batch), training)


def load_subject(options: argparse.Namespace) -> Subject:
    """A checkpoint and the first rows of a data set."""
    config = LPSConfig.from_pretrained(options.model)
    model = getattr(heads, config.architectures[0]).from_pretrained(options.model).eval()
    splits = load_dataset(options.dataset)
    rows = splits["test" if "test" in splits else next(iter(splits))]
    rows = rows.select(range(min(options.num_inputs, len(rows)))).to_list()
    batch = LPSProcessor.from_pretrained(options.model)(rows, return_tensors="pt")
    return Subject(Path(options.model).name, model, without_labels(batch), f"checkpoint {options.model}")


def without_labels(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


# -------------------------------------------------------------------------------------------------------------- measurement


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Errors and seconds of every sampler on one model."""
    model, batch = subject.model, subject.batch
    distribution = model.lps.distribution
    encoded = model.lps.encode(**batch)
    drawn = sampler_list(model, options.samplers)
    progress = tqdm(total=len(drawn) + 2, desc=subject.name, file=sys.stderr)

    def outputs_under(sampler: str, size: int | None, num_draws: int, seed: int) -> tuple[torch.Tensor, dict]:
        distribution.set_sampler(sampler, size)
        size = distribution.sampler_group_size
        noise = model.lps.draw_noise(encoded, -(-num_draws // size) * size, torch.Generator().manual_seed(seed))
        outputs = outputs_of_draws(model, batch, noise).flatten(2)
        progress.update()
        return outputs, noise

    reference, noise = outputs_under("independent", 1, options.num_reference_draws, options.seed)
    variance = reference.var(dim=0).mean(dim=-1)
    # The noise of the scores themselves only breaks ties, where a network makes the scores.
    deciding = {"interface": noise["interface"]} if "interface" in noise else noise
    table = []
    for number, (sampler, size) in enumerate(drawn):
        # A large group should be seen more than a few times, too.
        outputs, _ = outputs_under(sampler, size, max(options.num_draws, 8 * size), options.seed + 1 + number)
        points = []
        for num_samples in counts_for(size, options.num_samples):
            errors = squared_errors(outputs, size, num_samples, reference)
            points.append(
                {
                    "num_samples": num_samples,
                    "squared_error": errors.mean().item(),
                    **ratio_of_errors(errors, variance / num_samples, seed=options.seed),
                }
            )
        whole = squared_errors(outputs, size, size, reference).sum() * size / variance.sum()
        correlation = (whole.item() - 1) / (size - 1) if size > 1 else 0.0
        table.append({"sampler": sampler, "group_size": size, "correlation": correlation, "points": points})
    add_seconds(subject, table)
    progress.update()
    progress.close()
    distribution.set_sampler("independent")
    return {
        "name": subject.name,
        "group": model.config.group,
        "distribution": model.config.distribution,
        "training": subject.training,
        "num_inputs": reference.shape[1],
        "num_outputs": reference.shape[2],
        "variance": variance.mean().item(),
        "additive_share": additive_share(reference, deciding, distribution.noise_axes, encoded.node_mask),
        "samplers": table,
    }


def sampler_list(model: heads.LPSTaskModel, given: Sequence[str] | None) -> list[tuple[str, int]]:
    """Samplers with the sizes of their groups: plain Monte-Carlo, and those given, or all usual ones of the model's group."""
    group = model.lps.group
    names = given or (MATRIX_SAMPLERS if group.dimension else SAMPLERS)
    found = [("independent", 1)]
    for text in names:
        name, _, size = text.partition(":")
        try:
            found.append((name, group.sampler_group_size(name, int(size) if size else None)))
        except ValueError:
            if given:
                raise
    return found


def counts_for(group_size: int, wanted: Sequence[int]) -> list[int]:
    """The numbers of samples nearest to those wanted that a sampler can draw: parts of a group, a group, multiples of it."""
    counts = {count if count <= group_size else round(count / group_size) * group_size for count in wanted}
    return sorted(counts | ({group_size} if group_size > min(wanted) else set()))


def add_seconds(subject: Subject, table: list[dict[str, Any]]) -> None:
    """Time the whole model with every sampler and number of samples in turn, noise included, on a few of the inputs."""
    distribution, config = subject.model.lps.distribution, subject.model.lps.config
    batch = {name: tensor[:TIMED_INPUTS] for name, tensor in subject.batch.items()}
    # All samples in one pass: else those of larger groups would come in larger passes, which take less time.
    before, config.samples_per_pass = config.samples_per_pass, max(MOST_IN_A_PASS, *(row["group_size"] for row in table))

    def run(sampler: str, size: int, num_samples: int) -> None:
        distribution.set_sampler(sampler, size)
        with torch.no_grad():
            subject.model(**batch, num_samples=num_samples)

    points = [(row["sampler"], row["group_size"], point) for row in table for point in row["points"]]
    runs = {
        place: partial(elapsed, partial(run, sampler, size, point["num_samples"]), torch.device("cpu"))
        for place, (sampler, size, point) in enumerate(points)
    }
    times = interleave(runs, TIMING_ROUNDS)
    config.samples_per_pass = before
    for place, (_, _, point) in enumerate(points):
        point["seconds"] = statistics.median(one.processor for one in times[place]) / len(next(iter(batch.values())))


def describe(result: Mapping[str, Any]) -> str:
    """The table, one block for each model, and the best sampler of all."""
    lines = []
    for model in result["models"]:
        share = model["additive_share"]
        additive = f", {share['share']:.1%} ± {share['deviation']:.1%} of it additive in the noise" if share else ""
        lines += [
            f"{model['name']}: {model['distribution']} on {model['group']} ({model['training']})",
            f"  {model['num_inputs']} inputs, variance of one draw {model['variance']:.4g}{additive}",
            "  error in units of plain Monte-Carlo with as many samples; time for a sample in the same units",
        ]
        plain = time_of_a_sample(model["samplers"][0])
        for row in model["samplers"]:
            name = row["sampler"] + (f":{row['group_size']}" if row["group_size"] > 1 else "")
            ratios = [f"{point['num_samples']}: {point['ratio']:.3f} ± {point['deviation']:.3f}" for point in row["points"]]
            time = f"time {time_of_a_sample(row) / plain:.2f}"
            lines.append("".join([f"  {name:<16}", *(f"{text:<22}" for text in ratios), time]))
    everything = [
        (point["ratio"], point["interval"], row, point["num_samples"], model["name"])
        for model in result["models"]
        for row in model["samplers"]
        for point in row["points"]
    ]
    ratio, (low, high), row, count, name = min(everything, key=lambda entry: entry[1][1])
    verdict = "halves the samples" if high < result["bar"] else "no sampler surely halves the samples"
    lines.append(
        f"Lowest ratio: {ratio:.3f} (95 % interval {low:.3f} to {high:.3f}), {row['sampler']} in groups of {row['group_size']}, "
        f"{count} samples, {name}: {verdict}."
    )
    return "\n".join(lines)


def time_of_a_sample(row: Mapping[str, Any]) -> float:
    """Seconds for a sample of an input, from the largest number of samples that was measured."""
    return row["points"][-1]["seconds"] / row["points"][-1]["num_samples"]


if __name__ == "__main__":
    main()
