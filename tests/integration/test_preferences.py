"""Preference tuning through the real command: the same curve however it is computed, and answers that change."""

import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.sample import Sample
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.build import build_copy, build_model
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.run import preparing, reference_cache
from qwenvl_train.training.objectives.sft import Answers
from tests.commands import read_lines, rows, summary, train
from tests.conftest import by_pairs, conversation, sample_of, two_families_by_day
from tests.loading import renderer_of

SHAPES = asset_dir("data") / "shapes"
LORA = ("tune_mm_mlp=true", "tune_mm_llm=true", "lora.llm=true", "train.lr=1e-3")
FULL = ("tune_mm_mlp=true", "tune_mm_llm=true", "train.lr=1e-4")
MIXTURE = ("dpo.loss=[sigmoid,bco_pair,sft]", "dpo.weights=[0.8,0.2,1.0]")
SHORT = ("train.schedule=constant", "train.warmup=0", "train.max_steps=3", "train.log_steps=1", "data.workers=0")


@pytest.fixture
def pairs(pictures, write_rows):
    """Of answers of very different lengths, one pair with other pictures, some without any."""
    made = []
    for index in range(8):
        asked = {"prompt": f"<image>What is it? {index}", "images": [str(pictures[index % 4])]}
        if index % 3 == 2:
            asked = {"prompt": f"Who? {index}"}
        answers = {"chosen": "Red. " * (index % 4 + 1), "rejected": "A ring " * (3 - index % 3)}
        made.append(asked | answers | {"id": str(index)})
    made[3]["rejected_images"] = [str(pictures[1])]
    return write_rows(made)


@pytest.fixture
def settings(model_type, checkpoints, pairs):
    return ("method=dpo", f"model.path={checkpoints[model_type]}", f"data.train={pairs}", *SHORT)


TOLD = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "kl")


def assert_one_curve(one, other, rel: float, at_most: float) -> None:
    assert len(rows(one)) == 3
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        assert mine["rewards/accuracies"] == theirs["rewards/accuracies"]
        for key in TOLD:
            assert mine[key] == pytest.approx(theirs[key], rel=rel, abs=at_most), key


@two_families_by_day
def test_a_mixture_has_one_trajectory_however_a_step_is_cut(settings, tmp_path):
    common = (*settings, *LORA, *MIXTURE, "data.packing=false")
    runs = [
        train(tmp_path, *common, f"train.batch_size={size}", f"train.accumulation={8 // size}", name=f"b{size}")
        for size in (8, 2, 1)
    ]
    for other in runs[1:]:
        # Measured worst case over families: 2.2e-6
        assert_one_curve(runs[0], other, rel=2e-5, at_most=1e-6)


@two_families_by_day
def test_the_model_without_its_adapters_is_the_model_as_it_was(settings, tmp_path):
    adapter, copy = (
        train(tmp_path, *settings, *LORA, f"dpo.reference={reference}", name=reference)
        for reference in ("adapter", "model")
    )
    assert_one_curve(adapter, copy, rel=1e-6, at_most=1e-7)
    first, *_, last = rows(adapter)
    assert first["rewards/margins"] == 0
    assert first["rewards/accuracies"] == 0.5
    assert last["rewards/margins"] > 0


@pytest.mark.parametrize(("model_type", "reference"), by_pairs("model", "cached"))
def test_half_precision_starts_at_a_tie_too(reference, settings, tmp_path):
    """The copy computes as the model whose weights are trained in float32."""
    run = train(tmp_path, *settings, *FULL, f"dpo.reference={reference}", "train.precision=bf16")
    first = rows(run)[0]
    # Stored values come from rows with other company, which changes nothing here.
    assert first["kl"] == first["rewards/margins"] == 0
    assert first["rewards/accuracies"] == 0.5


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
def test_a_copy_is_gone_when_its_values_are_stored(settings, tmp_path, monkeypatch):
    """Both that and the model would not fit where one does."""
    made = []

    def counting(*given):
        made.append(weakref.ref(build_copy(*given)))
        return made[0]()

    def alone(*given):
        assert made[0]() is None
        return build_model(*given)

    monkeypatch.setattr(reference_cache, "build_copy", counting)
    monkeypatch.setattr(preparing, "build_model", alone)
    held_out = next(word for word in settings if word.startswith("data.train=")).replace("train", "eval", 1)
    train(tmp_path, *settings, *LORA, held_out, "dpo.reference=cached", "logging.predictions=0")
    assert len(made) == 1


