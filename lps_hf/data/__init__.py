"""Rows of graphs: generators of synthetic benchmarks and the collator that turns rows into batches."""

from .collator import DataCollatorForGraphs
from .generators import circular_skip_links, cycle_pairs, triangle_regular

__all__ = ["DataCollatorForGraphs", "circular_skip_links", "cycle_pairs", "triangle_regular"]
