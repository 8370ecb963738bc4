"""The scores of each source of the held-out set, which add up to that of the whole set."""

import pytest
import torch
from accelerate import PartialState
from transformers import AutoProcessor

from qwenvl_train.config.entries import SourceConfig, entry_names
from qwenvl_train.data.batches.loader import EvalRows, Rows
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.samples import Samples
from qwenvl_train.evaluation.loop import eval_loader, evaluate
from tests.conftest import conversation
from tests.loading import renderer_of


class CountingScore:
    """A score that gives each sample of a packed row the number of learned tokens as its loss."""

    sums = 2

    def score(self, model, batch) -> torch.Tensor:
        return torch.tensor([len(batch["learned"]), len(batch["samples"].cu_seqlens) - 1], dtype=torch.float64)

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        loss, samples = sums.tolist()
        return {"eval_loss": loss / samples, "eval_samples": int(samples), "eval_entropy": 0.0}


@pytest.fixture
def held_out(checkpoints, write_rows, tmp_path) -> Rows:
    def rows(answer: str, count: int) -> list[dict]:
        return [conversation(("user", ["What?"]), ("assistant", [answer])) for _ in range(count)]

    files = [write_rows(rows("a", 3), "short.jsonl"), write_rows(rows("a" * 40, 2), "long.jsonl")]
    renderer = renderer_of(AutoProcessor.from_pretrained(checkpoints["qwen2_vl"]), checkpoints["qwen2_vl"])
    samples = Samples(tuple(SourceConfig(path=str(file)) for file in files), "data.eval", False, tmp_path)
    return Rows(samples, lengths_of(samples, renderer, MeasureOptions(tmp_path), lambda done: None), renderer)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_source_has_its_own_score(held_out, batch_size):
    PartialState()
    loader = eval_loader(EvalRows(held_out, batch_size, rank=0, world=1), workers=0)
    metrics = evaluate(torch.nn.Identity(), loader, CountingScore(), torch.device("cpu")).metrics()
    short, long = metrics["eval_sources"].values()
    assert list(metrics["eval_sources"]) == ["short.jsonl", "long.jsonl"]
    assert (short["samples"], long["samples"], metrics["eval_samples"]) == (3, 2, 5)
    assert short["loss"] < long["loss"]
    assert metrics["eval_loss"] == pytest.approx((3 * short["loss"] + 2 * long["loss"]) / 5)
    assert set(short) == {"loss", "samples"}


def test_names_of_sources_are_short_and_distinct():
    def names(*entries: dict) -> list[str]:
        return entry_names([SourceConfig(**entry) for entry in entries])

    assert names({"path": "/data/a.jsonl"}, {"path": "b/"}) == ["a.jsonl", "b"]
    assert names({"path": "x/eval.jsonl"}, {"path": "y/eval.jsonl"}) == ["x/eval.jsonl", "y/eval.jsonl"]
    assert names({"path": "org/vqa", "split": "val"}, {"path": "org/vqa", "split": "test"}) == [
        "org/vqa (val)", "org/vqa (test)"
    ]  # fmt: skip