@pytest.mark.parametrize(("model_type", "tuned"), by_pairs(LORA, FULL))
def test_a_resumed_run_continues_the_same_curve(tuned, settings, tmp_path):
    common = (*settings, *tuned, "train.save_steps=2")
    whole = train(tmp_path, *common)
    killed = tmp_path / "killed" / "run"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "step-3")
    resumed = train(tmp_path / "killed", *common)
    assert [{key: row[key] for key in TOLD} for row in rows(resumed)] == [
        {key: row[key] for key in TOLD} for row in rows(whole)
    ]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", pytest.param("qwen3_vl_moe", marks=pytest.mark.nightly)])
def test_preferences_follow_a_fine_tuning(settings, pairs, model_type, checkpoints, tmp_path, write_rows):
    """The usual chain. The reference is the model as it came, with its adapter, and not the base model."""
    answers = [
        {"prompt": row["prompt"], "images": row.get("images", []), "completion": row["chosen"]}
        for row in map(json.loads, pairs.read_text().splitlines())
    ]
    data = f"data.train={write_rows(answers, 'answers.jsonl')}"
    base = checkpoints[model_type]
    first = train(tmp_path, *LORA, f"model.path={base}", data, *SHORT, name="sft") / "checkpoints" / "step-3"
    lora = ("tune_mm_llm=true", "lora.llm=true", "train.lr=1e-3", "train.save_steps=2")
    common = (*(word for word in settings if not word.startswith("model.path=")), f"model.path={first}", *lora)
    continued, merged = (
        train(tmp_path, *common, f"lora.existing={existing}", name=existing) for existing in ("continue", "merge")
    )
    for run, holder in ((continued, base), (merged, merged / "base_model")):
        start, *_, end = rows(run)
        assert start["kl"] == start["rewards/margins"] == 0
        assert end["rewards/margins"] > 0
        lineage = json.loads((run / "environment.json").read_text())["model"]
        assert (lineage["path"], lineage["base_model"]) == (str(first), str(base))
        adapter = json.loads((run / "checkpoints" / "step-3" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(holder)
    # Both start from the same model, up to the rounding of merged weights.
    for name in ("logps/chosen", "logps/rejected"):
        assert rows(continued)[0][name] == pytest.approx(rows(merged)[0][name], rel=1e-2)
    # The merger, which is frozen now, is saved as the fine-tuning left it.
    steps = (first, continued / "checkpoints" / "step-3")
    before, after = (load_file(step / "adapter_model.safetensors") for step in steps)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "lora_" not in name}
    killed = tmp_path / "killed" / "continue"
    shutil.copytree(continued, killed)
    shutil.rmtree(killed / "checkpoints" / "step-3")
    again = train(tmp_path / "killed", *common, "lora.existing=continue", name="continue")
    assert [{key: row[key] for key in TOLD} for row in rows(again)] == [
        {key: row[key] for key in TOLD} for row in rows(continued)
    ]


def test_rows_with_one_answer_are_refused(checkpoints, write_rows, capsys):
    from qwenvl_train.cli import main

    file = write_rows([{"prompt": "Who?", "completion": "I."}])
    assert main(["+recipe=dpo_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={file}"]) == 2
    assert "rows.jsonl:1 (id rows-1) has one answer, but DPO compares two" in capsys.readouterr().err


@pytest.mark.parametrize(("model_type", "reference"), by_pairs("adapter", "model"))
def test_a_frozen_tower_looks_once_for_both_models(reference, settings, model_type, tmp_path, monkeypatch):
    from transformers.models import qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_5_moe, qwen3_vl, qwen3_vl_moe

    towers = {
        "qwen2_vl": qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel,
        "qwen2_5_vl": qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel,
        "qwen3_vl": qwen3_vl.modeling_qwen3_vl.Qwen3VLVisionModel,
        "qwen3_vl_moe": qwen3_vl_moe.modeling_qwen3_vl_moe.Qwen3VLMoeVisionModel,
        "qwen3_5": qwen3_5.modeling_qwen3_5.Qwen3_5VisionModel,
        "qwen3_5_moe": qwen3_5_moe.modeling_qwen3_5_moe.Qwen3_5MoeVisionModel,
    }
    tower, looked = towers[model_type], []
    original = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *a, **k: (looked.append(1), original(*a, **k))[1])
    train(tmp_path, *settings, *LORA, f"dpo.reference={reference}", "train.accumulation=2")
    assert len(looked) == 3 * 2


