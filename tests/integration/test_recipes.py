"""Every recipe runs on the embedded default, and leaves what a run is to leave."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.config.options import recipe_files
from tests.commands import rows, summary, train

# bf16 is what runs on GPUs: weights of two types under autocast, also in evaluation and generation.
BF16 = [(recipe, "bf16") for recipe in ("sft_full", "sft_lora", "sft_qlora")]
BY_NIGHT = [("sft_full", "bf16"), ("sft_qlora", "bf16"), ("sft_vision", "auto")]
RUNS = [
    pytest.param(run, marks=pytest.mark.nightly if run in BY_NIGHT else ())
    for run in [*((recipe, "auto") for recipe in sorted(recipe_files())), *BF16]
]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def two_steps(request, tmp_path_factory):
    recipe, precision = request.param
    if recipe == "sft_qlora":
        pytest.importorskip("bitsandbytes")
    output = tmp_path_factory.mktemp(recipe)
    short = ("train.max_steps=2", "train.eval_steps=null", "train.log_steps=1", "train.save_steps=1")
    settings = (f"+recipe={recipe}", f"train.precision={precision}", *short)
    return train(output, *settings, "train.eval_batch_size=30", "logging.predictions=2")


def test_the_run_folder_is_complete(two_steps):
    names = {path.name for path in two_steps.iterdir()}
    assert names == {
        "checkpoints", "components.json", "config.yaml", "environment.json", "log.txt", "metrics.jsonl",
        "predictions.jsonl", "report.html", "skipped.jsonl", "summary.json",
    }  # fmt: skip
    assert [row["step"] for row in rows(two_steps)] == [1, 2]
    assert [row["step"] for row in rows(two_steps, "eval_loss")] == [0, 2]
    told = summary(two_steps)
    assert told["status"] == "done"
    assert told["steps"] == 2
    assert told["metrics"]["before"]["eval_samples"] == told["metrics"]["after"]["eval_samples"] == 120
    assert told["checkpoint"].endswith("step-2")
    assert {path.name for path in (two_steps / "checkpoints").iterdir()} == {"step-1", "step-2"}
    predictions = [json.loads(line) for line in (two_steps / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 2
    assert all(isinstance(row[key], str) for row in predictions for key in ("before", "after", "expected", "prompt"))


def test_the_checkpoint_loads_with_plain_transformers(two_steps):
    folder = two_steps / "checkpoints" / "step-2"
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert processor.image_processor.size["longest_edge"] == 112 * 112
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        assert (folder / name).is_file()  # other programs read the last two
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]
    adapter = folder / "adapter_model.safetensors"
    components = {row["component"]: row for row in json.loads((two_steps / "components.json").read_text())}
    if any(row["mode"] == "lora" for row in components.values()):
        trained = sum(row["trained"] for row in components.values())
        assert adapter.stat().st_size < 4 * trained + 100_000
        assert not (folder / "model.safetensors").exists()
    else:
        assert (folder / "generation_config.json").exists()
        assert not adapter.exists()
