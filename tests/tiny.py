"""Tiny models, random graph rows and data set folders for the tests of processor, training and scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import ViTConfig, ViTModel

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForGraphClassification

MAX_NODES = 8
NODE_CATEGORIES = [3, 2]
EDGE_CATEGORIES = [2]


def tiny_vit() -> ViTConfig:
    """A ViT that sees a grid of 4 x 4 tokens."""
    return ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8
    )


def save_tiny_vit(folder: Path) -> str:
    """Write a backbone checkpoint, always the same one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(tiny_vit(), add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def tiny_config(**options: Any) -> LPSConfig:
    defaults = {
        "backbone_config": tiny_vit(),
        "max_nodes": MAX_NODES,
        "num_labels": 3,
        "problem_type": "single_label_classification",
        "node_categories": NODE_CATEGORIES,
        "edge_categories": EDGE_CATEGORIES,
        "num_eval_samples": 2,
        "interface_config": {"hidden_size": 8},
    }
    return LPSConfig(**{**defaults, **options})


def tiny_classifier(seed: int = 0, **options: Any) -> LPSForGraphClassification:
    """A model with random weights in evaluation mode."""
    torch.manual_seed(seed)
    return LPSForGraphClassification(tiny_config(**options)).eval()


def random_rows(count: int, seed: int = 0, num_labels: int = 3) -> list[dict[str, Any]]:
    """Graphs of 2 to 8 nodes with categories on nodes and edges; the classes follow each other in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        nodes = int(rng.integers(2, MAX_NODES + 1))
        edges = 2 * nodes
        rows.append(
            {
                "edge_index": rng.integers(nodes, size=(2, edges)).tolist(),
                "num_nodes": nodes,
                "node_feat": rng.integers(NODE_CATEGORIES, size=(nodes, len(NODE_CATEGORIES))).tolist(),
                "edge_attr": rng.integers(EDGE_CATEGORIES, size=(edges, len(EDGE_CATEGORIES))).tolist(),
                "y": [number % num_labels],
            }
        )
    return rows


def save_dataset(folder: Path, **splits: Sequence[dict[str, Any]]) -> str:
    """Write splits as parquet files, as a data set repository on the Hub has them."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        Dataset.from_list(list(rows)).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)
