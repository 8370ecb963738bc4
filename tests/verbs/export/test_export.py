"""Exports of every family and way of training: the same model in the published form, or nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.cli import main
from qwenvl_train.model.published import tensors_in
from qwenvl_train.verbs.export import exporting, reload, verifying
from tests.conftest import FAMILIES
from tests.loading import write_adapter
from tests.verbs.export.runs import MODES, write_run

ADAPTERS = [mode for mode in MODES if mode != "full"]
DAILY = {
    ("qwen2_5_vl", "lora + merger"), ("qwen3_vl", "full"), ("qwen3_vl_moe", "lora llm"), ("qwen3_5", "lora all"),
}  # fmt: skip


def every(modes, daily=DAILY):
    """Each family in each mode. Those that are not for every day are for the nightly tests."""
    return pytest.mark.parametrize(
        ("model_type", "mode"),
        [
            pytest.param(family, mode, marks=() if (family, mode) in daily else pytest.mark.nightly)
            for family in FAMILIES
            for mode in modes
            if not (mode == "qlora" and family.endswith("_moe"))  # 4-bit experts are refused
        ],
    )


def export(*words: str, code: int = 0) -> None:
    assert main(["export", *words]) == code


def figures(capfd) -> tuple[str, str]:
    """The line that says what was verified, and the last line, which serves the export."""
    lines = capfd.readouterr().out.strip().splitlines()
    return next(line for line in lines if line.startswith("verified")), lines[-1]


@every(MODES)
def test_a_run_becomes_one_model_in_the_published_form(model_type, mode, make_run, checkpoints, capfd, in_this_process):
    run = make_run(model_type, **MODES[mode])
    export(f"run={run}")
    told, line = figures(capfd)
    assert "all equal to the run's" in told
    assert "on 2 held-out rows" in told
    assert "2 of 2 greedy answers the same" in told
    folder, base = run / "export" / "merged", checkpoints[model_type]
    assert line == f"vllm serve {folder}"
    written, published = tensors_in(folder), tensors_in(base)
    assert {name: one[1:] for name, one in written.items()} == {name: one[1:] for name, one in published.items()}
    assert json.loads((folder / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    assert (folder / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    for name in ("processor_config", "preprocessor_config", "video_preprocessor_config", "chat_template"):
        assert (folder / f"{name}.json").is_file()
    assert AutoProcessor.from_pretrained(folder).chat_template == AutoProcessor.from_pretrained(base).chat_template
    assert [path.name for path in (run / "export").iterdir()] == ["merged"]
    # A server may run as another user.
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@every(ADAPTERS, {("qwen2_5_vl", "lora + merger"), ("qwen3_vl", "lora all")})
def test_a_run_becomes_an_adapter_of_lora_tensors_alone(
    model_type, mode, make_run, checkpoints, capfd, in_this_process
):
    run = make_run(model_type, **MODES[mode])
    export(f"run={run}", "export.form=adapter")
    told, line = figures(capfd)
    folder, own = run / "export" / "adapter", mode in ("lora + merger", "qlora")
    base = folder / "base" if own else checkpoints[model_type]
    assert (folder / "base").exists() == own
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] is None
    assert config["base_model_name_or_path"] == str(base)
    names = load_file(folder / "adapter" / "adapter_model.safetensors").keys()
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert ("visual" in str(config["target_modules"])) == (mode == "lora all")
    tower = "--enable-tower-connector-lora " if mode == "lora all" else ""
    served = f"vllm serve {base} --enable-lora --max-lora-rank 16 {tower}--lora-modules mine={folder}/adapter"
    assert line == served
    assert "2 of 2 greedy answers the same" in told
    if own:
        assert "all equal to the run's" in told
        assert tensors_in(base).keys() == tensors_in(checkpoints[model_type]).keys()
        # PEFT finds every layer, and no other one.
        model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
        loaded = PeftModel.from_pretrained(model, folder / "adapter")
        assert {name.replace(".default", "") for name, _ in loaded.named_parameters() if "lora_" in name} == set(names)


@pytest.mark.parametrize("mode", ["full", pytest.param("lora llm", marks=pytest.mark.nightly)])
def test_weights_that_transformers_does_not_load_are_those_of_the_base_model(
    mode, checkpoints, rows, capfd, tmp_path, in_this_process
):
    """A published Qwen3.5 has some, with which a server predicts several tokens at once."""
    base = checkpoints["qwen3_5"]
    mine = tmp_path / "base"
    shutil.copytree(base, mine)
    weights = load_file(base / "model.safetensors")
    extra = {name: torch.randn(4, 3).bfloat16() for name in ("mtp.fc.weight", "mtp.layers.0.mlp.up_proj.weight")}
    save_file(weights | extra, mine / "model.safetensors", metadata={"format": "pt"})
    run = write_run(tmp_path / "runs" / "mine", mine, "qwen3_5", rows, **MODES[mode])
    export(f"run={run}")
    told, _ = figures(capfd)
    assert "all equal to the run's" in told
    written = load_file(run / "export" / "merged" / "model.safetensors")
    assert written.keys() == weights.keys() | extra.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in extra.items())


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        ("fp32", 1e-5),
        pytest.param("fp16", 3e-3, marks=pytest.mark.nightly),
        pytest.param("bf16", 3e-2, marks=pytest.mark.nightly),
    ],
)
def test_types_of_weights_and_files_of_limited_size(dtype, limit, make_run, monkeypatch, tmp_path, in_this_process):
    found = []
    monkeypatch.setattr(exporting, "in_words", lambda verified: found.append(verified) or "so")
    run = make_run("qwen2_5_vl", **MODES["lora + merger"])
    out = tmp_path / "out"
    export(f"run={run}", f"export.to={out}", f"export.dtype={dtype}", "export.shard_size=500KB")
    (verified,) = found
    # Measured worst case over families and ways of training: fp32 1.4e-6, fp16 1.2e-3, bf16 9.7e-3
    assert verified.logit <= limit
    files = sorted(out.glob("model-*.safetensors"))
    assert len(files) > 2
    stored = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[dtype]
    assert {tensor.dtype for tensor in tensors_in(out).values()} == {stored}
    assert json.loads((out / "config.json").read_text())["dtype"] == {"F32": "float32", "F16": "float16"}.get(
        stored, "bfloat16"
    )


def test_a_real_process_loads_what_a_real_run_trained(tmp_path, capfd):
    """A preference run, whose held-out rows are a share of data.train."""
    words = (
        "train.max_steps=2",
        "train.accumulation=1",
        "data.pack_length=256",
        "data.eval=5%",
        f"output_dir={tmp_path}",
        "logging=local",
    )
    assert main(["+recipe=dpo_lora", *words, "run_name=pairs", "logging.predictions=0"]) == 0
    capfd.readouterr()
    export(f"run={tmp_path / 'pairs'}", "export.rows=2")
    told, _ = figures(capfd)
    assert "on 2 held-out rows" in told
    assert "2 of 2 greedy answers the same" in told
    card = (tmp_path / "pairs" / "export" / "merged" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"].endswith("data/tiny")
    for fact in ("DPO, recipe dpo_lora, 2 steps", "SHA-256", "samples, ", "reward accuracy", "images: ", "vllm serve"):
        assert fact in card


def test_a_model_without_a_run_is_compared_on_made_up_rows(checkpoints, tmp_path, capfd, in_this_process):
    adapter = write_adapter(checkpoints["qwen2_vl"], tmp_path / "adapter")
    (tmp_path / "base").mkdir()
    export(f"model.path={adapter}", f"export.to={tmp_path / 'new' / 'out'}")
    told, _ = figures(capfd)
    assert "on 2 made-up rows" in told
    assert "2 of 2 greedy answers the same" in told
    export(f"model.path={checkpoints['qwen3_vl']}", f"export.to={tmp_path / 'whole'}")
    assert "all equal" in figures(capfd)[0]


def test_without_the_held_out_rows_others_are_made_up(make_run, rows, capfd, in_this_process):
    run = make_run("qwen2_vl", **MODES["full"])
    rows.unlink()
    export(f"run={run}")
    assert "on 2 made-up rows (the held-out rows cannot be read: " in figures(capfd)[0]


def test_a_run_on_a_merged_model_is_compared_with_that(make_run, checkpoints, in_this_process):
    run = make_run("qwen2_vl", **MODES["full"])
    shutil.copytree(checkpoints["qwen2_vl"], run / "base_model")
    (run / "environment.json").write_text(json.dumps({"model": {"path": "/gone", "adapter": "merged"}}))
    export(f"run={run}")
    assert f"base_model: {run}/base_model" in (run / "export" / "merged" / "README.md").read_text()


def test_names_that_zero_3_gives_to_full_weights_become_those_of_the_base_model(
    make_run, checkpoints, capfd, in_this_process
):
    run = make_run("qwen2_5_vl", **MODES["full"])
    file = run / "checkpoints" / "step-3" / "model.safetensors"
    weights = load_file(file)
    renamed = {name.replace("model.", "model.model.", 1): tensor for name, tensor in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, file, metadata={"format": "pt"})
    export(f"run={run}")
    assert "all equal to the run's" in figures(capfd)[0]
    assert tensors_in(run / "export" / "merged").keys() == tensors_in(checkpoints["qwen2_5_vl"]).keys()


def test_the_licence_of_the_base_model_comes_along(checkpoints, tmp_path, in_this_process):
    base = shutil.copytree(checkpoints["qwen2_vl"], tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\n---\n# Base\n")
    (base / "LICENSE").write_text("Do as you like.")
    adapter = write_adapter(base, tmp_path / "adapter")
    export(f"model.path={adapter}", f"export.to={tmp_path / 'out'}", "export.verify=false")
    assert (tmp_path / "out" / "LICENSE").read_text() == "Do as you like."
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])
    assert (head["license"], head["license_name"]) == ("other", "qwen-research")


def break_weight(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def scale(weights):
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] *= 1.02


def drop(weights):
    del weights["visual.merger.ln_q.weight"]


def turn(weights):
    weights["visual.merger.mlp.0.weight"] = weights["visual.merger.mlp.0.weight"].T.reshape(64, -1).contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale, "up_proj.weight is not that of the run: 1 weight of"),
        (drop, "visual.merger.ln_q.weight is missing, which is in model.safetensors of the base model"),
        (turn, "visual.merger.mlp.0.weight in model.safetensors has shape"),
    ],
)
def test_a_broken_weight_is_caught(change, message, make_run, monkeypatch, capfd, in_this_process):
    run = make_run("qwen2_vl", **MODES["lora llm"])
    verify = exporting.verify

    def broken(source, parts, family):
        break_weight(parts.model, change)
        return verify(source, parts, family)

    monkeypatch.setattr(exporting, "verify", broken)
    export(f"run={run}", code=2)
    told = capfd.readouterr().err
    assert message in told
    assert told.startswith("qwenvl-train: The export is not the model of the run, and ")
    assert not (run / "export").exists()


def test_a_weight_that_is_not_taken_is_caught(make_run, monkeypatch, capfd, in_this_process):
    """If the file is right but its reader computes something else: here, without one layer's adapter."""
    run = make_run("qwen2_vl", **MODES["lora llm"])
    export(f"run={run}", f"export.to={run.parent / 'right'}")

    def other(job, file):
        break_weight(Path(job["model"]), lambda weights: weights["model.layers.0.mlp.down_proj.weight"].mul_(0.5))
        return reload.main(job)

    monkeypatch.setattr(verifying, "in_new_process", other)
    export(f"run={run}", code=2)
    assert "the logits of row 1 differ from the run's by" in capfd.readouterr().err
    monkeypatch.setattr(verifying, "in_new_process", lambda job, file: ["model.visual.x missing"])
    export(f"run={run}", code=2)
    assert "plain transformers did not take all weights: model.visual.x missing" in capfd.readouterr().err


