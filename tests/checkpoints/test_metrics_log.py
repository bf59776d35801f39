"""What is read of a run's log."""

import math

from matey.checkpoints.run_files import best_validation, read_metrics


def test_a_number_that_is_null_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "loss": null, "seconds": 1.5}\n')
    ((text, line),) = read_metrics(path).lines
    assert line == {"step": 3, "seconds": 1.5} and text == '{"step": 3, "loss": null, "seconds": 1.5}'


def test_the_best_validation_is_of_what_is_validated_now():
    lines = [{"step": step, "valid_nrmse": error} for step, error in enumerate((0.3, 0.2, 0.25))]
    assert best_validation([]) is None and best_validation(lines)["step"] == 1
    now = [
        {"step": step, "valid_nrmse": error, "chosen_by": "now"} for step, error in ((7, 0.5), (8, 0.4), (9, math.nan))
    ]
    assert best_validation([*lines, *now])["step"] == 8
