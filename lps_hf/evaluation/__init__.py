"""Whole-split metrics, the 1-WL bound and figures; scikit-learn and matplotlib are imported when they are used."""

from .figures import quickstart_figure
from .metrics import compute_metrics_for, prior_baseline
from .weisfeiler_leman import color_histograms, wl1_accuracy

__all__ = ["color_histograms", "compute_metrics_for", "prior_baseline", "quickstart_figure", "wl1_accuracy"]