def test_mistakes_are_one_sentence_and_leave_nothing(make_run, checkpoints, monkeypatch, tmp_path, capfd):
    run = make_run("qwen2_vl", **MODES["lora + merger"])
    full = run / "export" / "merged"

    def told(*words):
        capfd.readouterr()
        export(*words, code=2)
        (line,) = capfd.readouterr().err.strip().splitlines()
        return line

    assert "nothing is not a run folder" in told(f"run={checkpoints['qwen2_vl']}").replace(
        str(checkpoints["qwen2_vl"]), "nothing"
    )
    assert "with run=, or with model.path= and export.to=" in told(f"model.path={checkpoints['qwen2_vl']}")
    assert "run and model.path both name a model" in told(f"run={run}", "model.path=x")
    assert "export.rows has no effect" in told(f"run={run}", "export.verify=false", "export.rows=3")
    assert "export.shard_size=5" in told(f"run={run}", "export.shard_size=5")
    assert "step-9" in told(f"run={run}/checkpoints/step-9")
    (tmp_path / "file").write_text("")
    assert "is a file" in told(f"run={run}", f"export.to={tmp_path / 'file'}")
    assert "is not empty" in told(f"run={run}", f"export.to={run}")
    assert "has no adapter but is a whole model" in told(
        f"model.path={checkpoints['qwen2_vl']}", f"export.to={tmp_path / 'x'}", "export.form=adapter"
    )
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "free_bytes", lambda folder: 1000)
        assert "export.to: the export needs about" in told(f"run={run}")
    stored = run / "checkpoints" / "step-3" / "adapter_config.json"
    settings = json.loads(stored.read_text())
    stored.write_text(json.dumps(settings | {"base_model_name_or_path": "/nowhere/base"}))
    assert "is an adapter for /nowhere/base, which does not exist" in told(f"run={run}")
    stored.write_text(json.dumps(settings | {"use_dora": True}))
    assert "vLLM does not load DoRA" in told(f"run={run}", "export.form=adapter")
    assert not full.parent.exists()


