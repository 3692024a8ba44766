"""The collator between a data set of graph rows and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Only the processor writes these keys, so a row that has one of them has been processed.
PROCESSED_KEYS = frozenset({"node_categories", "node_features", "node_mask", "labels"})


@dataclass
class DataCollatorForGraphs:
    """Turn a list of graph rows into one padded batch; all the work is the processor's.

    With `Trainer`, set `remove_unused_columns=False`: it would drop the raw columns before they get here.

    Args:
        processor (`LPSProcessor`): `processor(rows, return_tensors="pt")` converts and pads raw rows,
            `processor.pad(rows, return_tensors="pt")` pads rows it has already converted.
        pad_to_multiple_of (`int`, *optional*): Round the padded number of nodes up to a multiple of this.
    """

    processor: Any
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Collate one batch.

        Args:
            rows: Raw rows in the Hub's graph-row format, or per-graph dicts from the processor; not a mixture.

        Returns:
            The batch, keys and shapes as the processor documents them.
        """
        options = {} if self.pad_to_multiple_of is None else {"pad_to_multiple_of": self.pad_to_multiple_of}
        collate = self.processor if PROCESSED_KEYS.isdisjoint(rows[0]) else self.processor.pad
        return collate(list(rows), return_tensors="pt", **options)
