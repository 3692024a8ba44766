#!/usr/bin/env python
"""Make a small image classifier invariant to quarter turns, in one line, and see what it gains and what it costs.

    python scripts/rotated_digits.py --output_dir rotated_digits

For each seed a small ResNet is trained on upright handwritten digits and saved: that is the classifier "from the Hub".
`LPSForImageClassification.from_backbone_pretrained(folder, group="C_4", distribution=…)` makes it C_4-invariant. Its accuracy is
measured on the test images as they are and under random quarter turns: untrained; with the backbone frozen and the interface
trained on upright images under the prior that keeps them upright (Mondal et al. 2023, arXiv 2310.01647); and with everything
trained. The control is the classifier alone, trained further on randomly turned images for the same number of steps.

Data: the 8 x 8 digits that come with scikit-learn, in the order in which they are stored; no network is needed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification, ViTConfig
from transformers.utils import logging

from lps_hf import LPSConfig, LPSForImageClassification
from lps_hf.evaluation.experiment_figures import turned_images_figure
from lps_hf.models.modeling_heads_lps import LPSTaskOutput
from lps_hf.testing import equivariance_error

NUM_TRAIN, BATCH_SIZE = 1200, 64
SCALE = 2  # pixels for each pixel of the data set, which is too small for a network that halves images four times
# The interface sees the images in their own resolution, where its three convolutions span the whole digit.
INTERFACE = {"resolution": 8, "hidden_size": 32}
Split = dict[str, Tensor]


class Row(NamedTuple):
    """One line of the table: a model, and the number of group elements that it draws."""

    name: str
    model: LPSForImageClassification
    num_samples: int = 1

    @torch.no_grad()
    def __call__(self, images: Tensor) -> LPSTaskOutput:
        """Classify images (batch, 1, height, width), with the same draws at every call."""
        generator = torch.Generator().manual_seed(0)
        return self.model(pixel_values=images, num_samples=self.num_samples, generator=generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", required=True, help="For the classifiers, rotated_digits.json and rotated_digits.png.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Of weights, batches and turns (default: 0 1 2).")
    parser.add_argument("--pretraining_epochs", type=int, default=30, help="Of the classifier (default: %(default)s).")
    parser.add_argument("--epochs", type=int, default=100, help="Of each training after that (default: %(default)s).")
    parser.add_argument("--prior_loss_coef", type=float, default=1.0, help="Weight of -log p(identity|x) (default: %(default)s).")
    parser.add_argument("--max_train_samples", type=int, help="Train on the first so many images.")
    parser.add_argument("--max_test_samples", type=int, help="Test on the first so many images.")
    parser.add_argument("--timing_rounds", type=int, default=20, help="Timed passes of every model (default: %(default)s).")
    arguments = parser.parse_args()
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()  # loading weights is no progress to show
    train, test = load_splits(arguments.max_train_samples, arguments.max_test_samples)
    started = time.process_time()
    runs, shown = [], []
    for seed in arguments.seeds:
        rows = make_rows(seed, train, folder / f"classifier-{seed}", arguments)
        turns = torch.randint(4, (len(test["labels"]),), generator=torch.Generator().manual_seed(seed))
        runs.append(measure(seed, rows, test, turns, arguments.timing_rounds))
        shown = shown or examples(rows, test, turns)
    num_test = len(test["labels"])
    result = {
        "data": f"sklearn.datasets.load_digits in stored order, pixels enlarged {SCALE} x {SCALE}",
        "splits": {"train": len(train["labels"]), "test": num_test},
        "seeds": arguments.seeds,
        "pretraining_epochs": arguments.pretraining_epochs,
        "epochs": arguments.epochs,
        "batch_size": BATCH_SIZE,
        "prior_loss_coef": arguments.prior_loss_coef,
        "interface_config": INTERFACE,
        "cost_factors_of_vit_tiny_224": cost_factors_of_vit(max(1, arguments.timing_rounds // 4)),
        "cpu_seconds": round(time.process_time() - started),
        "threads": torch.get_num_threads(),
        "table": summarize(runs, num_test),
        "runs": runs,
    }
    (folder / "rotated_digits.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result)
    figure = turned_images_figure(*shown, result["table"], title="Digits: an upright classifier made invariant to quarter turns")
    figure.savefig(folder / "rotated_digits.png", dpi=150)


def load_splits(max_train_samples: int | None = None, max_test_samples: int | None = None) -> tuple[Split, ...]:
    """Training and test images (n, 1, 16, 16) in [0, 1] with labels (n,); nothing is selected, so there is no third split."""
    pixels, labels = load_digits(return_X_y=True)
    images = enlarge(torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8))
    rows = torch.arange(len(labels))
    parts = rows[:NUM_TRAIN][:max_train_samples], rows[NUM_TRAIN:][:max_test_samples]
    return tuple({"pixel_values": images[part], "labels": torch.tensor(labels)[part]} for part in parts)


def enlarge(images: Tensor) -> Tensor:
    return images.repeat_interleave(SCALE, dim=-1).repeat_interleave(SCALE, dim=-2)


def turn(images: Tensor, turns: Tensor) -> Tensor:
    """Turn every image (batch, 1, side, side) by its own number (batch,) of quarter turns, counter-clockwise."""
    return torch.stack([torch.rot90(image, int(count), (-2, -1)) for image, count in zip(images, turns, strict=True)])


def shift(images: Tensor) -> Tensor:
    """Shift a batch of images by up to one pixel of the data set, against overfitting."""
    padded = torch.nn.functional.pad(images, (SCALE,) * 4)
    down, right = torch.randint(2 * SCALE + 1, (2,)).tolist()
    return padded[..., down : down + images.shape[-2], right : right + images.shape[-1]]


def train_on(split: Split, model: PreTrainedModel, groups: list[dict], epochs: int, label: str, change: Callable = shift) -> None:
    """Minimise the model's own loss over the optimizer's parameter groups; all other parameters are frozen."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    model.requires_grad_(False)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    steps = epochs * -(-len(split["labels"]) // BATCH_SIZE)
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    model.train()
    for module in model.modules():
        # A batch norm whose weights are frozen must not go on collecting statistics either.
        if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
    progress = tqdm(range(epochs), desc=label)
    for _ in progress:
        for rows in torch.randperm(len(split["labels"])).split(BATCH_SIZE):
            loss = model(pixel_values=change(split["pixel_values"][rows]), labels=split["labels"][rows]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")
    model.eval()


def make_rows(seed: int, train: Split, folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """Train the classifier and everything made from it."""
    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic", num_labels=10
    )
    classifier = ResNetForImageClassification(config)
    whole = [{"params": classifier.parameters(), "lr": 2e-3}]
    train_on(train, classifier, whole, arguments.pretraining_epochs, f"seed {seed}: classifier")
    classifier.save_pretrained(folder)

    def symmetrize(distribution: str, source: Path = folder) -> LPSForImageClassification:
        options = {"interface_config": INTERFACE, "prior_loss_coef": arguments.prior_loss_coef}
        options = options if distribution == "learned" else {}
        return LPSForImageClassification.from_backbone_pretrained(source, group="C_4", distribution=distribution, **options)

    def rows_of(model: LPSForImageClassification, name: str) -> list[Row]:
        # The same weights, with noise and without.
        model.save_pretrained(folder / name)
        canonical = LPSForImageClassification.from_pretrained(folder / name, distribution="canonical")
        return [Row(f"canonical, {name}", canonical), *(Row(f"learned k={k}, {name}", model, k) for k in (1, 4))]

    rows = [Row("classifier alone", symmetrize("none")), Row("exact average, untrained", symmetrize("exact"))]
    rows += [Row(f"haar k={k}, untrained", symmetrize("haar"), k) for k in (1, 4)]
    rows += rows_of(symmetrize("learned"), "untrained")
    for name, backbone_rate in (("interface trained", None), ("all trained", 5e-4)):
        model = symmetrize("learned")
        groups = [{"params": model.lps.distribution.parameters(), "lr": 5e-3}]
        if backbone_rate:
            groups.append({"params": model.backbone_parameters(), "lr": backbone_rate})
        train_on(train, model, groups, arguments.epochs, f"seed {seed}: {name}")
        rows += rows_of(model, name)

    def turned(images: Tensor) -> Tensor:
        return turn(shift(images), torch.randint(4, (len(images),)))

    whole = [{"params": classifier.parameters(), "lr": 5e-4}]
    train_on(train, classifier, whole, arguments.epochs, f"seed {seed}: augmentation", turned)
    classifier.save_pretrained(folder / "augmented")
    rows += [Row("classifier alone, augmented", symmetrize("none", folder / "augmented"))]
    return [*rows, Row("exact average, augmented", symmetrize("exact", folder / "augmented"))]


def measure(seed: int, rows: list[Row], test: Split, turns: Tensor, timing_rounds: int) -> dict:
    """All figures of one seed."""
    upright, labels = test["pixel_values"], test["labels"]
    turned = turn(upright, turns)
    # A six under a half turn looks like a nine: accuracy is also taken over the other classes.
    others = (labels != 6) & (labels != 9)
    costs = cost_factors(rows, upright[:BATCH_SIZE], timing_rounds)
    figures = {}
    for row, cost in zip(rows, costs, strict=True):
        outputs = {"upright": row(upright), "turned": row(turned)}
        figures[row.name] = entry = {"cost_factor": cost}
        for pose, output in outputs.items():
            right = output.logits.argmax(dim=-1) == labels
            entry[pose] = right.float().mean().item()
            entry[f"{pose}_without_6_and_9"] = right[others].float().mean().item()
            entry[f"{pose}_6_and_9"] = right[~others].float().mean().item()
        generator = torch.Generator().manual_seed(seed)
        batch = {"pixel_values": upright}
        entry["equivariance_error"] = equivariance_error(row.model, batch, 4, row.num_samples, generator=generator).relative_error
        if row.model.config.distribution == "canonical":
            # g = h for the image h·x means that the backbone is shown x as it was stored.
            found = outputs["turned"].group_elements.squeeze(1) == turns
            entry["shown_upright"] = found.float().mean().item()
            entry["shown_upright_by_class"] = [found[labels == digit].float().mean().item() for digit in range(10)]
    return {"seed": seed, "rows": figures}


@torch.no_grad()
def cost_factors(rows: list[Row], images: Tensor, rounds: int) -> list[float]:
    """CPU time of a forward pass of every row in units of the first row's, medians of passes taken in turn."""
    passes: list[Callable] = [
        # What is not symmetrized is timed as the classifier of transformers that it is.
        partial(row.model.lps.base.backbone, images) if row.model.config.distribution == "none" else partial(row, images)
        for row in rows
    ]
    seconds: list[list[float]] = [[] for _ in passes]
    for number in range(rounds + 1):
        for run, times in zip(passes, seconds, strict=True):
            start = time.process_time()
            run()
            if number:  # the first round warms up
                times.append(time.process_time() - start)
    medians = [statistics.median(times) for times in seconds]
    return [median / medians[0] for median in medians]


def cost_factors_of_vit(rounds: int) -> dict[str, float]:
    """The same for a backbone of the usual size, ViT-tiny on 224 x 224 pixels: the interface's share depends on it."""
    backbone = ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, num_labels=10)
    rows = []
    for distribution, num_samples in (("none", 1), ("exact", 1), ("haar", 4), ("canonical", 1), ("learned", 1), ("learned", 4)):
        config = LPSConfig(backbone_config=backbone, group="C_4", distribution=distribution, num_labels=10)
        name = distribution if num_samples == 1 else f"{distribution} k={num_samples}"
        rows.append(Row(name, LPSForImageClassification(config).eval(), num_samples))
    return dict(zip((row.name for row in rows), cost_factors(rows, torch.rand(1, 3, 224, 224), rounds), strict=True))