def test_a_whole_model_needs_the_base_of_its_run(make_run, tmp_path, capfd):
    run = make_run("qwen2_vl", **MODES["full"])
    (run / "environment.json").write_text(json.dumps({"model": {"path": "/nowhere/base"}}))
    export(f"run={run}", code=2)
    assert "the base model /nowhere/base is not there; move it back, or export model.path=" in capfd.readouterr().err
    assert not (run / "export").exists()


def test_an_export_that_is_ended_leaves_nothing(make_run, monkeypatch):
    run = make_run("qwen2_vl", **MODES["lora llm"])
    write = exporting.write

    def ended(source, folder, final):
        write(source, folder, final)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(exporting, "write", ended)
    with pytest.raises(SystemExit) as exit_:
        export(f"run={run}")
    assert exit_.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (run / "export").exists()


@pytest.mark.nightly
def test_a_killed_export_leaves_no_export_and_the_next_one_replaces_it(make_run, in_this_process):
    run = make_run("qwen2_vl", **MODES["lora llm"])
    started = subprocess.Popen([sys.executable, "-m", "qwenvl_train", "export", f"run={run}"], stdout=subprocess.PIPE)
    part = run / "export" / ".merged.part"
    while not (part / "model.safetensors").exists():
        assert started.poll() is None
        time.sleep(0.02)
    started.kill()
    assert started.wait(30) == -signal.SIGKILL
    assert part.exists()
    assert not (run / "export" / "merged").exists()
    export(f"run={run}")
    assert [path.name for path in part.parent.iterdir()] == ["merged"]