# Half of the steps, at more than twice the rate.
SHORTER = ("train.epochs=5", "train.lr=5e-5", "train.checkpointing=none")


@pytest.fixture(
    scope="module", params=[SHORTER, pytest.param((), marks=pytest.mark.nightly)], ids=["shorter", "recipe"]
)
def learned(request, tmp_path_factory):
    return train(tmp_path_factory.mktemp("dpo"), "+recipe=dpo_lora", *request.param)


def test_the_preference_is_learned_and_answers_follow(learned):
    before, after = (summary(learned)["metrics"][when] for when in ("before", "after"))
    assert before["eval_rewards/accuracies"] == 0.5
    assert after["eval_rewards/accuracies"] >= 0.9
    # About half of the answers that the model gives at first are the chosen ones.
    assert before["eval_exact_match"] < 0.6
    assert after["eval_exact_match"] >= 0.9
    predictions = read_lines(learned / "predictions.jsonl")
    assert any(row["before"] != row["expected"] for row in predictions)
    assert sum(row["after"] == row["expected"] for row in predictions) >= len(predictions) - 2


def test_what_the_model_knew_before_it_still_knows(learned):
    """Exact match on questions that no pair asks; measured: 100 % before, 97.1 % after."""
    tiny = asset_dir("data") / "tiny"
    processor = AutoProcessor.from_pretrained(tiny)
    renderer = renderer_of(processor, tiny)
    asked = [collate([renderer.render(sample) for sample in group], renderer) for group in taught()]

    def exact_match(model) -> float:
        answers = Answers()
        with torch.no_grad():
            return answers.metrics(sum(answers.score(model.eval(), batch) for batch in asked))["eval_exact_match"]

    model = AutoModelForImageTextToText.from_pretrained(tiny, dtype=torch.float32)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    before = exact_match(model)
    (checkpoint,) = (learned / "checkpoints").iterdir()
    assert exact_match(PeftModel.from_pretrained(model, checkpoint)) >= before - 0.05


def taught() -> list[list[Sample]]:
    """What the checkpoint was taught to answer, about the held-out pictures."""
    known = {"What colour is it?": 1, "What shape is it?": 2}
    samples = []
    for row in read_lines(SHAPES / "eval_pairs.jsonl"):
        whole = max(row["chosen"], row["rejected"], key=len)
        for question, word in known.items() if whole.count(" ") == 2 else ():
            turns = ("user", [SHAPES / row["images"][0], question]), ("assistant", [whole.split()[word]])
            samples.append(sample_of(conversation(*turns)))
    return [samples[start : start + 40] for start in range(0, len(samples), 40)]


@pytest.mark.nightly
def test_the_preference_is_about_the_picture(tmp_path):
    """With the pictures of other rows there is nothing to tell the answers apart by."""
    folder = tmp_path / "shapes"
    shutil.copytree(SHAPES / "images", folder / "images")
    read = read_lines(SHAPES / "train_pairs.jsonl")
    pictures = [row["images"] for row in read]
    for row, images in zip(read, pictures[97:] + pictures[:97], strict=True):
        row["images"] = images
    shuffled = folder / "pairs.jsonl"
    shuffled.write_text("".join(json.dumps(row) + "\n" for row in read), encoding="utf-8")
    run = train(
        tmp_path, "+recipe=dpo_lora", f"data.train={shuffled}", "data=shape_pairs",
        "logging.predictions=0",
    )  # fmt: skip
    assert rows(run, "eval_loss")[-1]["eval_exact_match"] <= 0.7


def said(text: str) -> str:
    """What was told of stored log-probabilities."""
    return next(line for line in text.splitlines() if "log-probabilities of the reference" in line)


