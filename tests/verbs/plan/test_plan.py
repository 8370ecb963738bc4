"""`qwenvl-train plan`, through the whole command."""

import json
import math
import os
import re
import sys

import pytest
import torch
from safetensors.torch import load_file

from qwenvl_train.cli import main
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.compose import compose
from qwenvl_train.data.streaming import windows
from qwenvl_train.errors import UserError
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.shapes import architecture
from qwenvl_train.planning import work
from qwenvl_train.planning.memory import Load
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.plan import planning as module
from qwenvl_train.verbs.plan.estimate import estimating_renderer
from qwenvl_train.verbs.plan.remedies import remedies
from qwenvl_train.verbs.plan.settings import PLAN
from tests.commands import train
from tests.conftest import conversation, sample_of
from tests.loading import write_adapter
from tests.model.test_shapes import PUBLISHED

LORA = "+recipe=sft_lora"
PAIRS = asset_dir("data") / "shapes" / "train_pairs.jsonl"
CHECK = 4
"""Bytes of a stored file that are no feature."""


@pytest.fixture
def told(plan):
    def run(*words: str) -> dict:
        out, _ = plan(*words, "output=json")
        assert out.count("\n") == 1
        return json.loads(out)

    return run


@pytest.fixture
def own_rows(pictures, write_rows):
    rows = [
        conversation(("user", [pictures[n % 4], "What? " * (n % 7)]), ("assistant", ["Red. " * (1 + n % 5)]), id=str(n))
        for n in range(30)
    ]
    rows.append(conversation(("user", ["Who?"]), ("assistant", ["Nobody."]), id="text"))
    return write_rows(rows)


