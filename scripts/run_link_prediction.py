#!/usr/bin/env python
"""Fine-tune a symmetrized model on a data set of graphs with labelled pairs of nodes with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_link_prediction.py scripts/recipes/contacts_small.yaml
"""

from lps_hf.training.trainer_run import run_with_trainer

if __name__ == "__main__":
    run_with_trainer("link-prediction")
