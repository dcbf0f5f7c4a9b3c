"""Metrics of a pretext task beside its trivial predictors."""

from kidney_ssl.metrics.trivial_predictors import beside_trivial


def test_a_metric_stands_beside_the_predictors_that_it_must_beat():
    figures = {"epoch": 2.0, "train_loss": 0.1, "validation_loss": 0.2, "validation_loss_copy": 0.3}
    figures |= {"validation_mse": 0.01, "validation_mse_copy": 0.05, "validation_mse_mean": None, "updates": 80}
    assert beside_trivial(figures) == [("mse", 0.01, {"copy": 0.05, "mean": None})]


def test_a_task_without_such_metrics_shows_its_loss():
    assert beside_trivial({"validation_loss": 0.2, "probe_knn_accuracy": 0.7}) == [("loss", 0.2, {})]
    assert beside_trivial({}) == [("loss", None, {})]
