"""The collator between a data set of graph rows and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class DataCollatorForGraphs:
    """Turn a list of graph rows into one padded batch; all the work is the processor's.

    With `Trainer`, set `remove_unused_columns=False`: it would drop the raw columns before they get here.

    Args:
        processor (`LPSProcessor`): Checks, converts and pads rows.
        pad_to_multiple_of (`int`, *optional*): Round the padded numbers of nodes and edges up to a multiple of this.
    """

    processor: Any
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Collate one batch.

        Args:
            rows: Rows in the Hub's graph-row format.

        Returns:
            The batch as tensors; keys and shapes as the processor documents them.
        """
        return self.processor(list(rows), return_tensors="pt", pad_to_multiple_of=self.pad_to_multiple_of)
