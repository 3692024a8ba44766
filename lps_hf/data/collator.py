"""The collator between a data set of graph rows and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from transformers.utils import logging

from .arrow_rows import rows_of_table

logger = logging.get_logger(__name__)

_KEPT = "remove_unused_columns=False"


@dataclass
class DataCollatorForGraphs:
    """Turn a list of graph rows into one padded batch; all the work is the processor's.

    With transformers' own `Trainer`, set `remove_unused_columns=False`: it would drop the raw columns before they get here. (An
    `LPSTrainer` does so by itself.) It joins predictions of different numbers of nodes; only scores of all pairs of nodes have to
    be of one size, with `pad_to_multiple_of` the model's `max_nodes`.

    Args:
        processor (`LPSProcessor`): Checks, converts and pads rows.
        pad_to_multiple_of (`int`, *optional*): Round the padded numbers of nodes and edges up to a multiple of this.
        pad_to_power_of (`float`, *optional*): Round them up to a power of this number, so that `torch.compile` meets few shapes;
            see `LPSProcessor.__call__`. With `SimilarLengthSampler` little of a batch is padding all the same.
    """

    processor: Any
    pad_to_multiple_of: int | None = None
    pad_to_power_of: float | None = None

    def __call__(self, rows: Sequence[Any]) -> Mapping[str, Any]:
        """Collate one batch.

        Args:
            rows: Rows in the Hub's graph-row format, or Arrow tables, as streamed data sets with the format `"arrow"` give them:
                for large graphs many times faster than lists.

        Returns:
            The batch as tensors; keys and shapes as the processor documents them.
        """
        rows = list(rows)
        if rows and isinstance(rows[0], pa.Table):
            rows = rows_of_table(pa.concat_tables(rows))
        try:
            batch = self.processor(
                rows,
                return_tensors="pt",
                pad_to_multiple_of=self.pad_to_multiple_of,
                pad_to_power_of=self.pad_to_power_of,
            )
        except ValueError as error:
            known = {*self.processor.model_input_names, "label", "labels", "label_ids"}
            if "expected the key" in str(error) and _KEPT not in str(error) and set(rows[0]) <= known:
                raise ValueError(f"{error} If a Trainer dropped it, set {_KEPT}.") from error
            raise
        if "labels" not in batch and set(rows[0]) <= set(batch):
            logger.warning_once(
                f"These rows have no label, and no column but {', '.join(rows[0])}, which are arguments of the model. If they "
                f"had one, a Trainer dropped it: set {_KEPT}, or use LPSTrainer."
            )
        return batch
