"""The keys of results.json that every run writes."""

COMMON = {
    *("task", "dataset", "backbone", "metric", "test", "baseline", "baseline_name", "train_loss_first", "train_loss_last"),
    *("num_train", "num_test", "steps", "seed", "num_eval_samples", "eval_batch_size", "training", "environment"),
}
REPORT = {"equivariance", "samples", "samples_rows", "samples_draws", "test_deviation", "variance_prior"}
