#!/usr/bin/env python
"""Make a small image classifier invariant to quarter turns, in one line, and see what it gains and what it costs.

    python scripts/rotated_digits.py --output_dir rotated_digits

For each seed a small ResNet is trained on upright handwritten digits and saved: that is the classifier "from the Hub".
`LPSForImageClassification.from_backbone_pretrained(folder, group="C_4", distribution=…)` makes it C_4-invariant. Its accuracy is
measured on the test images as they are and under random quarter turns: untrained; with the backbone frozen and the interface
trained on upright images, with the prior that keeps them upright (Mondal et al. 2023, arXiv 2310.01647); and with everything
trained. The comparison is the classifier fine-tuned on turned images (data augmentation), for the same number of steps.

Data: the 8 × 8 digits that come with scikit-learn, in the order in which they are stored; no network is needed.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification
from transformers.utils import logging

from lps_hf import LPSForImageClassification
from lps_hf.evaluation.experiment_figures import turned_images_figure
from lps_hf.testing import equivariance_error

BATCH_SIZE, SCALE, NUM_TRAIN, NUM_VALIDATION = 64, 4, 1200, 200
Split = dict[str, Tensor]


@dataclass
class Row:
    """One line of the table: a model, and how many group elements it averages over."""

    name: str
    model: PreTrainedModel
    num_samples: int | None = None

    @torch.no_grad()
    def predict(self, images: Tensor, seed: int = 0) -> Tensor:
        """Predicted classes (batch,) of images (batch, 1, height, width), with draws that are the same at every call."""
        self.model.eval()
        draws = {} if self.num_samples is None else {"num_samples": self.num_samples, "generator": torch.manual_seed(seed)}
        return self.model(pixel_values=images, **draws).logits.argmax(dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", required=True, help="For the classifiers, rotated_digits.json and rotated_digits.png.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Of weights, batches and turns (default: 0 1 2).")
    parser.add_argument("--pretraining_epochs", type=int, default=20, help="Of the classifier (default: %(default)s).")
    parser.add_argument("--epochs", type=int, default=20, help="Of each training after that (default: %(default)s).")
    parser.add_argument("--prior_loss_coef", type=float, default=1.0, help="Weight of -log p(identity|x) (default: %(default)s).")
    parser.add_argument("--max_train_samples", type=int, default=NUM_TRAIN, help="Train on the first so many images.")
    parser.add_argument("--timing_rounds", type=int, default=20, help="Forward passes of each model that are timed.")
    arguments = parser.parse_args()
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()  # of loading weights, in between those of training
    train, validation, test = load_splits(arguments.max_train_samples)
    started = time.process_time()
    runs = [run(seed, train, validation, test, folder, arguments) for seed in arguments.seeds]
    summary = summarize(runs, len(test["labels"]), int(keep_without_6_and_9(test["labels"]).sum()))
    result = {
        "data": "sklearn.datasets.load_digits, stored order, each pixel enlarged to 4 x 4",
        "num_train": len(train["labels"]),
        "num_test": len(test["labels"]),
        "seeds": arguments.seeds,
        "pretraining_epochs": arguments.pretraining_epochs,
        "epochs": arguments.epochs,
        "batch_size": BATCH_SIZE,
        "prior_loss_coef": arguments.prior_loss_coef,
        "cpu_seconds": round(time.process_time() - started),
        "threads": torch.get_num_threads(),
        "table": summary,
        "runs": [{key: value for key, value in run.items() if key != "shown"} for run in runs],
    }
    (folder / "rotated_digits.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result)
    figure = turned_images_figure(*runs[0]["shown"], summary, "Digits: an upright classifier made invariant to quarter turns")
    figure.savefig(folder / "rotated_digits.png", dpi=150)


def load_splits(max_train_samples: int) -> tuple[Split, Split, Split]:
    """Training, validation and test images (n, 1, 32, 32) in [0, 1] with labels (n,)."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    images = images.repeat_interleave(SCALE, dim=-1).repeat_interleave(SCALE, dim=-2)
    bounds = (
        slice(min(max_train_samples, NUM_TRAIN)),
        slice(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION),
        slice(NUM_TRAIN + NUM_VALIDATION, None),
    )
    train, validation, test = ({"pixel_values": images[part], "labels": torch.tensor(labels)[part]} for part in bounds)
    return train, validation, test
