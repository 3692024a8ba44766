#!/usr/bin/env python
"""The twin of run_link_prediction.py on Accelerate: same flags, the loop is in lps_hf/training/accelerate_run.py.

accelerate launch scripts/run_link_prediction_no_trainer.py scripts/recipes/contacts_small.yaml
"""

from lps_hf.training.accelerate_run import run_with_accelerate

if __name__ == "__main__":
    run_with_accelerate("link-prediction")
