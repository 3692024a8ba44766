"""The collator between a data set of graph rows and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .arrow_rows import rows_of_table


@dataclass
class DataCollatorForGraphs:
    """Turn a list of graph rows into one padded batch; all the work is the processor's.

    With `Trainer`, set `remove_unused_columns=False`: it would drop the raw columns before they get here.

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
        return self.processor(
            rows,
            return_tensors="pt",
            pad_to_multiple_of=self.pad_to_multiple_of,
            pad_to_power_of=self.pad_to_power_of,
        )
