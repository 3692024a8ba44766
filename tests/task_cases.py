"""A tiny head, its processor and labelled rows for every task."""

from functools import cache
from typing import Any

import torch
from datasets import Dataset
from transformers import ViTConfig

from lps_hf.data.dataset_folders import make_splits
from lps_hf.data.rows import infer_config
from lps_hf.models.configuration_base_networks import BASE_NETWORK_CONFIGS
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSTaskModel
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.tasks import TASKS

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PAIRS = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
# Kind and options of the data.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "graph-classification": ("cycle-pairs", {}),
    "node-classification": ("pattern", {"sizes": [1, 3], "num_communities": 2}),
    "link-prediction": ("contacts", {"num_nodes": [5, 9]}),
    "particle-dynamics": ("nbody", {"first_step": 5, "num_steps": 5}),
    "molecule-regression": ("clusters", {}),
    "point-cloud-classification": ("shapes", {"num_points": 9}),
    "image-classification": ("digits", {"scale": 2}),
}


@cache
def _splits(task: str) -> dict[str, list[dict[str, Any]]]:
    kind, options = CASES[task]
    return make_splits(kind, {"train": 12, "test": 10}, options=options)


def task_case(task: str, **options: Any) -> tuple[LPSTaskModel, LPSProcessor, list[dict[str, Any]]]:
    """Model in evaluation mode, always the same one, its processor, and ten rows of different sizes.

    Args:
        task: A key of `TASKS`.
        options: Fields of `LPSConfig`.
    """
    splits = _splits(task)
    if task == "image-classification":
        backbone, fields = ViTConfig(**VIT, image_size=16, patch_size=8), {"num_labels": 10}
    else:
        inferred = infer_config(task, {split: Dataset.from_list(rows) for split, rows in splits.items()})
        if task == "particle-dynamics":
            backbone, fields = BASE_NETWORK_CONFIGS["lps_pair_transformer"](**PAIRS), inferred
        else:
            backbone, fields = ViTConfig(**VIT), {**inferred, "grid_size": 4}
    head, fields = TASKS[task], {"num_eval_samples": 3, **fields, **options}
    torch.manual_seed(0)
    model = head(LPSConfig(backbone_config=backbone, **head.config_defaults(backbone, fields))).eval()
    return model, LPSProcessor.from_config(model.config), splits["test"]