@pytest.mark.parametrize(
    "model_type",
    [
        "qwen2_5_vl",
        "qwen3_vl_moe",
        pytest.param("qwen2_vl", marks=pytest.mark.nightly),
        pytest.param("qwen3_vl", marks=pytest.mark.nightly),
        pytest.param("qwen3_5", marks=pytest.mark.nightly),
    ],
)
def test_stored_log_probs_give_the_same_curve(settings, tmp_path, capsys):
    common = (*settings, *LORA, f"data.cache={tmp_path / 'cache'}")
    computed = train(tmp_path, *common)
    capsys.readouterr()
    stored = train(tmp_path, *common, "dpo.reference=cached", name="stored")
    assert said(capsys.readouterr().out) == "data.train: log-probabilities of the reference: 8 pairs to compute"
    # Measured worst case over families: 2.4e-7 of a reward of 0.05
    assert_one_curve(stored, computed, rel=1e-5, at_most=5e-6)
    # The next run, here of everything in full, finds them: they follow from the published weights and the pairs alone.
    full = train(tmp_path, *settings, *FULL, f"data.cache={tmp_path / 'cache'}", "dpo.reference=cached", name="full")
    assert said(capsys.readouterr().out) == "data.train: log-probabilities of the reference: all stored"
    copied = train(tmp_path, *settings, *FULL, "dpo.reference=model", name="copied")
    assert_one_curve(full, copied, rel=1e-5, at_most=5e-6)


@pytest.fixture
def many(pictures, write_rows, tmp_path):
    """Three files of stored log-probabilities."""
    shutil.copytree(pictures[0].parent, tmp_path / "own")
    asked = {"chosen": "Red.", "rejected": "Blue."}
    return write_rows(
        [
            asked | {"prompt": f"<image>Part {index}?", "images": [f"own/{index % 4}.png"], "id": str(index)}
            for index in range(130)
        ]
    )


CACHED = ("dpo.reference=cached", "train.max_steps=1", "data.workers=0", "data.packing=false")


def test_only_what_is_missing_is_computed(many, checkpoints, tmp_path, capsys):
    common = ("+recipe=dpo_lora", f"data.train={many}", *CACHED, f"data.cache={tmp_path / 'cache'}")

    def told(*settings: str, name: str, model: Path = checkpoints["qwen2_5_vl"]) -> str:
        train(tmp_path, *common, f"model.path={model}", *settings, name=name)
        return said(capsys.readouterr().out).removeprefix("data.train: log-probabilities of the reference: ")

    assert told(name="first") == "130 pairs to compute"
    assert told(name="second") == "all stored"
    # A killed start, and a damaged disk.
    files = sorted(path for path in (tmp_path / "cache" / "reference").rglob("*") if path.is_file())
    assert len(files) == 3
    small = min(files, key=lambda file: file.stat().st_size)
    content = small.read_bytes()
    small.unlink()
    assert told(name="killed") == "2 pairs to compute"
    assert small.read_bytes() == content
    # Other rows, other pixels, another checkpoint.
    lines = many.read_text(encoding="utf-8").splitlines()
    many.write_text("\n".join([*lines[:129], lines[129].replace("Blue", "Green")]) + "\n", encoding="utf-8")
    assert told(name="rows") == "2 pairs to compute"
    assert told("model.max_pixels=6272", name="pixels") == "130 pairs to compute"
    (tmp_path / "own" / "1.png").touch()
    assert told(name="pictures") == "130 pairs to compute"
    shutil.copytree(checkpoints["qwen2_5_vl"], tmp_path / "other")
    assert told(model=tmp_path / "other", name="model") == "130 pairs to compute"


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_picture_that_does_not_decode_is_told_before_the_training(on_error, many, checkpoints, tmp_path, capsys):
    from qwenvl_train.cli import main

    whole = (tmp_path / "own" / "2.png").read_bytes()
    (tmp_path / "own" / "broken.png").write_bytes(whole[: len(whole) // 2])
    lines = many.read_text(encoding="utf-8").splitlines()
    many.write_text("\n".join([*lines[:7], lines[7].replace("own/3.png", "own/broken.png")]) + "\n", encoding="utf-8")
    common = ("+recipe=dpo_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={many}", *CACHED)
    where = (f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled", f"data.on_error={on_error}")
    code = main([*common, "train.batch_size=8", "train.accumulation=4", *where])
    if on_error == "raise":
        assert code == 2
        assert "rows.jsonl:8 (id 7)" in capsys.readouterr().err
        assert not (tmp_path / "run" / "checkpoints").exists()
    else:
        assert code == 0
        assert [row["line"] for row in read_lines(tmp_path / "run" / "skipped.jsonl")] == [8]
        assert summary(tmp_path / "run")["samples"] == 7 * 4
