"""Two processes, by the launchers that README names, share one process's trajectory: same samples, same loss.

The rows mix text and pictures so that one process often has pictures where the other has none. The runs of a launcher
share one launch, and so the same two processes, because starting them takes longer than most of the runs.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from qwenvl_train.cli import main
from qwenvl_train.verbs.export import reload, verifying
from tests.broken import WORD, write_broken_model
from tests.commands import QUIET, read_lines, rows, summary, train
from tests.conftest import conversation
from tests.distributed.curves import SHORT, assert_same_curve, figures
from tests.distributed.hosts import BIN, ROOT
from tests.distributed.several import WARNING
from tests.distributed.started_again import free_port

pytestmark = pytest.mark.distributed

LAUNCHERS = {
    "deepspeed": ("deepspeed", "--num_accelerators", "2", "--no_local_rank", "--module"),
    "deepspeed on one": ("deepspeed", "--num_accelerators", "1", "--no_local_rank", "--module"),
    "deepspeed on three": ("deepspeed", "--num_accelerators", "3", "--no_local_rank", "--module"),
    "torchrun": ("torchrun", "--nproc_per_node", "2", "-m"),
}
WHERE = ("run_name=run", "logging.wandb.mode=disabled")
GENERATES = ("logging.predictions=1", "eval.generate=true", "eval.samples=6", "eval.max_new_tokens=6")
MIXED = (*SHORT, "data.train={mixed}", "data.eval={mixed}", "train.max_steps=4")
RESUMED = (*MIXED, *GENERATES, "train.save_steps=2", "train.lr=1e-3", "train.lr_mlp=3e-3")
FEATURES = (*MIXED, QUIET)
REHEARSED = ("train.rehearse=true",)
BROKEN = (*SHORT, QUIET, "data.train={one_broken}", "data.eval={one_broken}", "train.max_steps=5", "train.on_nan=skip")
SHARDED = ("deepspeed.whole_elements=0",)
"""Without it, ZeRO-3 would leave all weights of so small models whole."""
SHARES = (*SHARDED, "deepspeed.gather_on_save=false")
"""The checkpoints have only each process's share of the weights."""
STORED = ("train.cache_vision=true", "data.cache={cache}")
PAIRS = (*SHORT, *GENERATES, "data.train={pairs}", "data.eval={pairs}", "train.max_steps=3", "train.lr=1e-4")
STREAMED = (
    "data.streaming=true", "data.train={stream}", "data.on_error=skip", "data.packing=false", "train.max_steps=6",
    "train.save_steps=3", "train.log_steps=1", "train.warmup=0", "train.accumulation=2",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    launcher: str
    recipe: str
    stage: str
    model_type: str
    settings: tuple[str, ...]
    on_two: tuple[str, ...] = ()
    """What is set on two processes only."""
    nightly: bool = False


CASES = {
    "zero1 full": Case("deepspeed", "sft_full", "zero1", "qwen2_vl", RESUMED, REHEARSED, nightly=True),
    "zero2 full": Case("deepspeed", "sft_full", "zero2", "qwen3_vl", RESUMED, REHEARSED),
    "zero3 full": Case("deepspeed", "sft_full", "zero3", "qwen2_5_vl", RESUMED, (*SHARES, *REHEARSED)),
    "zero3 full with states": Case("deepspeed", "sft_full", "zero3", "qwen3_5", RESUMED, SHARES, nightly=True),
    "zero3 lora of experts": Case("deepspeed", "sft_lora", "zero3", "qwen3_vl_moe", RESUMED, SHARES),
    "zero2_offload lora": Case("deepspeed", "sft_lora", "zero2_offload", "qwen2_5_vl", RESUMED, REHEARSED),
    "zero2 broken": Case("deepspeed", "sft_projector", "zero2", "broken", BROKEN, nightly=True),
    "zero3 broken": Case("deepspeed", "sft_projector", "zero3", "broken", BROKEN, SHARDED),
    "zero3_offload full with experts": Case(
        "deepspeed", "sft_full", "zero3_offload", "qwen3_vl_moe", RESUMED, SHARES, nightly=True
    ),
    "zero3 lora with features": Case("deepspeed", "sft_lora", "zero3", "qwen2_5_vl", FEATURES, (*STORED, *SHARDED)),
    "zero3 dpo with a sharded copy": Case(
        "deepspeed", "dpo_full", "zero3", "qwen2_5_vl", PAIRS, ("dpo.reference=model", *SHARDED)
    ),
    "zero3_offload dpo with a sharded copy": Case(
        "deepspeed", "dpo_full", "zero3_offload", "qwen2_5_vl", PAIRS, ("dpo.reference=model", *SHARDED), nightly=True
    ),
    "zero2 dpo without its adapters": Case(
        "deepspeed", "dpo_lora", "zero2", "qwen3_5", PAIRS, ("dpo.reference=adapter",), nightly=True
    ),
    "ddp lora": Case("torchrun", "sft_lora", "none", "qwen3_5_moe", RESUMED, REHEARSED),
    "ddp broken": Case("torchrun", "sft_projector", "none", "broken", BROKEN, nightly=True),
    "ddp lora with features": Case("torchrun", "sft_lora", "none", "qwen2_5_vl", FEATURES, STORED, nightly=True),
    "ddp mpo with stored values": Case(
        "torchrun", "mpo_lora", "none", "qwen3_vl_moe", PAIRS, ("dpo.reference=cached",)
    ),
    "ddp stream": Case("torchrun", "sft_lora", "none", "qwen2_5_vl", STREAMED, ("data.workers=1",)),
}  # fmt: skip
STEPS = {RESUMED: 4, STREAMED: 6}
"""Of the runs that go on from their middle."""


def launch(launcher: str, module: str, *arguments: str, fails: bool = False) -> str:
    """What it said on stderr."""
    program, *options = LAUNCHERS[launcher]
    done = subprocess.run(
        [str(BIN / program), f"--master_port={free_port()}", *options, module, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert (done.returncode != 0) == fails, done.stdout[-5000:] + done.stderr[-5000:]
    assert WARNING not in done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def settings(files, checkpoints, tmp_path_factory) -> dict[str, tuple[list[str], list[str]]]:
    """Of each case, for one process and for two."""
    made, models = {}, dict(checkpoints)
    one_broken = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = files["mixed"].read_text(encoding="utf-8").splitlines(keepends=True)
    others = [line if index == 7 else line.replace(WORD, " circle") for index, line in enumerate(lines)]
    one_broken.write_text("".join(others), encoding="utf-8")
    models["broken"] = write_broken_model(checkpoints["qwen2_5_vl"], tmp_path_factory.mktemp("broken"))
    for name, case in CASES.items():
        words = files | {"cache": tmp_path_factory.mktemp("cache"), "one_broken": one_broken}
        common = (f"+recipe={case.recipe}", f"model.path={models[case.model_type]}", *case.settings)
        one = (*common, "train.batch_size=4")
        two = (*common, "train.batch_size=2", f"deepspeed={case.stage}", *case.on_two, *WHERE)
        made[name] = tuple([word.format(**words) for word in each] for each in (one, two))
    return made


@pytest.fixture(scope="module")
def launched(request, settings, files, checkpoints, tmp_path_factory) -> Path:
    """A folder with the runs of those cases of a launcher that are tested, each in a folder of the case's name, `run`
    in it, and with `run` in `resumed` there, which goes on from the middle of the other. Its checkpoints always have
    whole weights."""
    folder = tmp_path_factory.mktemp(request.param)
    commands = []
    for name in (
        name for name, case in CASES.items() if case.launcher == request.param and name in chosen_cases(request)
    ):
        commands.append([*settings[name][1], f"output_dir={folder / name}"])
        if steps := STEPS.get(CASES[name].settings):
            middle = folder / name / "run" / "checkpoints" / f"step-{steps // 2}"
            again = [word.replace("gather_on_save=false", "gather_on_save=true") for word in settings[name][1]]
            commands.append([*again, f"output_dir={folder / name / 'resumed'}", f"train.resume={middle}"])
    if request.param == "torchrun":
        commands.append([*evaluation(files, checkpoints), f"eval.to={folder / 'eval'}"])
    file = folder / "commands.json"
    file.write_text(json.dumps(commands), encoding="utf-8")
    launch(request.param, "tests.distributed.several", str(file))
    return folder


def chosen_cases(request: pytest.FixtureRequest, *functions: str) -> set[str]:
    """The cases of the tests of this module that this session runs, or of these functions alone."""
    items = (item for item in request.session.items if item.path == request.path)
    named = (item for item in items if not functions or item.originalname in functions)
    return {item.callspec.params["name"] for item in named if "name" in item.fixturenames}


def evaluation(files: dict[str, Path], checkpoints: dict[str, Path]) -> list[str]:
    limits = ("eval.max_new_tokens=6", "eval.batch_size=3", "data.workers=0")
    return ["eval", f"model.path={checkpoints['qwen3_vl']}", f"data.eval={files['mixed']}", *limits]


@pytest.mark.parametrize("launched", ["torchrun"], indirect=True, scope="module")
def test_two_processes_evaluate_as_one(launched, files, checkpoints, tmp_path):
    assert main([*evaluation(files, checkpoints), f"eval.to={tmp_path / 'one'}"]) == 0
    mine, theirs = (read_lines(folder / "predictions.jsonl") for folder in (launched / "eval", tmp_path / "one"))
    assert mine == theirs
    assert len(mine) == 16
    assert not list((launched / "eval").glob("predictions.*.jsonl"))


def cases(settings: tuple[str, ...] = (), names: tuple[str, ...] = (), nightly: tuple[str, ...] = ()):
    """Those with these settings or names, each with the launch that holds it. `nightly` are those that this test leaves
    for the night, while others have them every day."""
    chosen = [
        pytest.param(case.launcher, name, id=name, marks=pytest.mark.nightly if case.nightly or name in nightly else ())
        for name, case in CASES.items()
        if case.settings == settings or name in names
    ]
    # Without a scope, pytest would launch again for each of them.
    return pytest.mark.parametrize(("launched", "name"), chosen, indirect=["launched"], scope="module")


@pytest.fixture
def one(name, settings, tmp_path) -> Path:
    return train(tmp_path, *settings[name][0])


@pytest.fixture
def two(name, launched) -> Path:
    return launched / name / "run"


@pytest.fixture
def resumed(name, launched) -> Path:
    return launched / name / "resumed" / "run"


@cases(RESUMED)
def test_two_processes_equal_one(one, two, resumed):
    assert len(figures(two)) == 4
    assert_same_curve(figures(two), figures(one))
    for mine, theirs in zip(rows(two), rows(one), strict=True):
        keys = [key for key in theirs if key.startswith(("grad_norm_", "update_ratio_"))]
        assert keys
        assert {key: mine[key] for key in keys} == pytest.approx({key: theirs[key] for key in keys}, rel=1e-3)
    for mine, theirs in zip(rows(two, "eval_loss"), rows(one, "eval_loss"), strict=True):
        assert mine["eval_samples"] == theirs["eval_samples"] == 16
        assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)  # measured 3.3e-8
        scores = [key for key in theirs if key.startswith("eval_generated/")]
        assert {key: mine[key] for key in scores} == {key: theirs[key] for key in scores}
        assert scores
    for step in (0, 4):
        mine, theirs = (read_lines(folder / "answers" / f"step-{step}.jsonl") for folder in (two, one))
        assert mine == theirs
        assert len(mine) == 6
    assert summary(two)["status"] == summary(resumed)["status"] == "done"
    AutoModelForImageTextToText.from_pretrained(resumed / "checkpoints" / "step-4")
    assert_same_curve(figures(resumed), figures(two)[2:])


@cases(RESUMED)
def test_the_log_has_the_warnings_of_both_processes(two):
    told = (two / "log.txt").read_text(encoding="utf-8")
    for rank in (0, 1):
        assert re.search(rf"(?m)^[\d-]{{10}} [\d:]{{8}} rank {rank} WARNING a_library: {WARNING}$", told)
    steps = re.findall(r"(?m) rank (\d) INFO qwenvl_train: step (\d)/4 ", told)
    assert steps == [("0", str(step)) for step in (1, 2, 3, 4)]


@cases(
    names=(
        "zero2 full",
        "zero3 full",
        "zero3 lora of experts",
        "zero3_offload full with experts",
        "zero2 dpo without its adapters",
    )
)
def test_what_deepspeed_saved_is_exported(two, tmp_path, capfd, monkeypatch):
    """Also under the names that full weights have under ZeRO-3. In float32, since new tiny models often have two tokens
    that are about equally likely, and rounding may then choose the other."""
    monkeypatch.setattr(verifying, "in_new_process", lambda job, file: reload.main(job))
    assert main(["export", f"run={two}", f"export.to={tmp_path / 'out'}", "export.rows=2", "export.dtype=fp32"]) == 0
    assert "on 2 held-out rows" in (told := capfd.readouterr().out)
    assert "2 of 2 greedy answers the same" in told


@cases(names=("zero3 full", "zero3 lora of experts", "zero3_offload full with experts"))
def test_shares_are_exported_as_whole_weights_are(name, two, resumed, tmp_path):
    """The last checkpoints of the two runs have the same weights: as shares, and gathered by DeepSpeed."""
    assert not list((two / "checkpoints").rglob("*.safetensors"))
    assert list((resumed / "checkpoints").rglob("*.safetensors"))
    for form in ("merged", "adapter") if "lora" in name else ("merged",):
        for run in (two, resumed):
            plain = ("export.verify=false", "export.dtype=fp32", f"export.form={form}")
            assert main(["export", f"run={run}", f"export.to={tmp_path / form / run.parent.name}", *plain]) == 0
        shares, whole = (tmp_path / form / run.parent.name for run in (two, resumed))
        files = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
        assert files
        for file in files:
            mine, theirs = load_file(shares / file), load_file(whole / file)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@cases(names=("zero3 full", "zero3 lora of experts"))
def test_shares_have_all_else_that_a_checkpoint_has(two, resumed):
    """And nothing twice: the files of whole weights are the only difference."""
    names = [
        {str(file.relative_to(run)) for file in (run / "checkpoints" / "step-4").rglob("*") if file.is_file()}
        for run in (two, resumed)
    ]
    (missing,) = names[1] - names[0]
    assert missing.endswith("model.safetensors")
    assert names[0] < names[1]
    for config in ("config.json", "generation_config.json", "adapter_config.json"):
        mine, theirs = (run / "checkpoints" / "step-4" / config for run in (two, resumed))
        assert mine.is_file() == theirs.is_file()
        assert not mine.is_file() or mine.read_bytes() == theirs.read_bytes()


@cases(names=("zero3 full",))
def test_a_killed_run_goes_on_to_the_same_end(settings, name, two, tmp_path):
    """In new processes, by the command of README."""
    shutil.copytree(two, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-4")
    launch("deepspeed", "qwenvl_train", *settings[name][1], f"output_dir={tmp_path}")
    assert_same_curve(figures(tmp_path / "run"), figures(two))


ELASTIC = (
    "zero1 full", "zero2 full", "zero3 full", "zero3 lora of experts", "zero2_offload lora",
    "zero3_offload full with experts", "ddp lora", "ddp stream",
)  # fmt: skip


@pytest.fixture(scope="module")
def on_one(request, settings, launched, tmp_path_factory) -> Path:
    """A folder with the runs of ELASTIC of a launch, which one process has finished from their middle. Without ZeRO it
    needs no launcher."""
    folder, commands = tmp_path_factory.mktemp("elastic"), []
    names = chosen_cases(request, test_one_process_goes_on_with_what_two_have_saved.__name__)
    for name in (name for name in ELASTIC if name in names and (launched / name).is_dir()):
        shutil.copytree(launched / name / "run", folder / name / "run")
        shutil.rmtree(folder / name / "run" / "checkpoints" / f"step-{STEPS[CASES[name].settings]}")
        words = [word for word in settings[name][1] if not word.startswith("train.batch_size=")]
        words += ["train.batch_size=4", f"output_dir={folder / name}"]
        if CASES[name].stage == "none":
            assert main(words) == 0
        else:
            commands.append(words)
    if not commands:
        return folder
    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    launch("deepspeed on one", "tests.distributed.several", str(folder / "commands.json"))
    return folder


@cases(names=ELASTIC, nightly=("ddp lora", "zero2 full", "zero2_offload lora"))
def test_one_process_goes_on_with_what_two_have_saved(name, two, on_one):
    """The other way, 1 process to 2, was run by hand: ZeRO-3 with adapters, losses within 1.3e-7."""
    assert summary(on_one / name / "run")["status"] == "done"
    assert not (on_one / name / "run" / ".staging").exists()
    assert_same_curve(figures(on_one / name / "run"), figures(two))


@cases(FEATURES)
def test_two_processes_store_features_together(one, two, settings, name):
    assert_same_curve(figures(two), figures(one))
    # Each of the two pictures that eight samples ask about.
    (cache,) = (word.removeprefix("data.cache=") for word in settings[name][1] if word.startswith("data.cache="))
    assert len([path for path in (Path(cache) / "vision").rglob("*") if path.is_file()]) == 2


@cases(BROKEN)
def test_two_processes_skip_the_same_steps(one, two):
    """One of the two steps of an epoch has a broken sample."""
    keys = ("step", "tokens", "loss")
    mine, theirs = (
        [[row[key] for key in keys] + [row.get("skipped_steps", 0)] for row in rows(run)] for run in (two, one)
    )
    for (*same, loss, skipped), (*others, other_loss, other_skipped) in zip(mine, theirs, strict=True):
        assert (same, skipped) == (others, other_skipped)
        assert loss == (other_loss and pytest.approx(other_loss, rel=1e-5))
    assert summary(two)["skipped_steps"] in (2, 3)
    for dump in two.glob("nan/*"):
        assert "7" in [row["id"] for row in read_lines(dump / "messages.jsonl")]
    assert len(list(two.glob("nan/*"))) == summary(two)["skipped_steps"]


@cases(PAIRS)
def test_two_processes_prefer_as_one(one, two):
    assert_same_curve(figures(two), figures(one))
    for kind in ("loss", "eval_loss"):
        prefix = "eval_" * (kind == "eval_loss")
        for mine, theirs in zip(rows(two, kind), rows(one, kind), strict=True):
            for key in ("rewards/chosen", "rewards/rejected", "logps/chosen"):
                # Measured worst case: 1.0e-6, of log-probabilities summed over up to 80 tokens
                assert mine[prefix + key] == pytest.approx(theirs[prefix + key], rel=1e-5, abs=1e-5), prefix + key


@cases(STREAMED)
def test_two_processes_stream_as_one(one, two, resumed):
    assert_same_curve(figures(two), figures(one))
    assert [row["line"] for row in read_lines(two / "skipped.jsonl")] == [14]
    keys = ("step", "loss", "grad_norm", "tokens", "samples", "supervised_tokens", "epoch")
    curve, after = ([[row[key] for key in keys] for row in rows(run)] for run in (two, resumed))
    assert len(after) == 3
    assert after == curve[3:]


def test_what_one_process_meets_ends_both(pictures, write_rows, checkpoints, tmp_path):
    """The other one would wait for its gradients, and nobody would say why."""
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole, its pixels are not
    asked = [cut, *pictures[:3]] * 2
    path = write_rows([conversation(("user", [it, "What?"]), ("assistant", ["Red."])) for it in asked])
    told = launch(
        "torchrun", "qwenvl_train", "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}",
        f"data.train={path}", "data.packing=false", "data.workers=0", "train.max_steps=4", "data.on_error=skip",
        "data.max_skipped=1", *WHERE, f"output_dir={tmp_path}", fails=True,
    )  # fmt: skip
    reason = "2 rows cannot be used, but data.max_skipped is 1; one of them: "
    assert told.count(f"qwenvl-train: {reason}") == 1
    folder = tmp_path / "run"
    assert summary(folder)["status"] == "failed"
    assert summary(folder)["reason"].startswith(reason)
    assert sorted(row["line"] for row in read_lines(folder / "skipped.jsonl")) == [1, 5]
