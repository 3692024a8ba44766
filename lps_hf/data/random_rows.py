"""Random rows that a model accepts, for what has to hold on any input."""

from typing import Any

import numpy as np

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.groups import get_group

_POINT_FIELDS = ("positions", "velocities", "charges")


def random_rows(config: LPSConfig, num_rows: int, seed: int = 0, max_nodes: int = 12) -> list[dict[str, Any]]:
    """Draw rows without labels that fit a model's inputs: random graphs, points or images.

    Args:
        config: The model's configuration.
        num_rows: Number of rows.
        seed: Their seed.
        max_nodes: Largest number of nodes, if the model takes as many.

    Returns:
        `list[dict]`: Rows for the processor. They look like no data set; figures on them say nothing of a task.
    """
    rng = np.random.default_rng(seed)
    return [_random_row(config, rng, min(max_nodes, config.max_nodes)) for _ in range(num_rows)]


def _random_row(config: LPSConfig, rng: np.random.Generator, max_nodes: int) -> dict[str, Any]:
    axes = config.input_representations
    if "pixel_values" in axes:
        size = getattr(config.backbone_config, "image_size", None) or 32
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": rng.normal(size=(axes["pixel_values"].num_channels, height, width)).astype(np.float32)}
    nodes = int(rng.integers(min(3, max_nodes), max_nodes + 1))
    ends = rng.integers(nodes, size=(2, 2 * nodes))
    edge_index = np.concatenate([ends, ends[::-1]], axis=1)
    row: dict[str, Any] = {"num_nodes": nodes}
    if "edge_features" in axes or not {*_POINT_FIELDS, "pair_features"} & set(axes):
        row["edge_index"] = edge_index.tolist()
    for key, field, categories, count in (
        ("node_feat", "node_features", config.node_categories, nodes),
        ("edge_attr", "edge_features", config.edge_categories, edge_index.shape[1]),
    ):
        if categories:
            row[key] = rng.integers(categories, size=(count, len(categories))).tolist()
        elif field in axes and axes[field].num_channels != 1:  # one channel is a constant
            row[key] = rng.normal(size=(count, axes[field].num_channels)).tolist()
    dimension = get_group(config.group).dimension or 3
    sizes = {name: axes[name].width(dimension) for name in _POINT_FIELDS if name in axes}
    if "pair_features" in axes:
        sizes = {"positions": dimension, **({"charges": 1} if axes["pair_features"].num_channels == 2 else {}), **sizes}
    return {**row, **{name: rng.normal(size=(nodes, width)).tolist() for name, width in sizes.items()}}