@pytest.mark.parametrize(
    "words",
    [
        ["data.max_length=300", "train.epochs=1", "train.accumulation=2", "data.pack_length=300"],
        ["train.epochs=1"],
    ],
)
def test_rows_and_steps_are_those_that_training_prints(words, own_rows, told, tmp_path, capfd, checkpoints):
    words = [LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", *words]
    found = told(*words)
    capfd.readouterr()
    folder = train(tmp_path / "train", *words, "train.precision=fp32", "data.workers=0")
    out, _ = capfd.readouterr()
    samples, tokens, longest, media = re.search(
        r"([\d,]+) samples, ([\d,]+) tokens \(longest sample ([\d,]+)\), ([\d,]+) images and videos", out
    ).groups()
    data = found["data"]
    assert [data["samples"], data["tokens"], data["longest"], data["media"]] == [
        int(text.replace(",", "")) for text in (samples, tokens, longest, media)
    ]
    fitted = re.search(r"auto chose .*", out)
    assert found["fitted"] == (fitted and fitted[0])
    steps, of_step, epochs = re.search(r"([\d,]+) steps? of ([\d.,]+) samples.*; ([\d.]+) epochs", out).groups()
    assert (found["steps"], f"{found['samples_per_step']:,.4g}", f"{found['epochs']:.2f}") == (
        int(steps),
        of_step,
        epochs,
    )
    if full := re.search(r"([\d.]+) % filled", out):
        assert f"{100 * found['pack_fill']:.1f}" == full[1]
    else:
        assert found["pack_fill"] is None
    assert found["components"] == json.loads((folder / "components.json").read_text())


def test_the_largest_pass_holds_the_most_of_each(own_rows, told, checkpoints):
    words = [LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", "data.packing=false"]
    one, all_ = told(*words, "train.batch_size=1"), told(*words, "train.batch_size=31")
    assert one["largest_pass"]["tokens"] == one["data"]["longest"]
    assert all_["largest_pass"]["tokens"] == all_["data"]["tokens"]
    assert all_["largest_pass"]["supervised"] == all_["data"]["supervised"]
    assert all_["largest_pass"]["visual"] == all_["data"]["visual"]


def test_arithmetic_of_looked_rows_is_exact_and_the_time_follows(own_rows, told, checkpoints, monkeypatch):
    words = [LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", "data.max_length=300"]
    whole = told(*words, "train.epochs=1")
    steps, device = whole["steps"], whole["device"]
    assert whole["flops_per_step"]["total"] * steps == pytest.approx(whole["flops_per_epoch"], rel=1e-3 + 4 / steps)
    pace = device["count"] * device["tflops"] * 1e12 * device["mfu"]
    assert whole["seconds"] == pytest.approx(whole["flops_per_step"]["total"] * steps / pace)
    faster = told(*words, "train.epochs=1", "plan.mfu=0.8")
    assert faster["seconds_per_step"] == pytest.approx(whole["seconds_per_step"] / 2)
    monkeypatch.setattr(work, "LOOKED", 10)
    few = told(*words, "train.epochs=1")
    assert few["flops_per_epoch"] == pytest.approx(whole["flops_per_epoch"], rel=0.1)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_stored_features_are_as_large_as_planned_and_their_tower_does_not_count(
    name, told, pictures, write_rows, checkpoints, tmp_path
):
    path = write_rows([conversation(("user", [it, "What?"]), ("assistant", ["Red."])) for it in pictures])
    words = [LORA, f"model.path={checkpoints[name]}", f"data.train={path}", "train.precision=fp32"]
    stored, looking = (told(*words, "plan.tflops=1", f"train.cache_vision={cached}") for cached in ("true", "false"))
    train(tmp_path, *words, "train.cache_vision=true", "train.max_steps=1", "data.workers=0")
    kept = [file for file in (tmp_path / ".cache" / "vision").rglob("*") if file.is_file()]
    assert stored["stored_features"] == sum(file.stat().st_size - CHECK for file in kept)
    assert looking["stored_features"] is None
    assert looking["flops_per_step"]["vision"] > stored["flops_per_step"]["vision"] == 0
    for part in ("mlp", "llm"):
        assert looking["flops_per_step"][part] == stored["flops_per_step"][part]


def test_more_devices_share_the_rows(own_rows, told, checkpoints):
    words = [LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", "data.packing=false"]
    one, two = told(*words, "train.epochs=2"), told(*words, "train.epochs=2", "plan.devices=2")
    assert two["rows_per_step"] == 2 * one["rows_per_step"]
    assert two["steps"] == math.ceil(one["steps"] / 2)
    assert two["memory"]["exchange"] == 0  # gradients live in the buckets in which they travel


def test_a_stream_is_planned_by_its_beginning(own_rows, told, checkpoints, monkeypatch):
    monkeypatch.setattr(windows, "_SAMPLES", 8)
    words = [LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", "data.max_length=300"]
    found = told(*words, "data.streaming=true", "train.max_steps=7")
    assert (found["data"]["source"], found["steps"], found["rows_per_epoch"]) == ("head", 7, None)
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    "name", ["qwen2_5_vl_7b", "qwen3_vl_30b_a3b", pytest.param("qwen2_5_vl_72b", marks=pytest.mark.nightly)]
)
def test_a_published_model_is_planned_without_it(name, own_rows, told):
    found = told(LORA, f"model={name}", f"data.train={own_rows}", "plan.fit=report")
    assert sum(row["parameters"] for row in found["components"]) == PUBLISHED[name]
    assert "the tokenizer of" in found["data"]["estimated"]
    assert (found["data"]["samples"], found["data"]["media"]) == (31, 30)
    assert found["steps"] > 0
    assert found["seconds"] > 0
    assert found["memory"]["total"] > sum(row["parameters"] for row in found["components"]) * 2


def test_an_adapter_is_planned_with_its_own_layers(checkpoints, own_rows, plan, tmp_path):
    adapter = write_adapter(checkpoints["qwen2_5_vl"], tmp_path / "adapter")
    words = ("tune_mm_llm=true", "lora.llm=true", f"model.path={adapter}", f"data.train={own_rows}", "output=json")
    rows = {row["component"]: row for row in json.loads(plan(*words)[0])["components"]}
    stored = load_file(adapter / "adapter_model.safetensors")
    assert rows["llm"]["trained"] == sum(tensor.numel() for name, tensor in stored.items() if "lora_" in name)
    assert rows["mlp"]["trained"] == 0
    assert rows["mlp"]["parameters"] == sum(tensor.numel() for name, tensor in stored.items() if "lora_" not in name)


def test_an_estimate_says_that_it_is_one(own_rows, plan):
    words = (LORA, "model=qwen2_5_vl_7b", f"data.train={own_rows}", "plan.devices=8", "train.max_steps=9")
    out, _ = plan(*words, "train.accumulation=4")
    assert "31 rows" in out
    assert "so 4 characters of text count as one token (2 if they are not ASCII)" in out
    assert re.search(r"31 samples, about [\d,]+ tokens", out)
    assert re.search(
        r"a step has 32 micro-batches, 4 on each of 8 devices, each of 1 packed row of up to [\d,]+ tokens", out
    )
    assert "9 steps" in out
    assert "the run " in out
    assert "fits on 8 × h100 with 79 GiB" in out


def test_only_the_tokens_of_text_are_estimated(pictures, checkpoints):
    """The estimate lays out the same turns and placeholders as the checkpoint's own processor."""
    for name in ("qwen2_5_vl", "qwen3_vl"):
        config = compose([LORA, f"model.path={checkpoints[name]}", "model.max_pixels=9000"], PLAN).config
        family = load_family(config.model)
        own = make_renderer(config, load_processor(config.model, family), family)
        estimating = estimating_renderer(config, family, architecture(config.model))
        asked, answer = "What is the colour of this one? " * 8, "紅い。" * 20
        sample = sample_of(conversation(("user", [pictures[0], asked]), ("assistant", [answer])))
        real, estimated = own.layout(sample), estimating.layout(sample)
        assert [size.tokens for size in estimated.media] == [size.tokens for size in real.media]
        assert [turn.role for turn in estimated.turns] == [turn.role for turn in real.turns]
        assert (estimated.input_ids == estimating.image_pad).sum() == estimated.media[0].tokens
        # The markers around media and turns, the words, "user" and "assistant" with their line breaks.
        system = 0 if family.default_system is None else 2 + math.ceil(len(f"system\n{family.default_system}") / 4) + 1
        user = 2 + 2 + math.ceil(len("user\n") / 4) + estimated.media[0].tokens + len(asked) // 4 + 1
        assistant = 2 + math.ceil(len("assistant\n") / 4) + 3 * 20 // 2 + 1
        assert estimated.length == system + user + assistant
        assert estimated.supervised == 3 * 20 // 2 + 1


def test_rows_that_are_too_long_by_an_estimate_do_not_end_a_plan(own_rows, plan):
    out, _ = plan(LORA, "model=qwen2_5_vl_7b", f"data.train={own_rows}", "data.max_length=46")
    assert re.search(r"\d+ rows cannot be used, or may be longer than data.max_length, and are not counted", out)


def test_a_run_that_does_not_fit_ends_with_2_unless_only_a_report_is_wanted(plan, monkeypatch):
    monkeypatch.setattr(module, "remedies", lambda *_: [])
    out, err = plan(LORA, "plan.device_gib=0.1", code=2)
    assert "does not fit on 1 × h100 with 0.1 GiB" in out
    assert "the run does not fit on the planned devices (with plan.fit=report, plan only reports it)" in err
    out, err = plan(LORA, "plan.device_gib=0.1", "plan.fit=report", "output=json")
    assert not json.loads(out)["fits"]
    assert err == ""


def test_a_mixture_of_experts_is_sharded_over_devices(plan, own_rows):
    words = ("model=qwen3_vl_235b_a22b", f"data.train={own_rows}", "plan.devices=8", "plan.device=b200")
    out, _ = plan(LORA, *words, code=2)
    assert re.search(r"it fits with: deepspeed=zero3 \(\d", out)


def test_what_is_in_the_host_s_memory_is_told_apart(plan, own_rows):
    """A full fine-tuning of 8B on one device of 80 GiB takes about 16 bytes of each trained weight there."""
    words = ("+recipe=sft_full", "model=qwen3_vl_8b", f"data.train={own_rows}")
    out, _ = plan(*words, code=2)
    assert re.search(r"it fits with: deepspeed=zero2_offload \(\d", out)
    out, _ = plan(*words, "deepspeed=zero2_offload")
    assert "optimizer state" not in out
    (size,) = re.findall(r"host memory +(\d+\.\d) GiB  of each process", out)
    assert float(size) == pytest.approx(8.77e9 * 16 / 2**30, rel=0.01)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model.path=/nowhere"], "model.path"),
        (["model.path=Qwen/Some-VL"], "model= option"),
        (["data.train=nowhere.jsonl"], "nowhere.jsonl"),
        (["train.max_steps=10", "train.warmup=9", "train.max_steps=5"], "given twice"),
    ],
)
def test_what_cannot_be_planned_is_told(words, problem, plan):
    out, err = plan(LORA, *words, code=2)
    assert problem in err
    assert len(out.splitlines()) <= 1, "but for the heading"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["train.precision=fp32"], "set plan.tflops"),
        (["model=qwen3_vl_30b_a3b", "train.compile=true"], "train.compile=true cannot compile"),
        (["model=qwen3_vl_30b_a3b", "lora.dropout=0.1"], "lora.dropout must be 0"),
    ],
)
def test_an_impossible_choice_is_told_before_anything_is_measured(words, problem, plan, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("rows are measured")

    monkeypatch.setattr(module, "_workload", refuse)
    out, err = plan(LORA, *words, code=2)
    assert problem in err
    assert len(out.splitlines()) <= 1, "but for the heading"


def test_nothing_is_written_but_the_cache(plan, tmp_path):
    plan(LORA)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".cache"]


