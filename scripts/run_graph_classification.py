#!/usr/bin/env python
"""Fine-tune a symmetrized model on a graph data set with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_graph_classification.py scripts/recipes/mutag.yaml --fold 3
"""

from lps_hf.training.trainer_run import run_with_trainer

if __name__ == "__main__":
    run_with_trainer("graph-classification")
