"""Whole-split metrics, baselines, the 1-WL bound and figures; scikit-learn and matplotlib are imported when they are used."""

from .baselines import baseline_of, motion_baselines
from .figures import quickstart_figure
from .link_ranking import link_ranking_metrics
from .metrics import compute_metrics_for, metric_of, prior_baseline
from .weisfeiler_leman import color_histograms, wl1_accuracy

__all__ = [
    "baseline_of",
    "color_histograms",
    "compute_metrics_for",
    "link_ranking_metrics",
    "metric_of",
    "motion_baselines",
    "prior_baseline",
    "quickstart_figure",
    "wl1_accuracy",
]
