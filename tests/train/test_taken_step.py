"""The lines that a run writes into its log."""

import json
from types import SimpleNamespace

from matey.train.step import MetricsLog


def test_a_log_that_is_removed_while_the_run_writes_begins_anew(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, SimpleNamespace(monitor=SimpleNamespace(enabled=False, wandb_monitor=None)))
    log.write(1, loss=1.0)
    path.unlink()
    log.write(2, loss=0.5)
    assert json.loads(path.read_text()) == {"step": 2, "loss": 0.5}
    assert capsys.readouterr().err == f"{path} was removed; a new one begins with step 2.\n"
