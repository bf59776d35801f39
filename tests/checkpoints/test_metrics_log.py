"""What is read of a run's log."""

from matey.checkpoints.metrics_log import read_metrics


def test_a_number_that_is_null_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "loss": null, "seconds": 1.5}\n')
    ((text, line),) = read_metrics(path).lines
    assert line == {"step": 3, "seconds": 1.5} and text == '{"step": 3, "loss": null, "seconds": 1.5}'
