"""The recorder marks spikes of the loss, also against the rows that were logged before the run was resumed."""

import json
from types import SimpleNamespace

from qwenvl_train.reporting.reporter import RunInfo
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.run.recorder import Recorder


def test_a_spike_is_marked_for_every_reporter_and_after_a_resume(tmp_path):
    quiet = [{"step": step, "loss": 2.0 + step % 3 / 100} for step in range(1, 13)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in quiet))
    for start, rows in ((0, [*quiet, {"step": 13, "loss": 9.0}]), (12, [{"step": 13, "loss": 9.0}])):
        seen: list[dict] = []
        reporter = SimpleNamespace(start=lambda info: None, log=seen.append)
        info = RunInfo("run", tmp_path, {}, [], 20, start, {})
        recorder = Recorder(info, True, [reporter], None, None, None, None, None, None)
        recorder.start()
        for row in rows:
            recorder.logged(row)
        assert [row["step"] for row in seen if row.get(SPIKE)] == [13]