def examples(rows: list[Row], test: Split, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turned test images, one of each class, what the trained canonicalization makes of them, and its predictions."""
    first = torch.stack([(test["labels"] == digit).nonzero()[0, 0] for digit in range(10)])
    # Turned for the eye: no image stays as it is.
    images = turn(test["pixel_values"][first], turns[first] % 3 + 1)
    row = next(row for row in rows if row.name == "canonical, interface trained")
    output = row(images)
    return images[:, 0], turn(images, -output.group_elements.squeeze(1))[:, 0], output.logits.argmax(dim=-1)


def summarize(runs: list[dict], num_test: int) -> dict[str, dict]:
    """Mean over seeds, standard deviation over seeds, and the binomial standard error that the test set's size gives."""
    table = {}
    for name, first in runs[0]["rows"].items():
        table[name] = entry = {}
        for key in (key for key, value in first.items() if isinstance(value, float)):
            values = [run["rows"][name][key] for run in runs]
            entry[key] = statistics.mean(values)
            entry[f"{key}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
        for pose in ("upright", "turned"):
            entry[f"{pose}_binomial_error"] = (entry[pose] * (1 - entry[pose]) / num_test) ** 0.5
    return table


def print_table(result: dict) -> None:
    titles = ("upright %", "turned %", "± test set", "turned without 6, 9", "cost", "equivariance error", "shown upright %")
    print("  ".join([f"{'':<32}", *(f"{title:>12}" for title in titles)]))
    for name, row in result["table"].items():

        def percent(key: str, row: dict = row) -> str:
            spread = row[f"{key}_deviation"]
            return f"{100 * row[key]:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")

        cells = (
            percent("upright"),
            percent("turned"),
            f"{100 * row['turned_binomial_error']:.1f}",
            percent("turned_without_6_and_9"),
            f"{row['cost_factor']:.2f}",
            f"{row['equivariance_error']:.2g}",
            percent("shown_upright") if "shown_upright" in row else "",
        )
        widths = (max(12, len(title)) for title in titles)
        print("  ".join([f"{name:<32}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]))
    costs = ", ".join(f"{name} {cost:.2f}" for name, cost in result["cost_factors_of_vit_tiny_224"].items())
    found = [run["rows"]["canonical, interface trained"]["shown_upright_by_class"] for run in result["runs"]]
    shares = (f"{digit}: {100 * statistics.mean(of_seeds):.0f}" for digit, of_seeds in enumerate(zip(*found, strict=True)))
    print(f"± over {len(result['seeds'])} seeds; {result['splits']['test']} test images.")
    print(f"Digits that the trained interface shows upright, in %: {', '.join(shares)}.")
    print(f"Cost with ViT-tiny on 224 x 224 pixels: {costs}.")


if __name__ == "__main__":
    main()
