#!/usr/bin/env python
"""Fine-tune a symmetrized model on a data set of point clouds with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_point_cloud_classification.py scripts/recipes/shapes_small.yaml
"""

from lps_hf.training.trainer_run import run_with_trainer

if __name__ == "__main__":
    run_with_trainer("point-cloud-classification")
