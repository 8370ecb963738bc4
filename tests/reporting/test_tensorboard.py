"""What TensorBoard's own reader finds in the folder of a run."""

import io
import sys
from dataclasses import replace

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.reporter import Lengths
from qwenvl_train.reporting.tensorboard import TensorBoardRun
from qwenvl_train.reporting.tracking import tracked

from .rows import SUMMARY, draw_receipt, evaluation_row, training_row


def read(folder) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=everything).Reload()


@pytest.fixture
def answers(tmp_path) -> list[dict]:
    picture = tmp_path / "receipt.png"
    draw_receipt(picture, "12.80")
    boxes = {"expected": [{"label": "total", "coordinates": [42.0, 56.0, 210.0, 280.0]}]}
    row = {"id": "receipt-1", "source": "eval.jsonl", "line": 1, "images": [str(picture)] * 2, "regions": boxes}
    return [
        row
        | {"prompt": "The total?", "expected": "12.80", "before": "A list.", "after": "12.80\n\nEUR"}
        | {"scores": {"before": {"anls": 0.0}, "after": {"anls": 0.5}}}
    ]


def test_all_figures_answers_and_settings_are_there(run, answers):
    reporter = TensorBoardRun()
    reporter.start(replace(run, lengths=Lengths([3, 0, 7], [10.0, 20.0, 30.0, 40.0])))
    reporter.answered(0, answers)
    rows = [training_row(1), evaluation_row(1, 0.5) | {"eval_generated/anls": 0.25}, training_row(2)]
    for row in rows:
        reporter.log(row)
    reporter.finish(SUMMARY)
    found = read(run.folder)
    logged = {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}
    expected: dict[str, list] = {}
    for row in rows:
        for name, value in tracked(row).items():
            expected.setdefault(name, []).append((row["step"], pytest.approx(value, rel=1e-6)))
    assert logged == expected
    assert {"train/loss", "optimizer/grad_norm", "speed/tokens_per_second", "eval/exact_match", "scores/anls"} <= set(
        logged
    )

    (lengths,) = found.Histograms("data/sequence_lengths")
    value = lengths.histogram_value
    assert (value.num, value.min, value.max, value.sum) == (10, 10, 40, 3 * 15 + 7 * 35)
    assert list(zip(value.bucket_limit, value.bucket, strict=True))[-3:] == [(20, 3), (30, 0), (40, 7)]

    first, second = (
        Image.open(io.BytesIO(found.Images(f"answers/receipt-1/{number}")[0].encoded_image_string)) for number in (1, 2)
    )
    assert first.size == second.size == (420, 560)
    assert [picture.getpixel((42, 150)) == (26, 152, 80) for picture in (first, second)] == [True, False]
    (text,) = found.Tensors("answers/receipt-1/text_summary")
    assert "12.80" in (content := text.tensor_proto.string_val[0].decode())
    assert "    12.80\n    \n    EUR" in content
    assert "anls before 0, anls after 0.5" in content

    stored = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(stored).session_start_info.hparams
    assert settings["train/lr"].number_value == 1e-4
    assert settings["model/path"].string_value == run.config["model"]["path"]


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(run):
    for begun, steps in ((run, (1, 2, 3)), (replace(run, start_step=2), (3, 4))):
        reporter = TensorBoardRun()
        reporter.start(begun)
        for step in steps:
            reporter.log(training_row(step, loss=begun.start_step))
        reporter.finish(SUMMARY)
    found = [(one.step, one.value) for one in read(run.folder).Scalars("train/loss")]
    assert found == [(1, 0), (2, 0), (3, 2), (4, 2)]


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'qwenvl-train\[tensorboard\]'"):
        TensorBoardRun()
