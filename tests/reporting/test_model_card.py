"""The README.md of a checkpoint."""

from dataclasses import replace

import yaml

from qwenvl_train.reporting.model_card import model_card

from .rows import evaluation_row


def test_the_card_holds_facts_of_the_run(run):
    run = replace(
        run, config=run.config | {"method": "sft", "data": {"train": [{"path": "a"}], "eval": [{"path": "e"}]}}
    )
    card = model_card(run, 60, {"torch": "2.15.0", "trl": None}, evaluation_row(60, 0.5))
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": "Qwen/Qwen2.5-VL-3B-Instruct", "library_name": "peft", "tags": ["sft"]
    }  # fmt: skip
    assert "after 60 of 120 steps of supervised fine-tuning of Qwen/Qwen2.5-VL-3B-Instruct." in text
    assert "| llm | lora | 3,102,404,608 | 29,933,568 | 1.0 % | 1.0e-04 |" in text
    assert "- a\n" in text
    assert "| exact match | 50.0 % |" in text
    assert "- torch 2.15.0\n" in text
    assert "trl" not in text
    assert "More Information Needed" not in text
    assert "Held-out score" not in model_card(run, 60, {}, None)
    share = replace(run, config=run.config | {"data": {"train": [{"path": "a"}], "eval": "5%"}})
    assert "- 5% of the data\n" in model_card(share, 60, {}, evaluation_row(60, 0.5))


def test_the_card_of_a_run_on_an_adapter_names_its_base_model(run):
    origin = {"path": "runs/first/checkpoints/step-9", "base_model": "Qwen/base", "adapter": "trained further"}
    run = replace(run, config=run.config | {"method": "dpo", "data": {"train": [{"path": "a"}]}}, lineage=origin)
    card = model_card(run, 60, {}, None)
    assert "base_model: Qwen/base\n" in card
    assert "started from the LoRA adapter runs/first/checkpoints/step-9, which was trained further." in card
    merged = replace(
        run, lineage=origin | {"adapter": "merged into its base model", "merged_model": "runs/x/base_model"}
    )
    assert "base_model: runs/x/base_model\n" in model_card(merged, 60, {}, None)