def test_no_weights_are_read(plan, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights are read")

    monkeypatch.setattr("transformers.modeling_utils.load_state_dict", refuse)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", refuse)
    out, _ = plan(LORA)
    assert "fits on" in out


GIB = 2**30


def stand_in(config) -> int:
    """Ranks settings as the real count does, in whole GiB."""
    devices = config.plan.devices
    trained = 10 if config.adapted("llm") else {0: 60, 2: 20 + 40 // devices, 3: 60 // devices}[config.deepspeed.stage]
    state = (5 if config.optim.name == "adamw_8bit" else 15) if devices == 1 else 0
    kept = 10 * config.train.batch_size * (4 if config.train.checkpointing == "none" else 1)
    return (trained + state + kept * (config.pack_length or config.data.max_length or 8192) // 8192) * GIB


@pytest.mark.parametrize(
    ("words", "room", "expected"),
    [
        (["train.batch_size=4"], 90, ["train.batch_size=1 train.accumulation=16"]),
        (["train.checkpointing=none"], 90, ["train.checkpointing=all"]),
        (
            ["train.checkpointing=none", "train.batch_size=2"],
            90,
            ["train.batch_size=1 train.accumulation=8 train.checkpointing=all"],
        ),
        ([], 80, ["optim=adamw_8bit"]),
        (["plan.devices=8"], 40, ["deepspeed=zero2"]),
        (["plan.devices=8"], 20, ["deepspeed=zero3"]),
        (["plan.devices=8", "train.checkpointing=none"], 20, ["train.checkpointing=all deepspeed=zero3"]),
        ([], 71, ["deepspeed=zero2 optim=adamw_8bit data.max_length=4096", "deepspeed=zero2 plan.devices=2"]),
        ([], 36, ["+recipe=sft_lora", "deepspeed=zero3 plan.devices=4"]),
        ([], 1, []),
    ],
)  # fmt: skip
def test_the_cheapest_change_comes_first(words, room, expected):
    config = compose(["+recipe=sft_full", "model=qwen2_5_vl_7b", "data.train=x.jsonl", *words], PLAN).config
    assert stand_in(config) > room * GIB
    found = remedies(config, None, stand_in, room * GIB)
    assert [remedy.words for remedy in found] == expected
    for remedy in found:
        assert stand_in(remedy.config) == remedy.total <= room * GIB


def test_rows_are_not_cut_below_the_longest_sample():
    config = compose(["+recipe=sft_full", "model=qwen2_5_vl_7b", "data.train=x.jsonl"], PLAN).config
    (first, _) = remedies(config, 5000, stand_in, 71 * GIB)
    assert first.words == "+recipe=sft_lora"


@pytest.mark.parametrize(("packing", "shorter"), [("true", True), ("false", False)])
def test_a_shorter_limit_is_proposed_only_where_it_shortens_passes(packing, shorter):
    """Without packing no sample becomes shorter by it."""
    words = ["+recipe=sft_full", "model=qwen2_5_vl_7b", "data.train=x.jsonl", f"data.packing={packing}"]
    found = remedies(compose(words, PLAN).config, 100, stand_in, 71 * GIB)
    assert any("data.pack_length" in remedy.words for remedy in found) == shorter


def test_what_a_run_refuses_is_not_proposed():
    words = ["+recipe=sft_full", "model=qwen3_vl_30b_a3b", "data.train=x.jsonl", "plan.devices=8"]

    def takes(config) -> int:
        if config.deepspeed.stage == 3:
            raise UserError("cannot load")
        return stand_in(config)

    found = remedies(compose(words, PLAN).config, None, takes, 20 * GIB)
    assert found
    assert all(remedy.config.deepspeed.stage != 3 for remedy in found)


def test_what_is_proposed_fits_when_it_is_planned(told, own_rows):
    words = ["+recipe=sft_full", "model=qwen2_5_vl_7b", f"data.train={own_rows}", "plan.devices=8"]
    found = told(*words, "plan.fit=report")
    assert not found["fits"]
    for remedy in found["remedies"]:
        changed = remedy["words"].split()
        kept = [word for word in words if word.split("=")[0] not in {one.split("=")[0] for one in changed}]
        again = told(*kept, *changed)
        assert again["fits"]
        assert again["memory"]["total"] == remedy["total"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["data.packing=false", "train.batch_size=8"], Load(1600, 4000, 320)),
        (["data.packing=false", "train.batch_size=4"], Load(800, 2000, 160)),
        # Not below the largest sample.
        (["data.packing=false", "train.batch_size=1"], Load(290, 900, 90)),
        # All samples fill fewer than 8 packs of 300, but the first of them are full.
        (["train.batch_size=8"], Load(1600, 4000, 320)),
        (["train.batch_size=4"], Load(1200, 2000, 160)),
        (["train.batch_size=1"], Load(300, 900, 90)),
    ],
)
def test_a_smaller_pass_still_holds_the_largest_sample_and_a_full_pack(settings, expected):
    words = ["+recipe=sft_full", "model=qwen2_5_vl_7b", "data.train=x.jsonl", "data.max_length=300"]
    packing = [word for word in settings if "packing" in word]
    config, changed = (compose([*words, *more], PLAN).config for more in ([*packing, "train.batch_size=8"], settings))
    loads = module._Loads(config, load=Load(1600, 4000, 320), least=Load(290, 900, 90))
    assert loads.of(changed) == expected


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_reader_may_leave(output, plan, monkeypatch):
    unread, stdout = os.pipe()
    os.close(unread)
    with os.fdopen(stdout, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        _, err = plan(LORA, f"output={output}")
        left.write("more, as is flushed at the end of a process")
    assert "Traceback" not in err


def test_help_lists_the_verb(capsys):
    assert main(["--help"]) == 0
    assert re.search(r"^  plan +predict the steps", capsys.readouterr().out, re.MULTILINE)


def test_a_copy_to_compare_with_takes_its_weights(told):
    words = ("+recipe=dpo_full", "model=qwen2_5_vl_3b", "data.max_length=2048", f"data.train={PAIRS}")
    copied = told(*words, "data.eval=null")
    cached = told(*words, "data.eval=null", "dpo.reference=cached")
    parameters = sum(row["parameters"] for row in copied["components"])
    embeddings = 151_936 * 2048  # in float32, as those that are trained
    assert copied["memory"]["reference"] == 2 * parameters + 2 * embeddings
    assert cached["memory"]["reference"] == 0
    assert copied["flops_per_step"]["vision"] == cached["flops_per_step"]["vision"]
    assert copied["flops_per_step"]["llm"] > 1.2 * cached["flops_per_step"]["llm"]
    room = (copied["memory"]["total"] - parameters) / GIB
    small = (f"plan.device_gib={room}", "plan.fit=report")
    (remedy,) = told(*words, "data.eval=null", *small)["remedies"]
    assert remedy["words"] == "dpo.reference=cached"


def test_the_plans_of_a_sweep_stand_beside_each_other(plan, monkeypatch):
    monkeypatch.setattr(module, "remedies", lambda *_: [])
    words = ("-m", LORA, "data.packing=false", "plan.device_gib=100,0.1", "data.max_length=1000,9")
    out, err = plan(*words, "output=json", code=2)
    plans = json.loads(out)
    names = [f"device_gib-{gib}_max_length-{most}" for gib in ("100", "0.1") for most in (1000, 9)]
    assert [one["job"] for one in plans] == names
    assert [one.get("fits") for one in plans] == [True, None, False, None]
    assert "tokens long, but data.max_length is 9" in plans[1]["problem"]
    assert "1 run does not fit: device_gib-0.1_max_length-1000" in err
    assert f"2 runs cannot be planned: {names[1]}, {names[3]}" in err
    out, _ = plan("-m", LORA, "data.packing=false", "plan.device_gib=100,0.1", "plan.fit=report")
    assert re.search(r"^device_gib-100: fits on 1 × h100 with 100 GiB: [\d.,]+ .iB of each, [\d,]+ steps in ", out)
    assert "\ndevice_gib-0.1: does not fit on 1 × h100 with 0.1 GiB" in out


def test_the_words_for_streams_stored_features_and_rows_left_out(plan, own_rows, checkpoints):
    words = (LORA, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={own_rows}", "data.eval=null")
    out, _ = plan(*words, "data.streaming=true", "train.max_steps=7")
    assert "assumed: the rest of the stream is like these rows" in out
    assert re.search(r"^ *7 steps", out, re.MULTILINE)
    out, _ = plan(*words, "train.cache_vision=true")
    assert re.search(r"train\.cache_vision stores at most [\d.,]+ MiB of vision features for them before", out)
    with own_rows.open("a", encoding="utf-8") as file:
        file.write("{\n")
    out, _ = plan(*words, "data.on_error=skip")
    assert "1 row cannot be used and would be left out; qwenvl-train inspect … lists the reasons" in out
