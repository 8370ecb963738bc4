"""The kit for a GPU machine: its parts run at their smallest, and its report tells what they found."""

import json
import math
import os
import re
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "scripts" / "gpu"
PARTS = {"tests", "kernels", "packed", "command", "lora", "full", "compile", "trl", "zero2", "dpo"}

HEADER = {
    "part": "lora", "exit": 0, "seconds": 61.2, "date": "2026-11-28T10:00:00+00:00", "commit": "0123456789abcdef",
    "device": "NVIDIA H100 80GB HBM3", "driver": "580.159.04", "torch": "2.11.0", "transformers": "5.23.0",
    "trl": "1.16.0",
}  # fmt: skip
STEP = {
    "loss": 12.5, "seconds_per_step": 0.8, "tokens_per_second": 12345.6, "mfu": 0.412, "peak_gib": 50.0,
    "planned_gib": 55.0, "right": True,
}  # fmt: skip


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.syspath_prepend(KIT)


def report_on(results: dict[str, dict], folder: Path) -> str:
    """By a Python without any package."""
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return told_by_report(folder)


def told_by_report(folder: Path) -> str:
    command = [sys.executable, "-I", "-S", str(KIT / "report.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_report_tells_time_memory_and_profile_of_each_way(tmp_path):
    profile = {
        "idle": 0.034, "kernels_per_step": 4321.0, "kinds": {"matrix products": 0.7, "attention": 0.3},
        "top": [{"name": "nvjet_a|b", "share": 0.7, "ms_per_step": 560.0, "per_step": 800.0}],
    }  # fmt: skip
    job = {"model": "qwen2_5_vl_3b", "recipe": "sft_lora", "precision": "bf16", "row_tokens": [5048, 10388]}
    ways = {
        "kept": STEP | {"profile": profile},
        "all": STEP | {"right": False, "peak_gib": 10.0, "planned_gib": 12.34},
        "llm": {"skipped": "out of memory: CUDA out of memory"},
        "liger": {"failed": "Traceback\n  …\nRuntimeError: no\n"},
    }
    told = report_on({"lora": {"header": HEADER, "job": job, "ways": ways}}, tmp_path)
    assert told.startswith(
        "NVIDIA H100 80GB HBM3, driver 580.159.04, torch 2.11.0, transformers 5.23.0, trl 1.16.0; "
        "commit 0123456789ab, 2026-11-28\n"
    )
    for line in (
        "### One step of qwen2_5_vl_3b, sft_lora, bf16, rows of 5,048 to 10,388 tokens",
        "| kept | 0.800 | 12,346 | 41.2% | 50.0 | 55.0 | 1.10 |  |",
        "| all | 0.800 | 12,346 | 41.2% | 10.0 | 12.3 | 1.23 | WRONG |",
        "| llm | – | – | – | – | – | – |  |",
        "- llm: out of memory: CUDA out of memory",
        "- liger: RuntimeError: no",
        "| matrix products | 70.0% |",
        "| idle, of the whole time | 3.4% |",
        "| nvjet_a\\|b | 70.0% | 560.00 |",
        "| lora | done | 61 |",
    ):
        assert line in told.splitlines()


def test_the_report_tells_kernels_ratios_and_parts_that_failed(tmp_path):
    errors = {"output": 1e-3, "query": 2e-3, "key": 3e-3, "value": 4e-3}
    case = {
        "tokens": 8192, "heads": 16, "kv_heads": 2, "head_size": 128, "causal": True, "right": False,
        "auto": {"errors": errors | {"key": 0.5}, "milliseconds": 2.0}, "sdpa": {"errors": errors, "milliseconds": 5.0},
    }  # fmt: skip
    run = {
        "samples_per_second": 12.0, "tokens_per_second": 9000.0, "mfu": 0.4, "peak_memory_gib": 40.0, "padding": 0.3,
        "ours_is_times": 1.75,
    }  # fmt: skip
    job = {"model": "tiny", "recipe": "sft_lora", "precision": "bf16", "checkpointing": "none", "samples": 4}
    results = {
        "kernels": {"header": HEADER | {"exit": 1}, "worst_allowed": 0.01, "cases": {"decoder": case}},
        "trl": {
            "header": HEADER, "job": job, "steps": {"packed": run}, "runs": {"trl": run},
            "skipped": {"padded_flash": "flash-attn is not installed"},
        },
        "dpo": {"header": HEADER | {"exit": 124, "commit": "another"}},
    }  # fmt: skip
    told = report_on(results, tmp_path)
    assert "commit 0123456789ab" in told
    assert "commit another" in told
    for line in (
        "| decoder | 16 on 2 of 128 | 8,192 | 5.0e-01 | 4.0e-03 | 2.00 | 5.00 | 2.50 | WRONG |",
        "| TRL's trainer | 12 | 9,000 | 40.0% | 40.0 | 30% | 1.75 |",
        "- trl, padded, flash-attn: not measured, flash-attn is not installed",
        "| kernels | exit code 1 | 61 |",
        "| dpo | exit code 124 | 61 |",
    ):
        assert line in told.splitlines()


def test_a_part_that_runs_over_is_stopped_with_its_workers_and_keeps_what_it_had(kit, monkeypatch, tmp_path):
    import parts

    monkeypatch.setattr(parts, "LEAST", 0)
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "worker = subprocess.Popen(['sleep', '60'])\n"
        "open(sys.argv[2], 'w').write('{\"worker\": %d}' % worker.pid)\n"
        "print('asleep', flush=True)\n"
        "time.sleep(60)\n"
    )
    parts.run(parts.Part("sleeper", 60, str(script)), tmp_path, get_context("fork"), 3)
    result = json.loads((tmp_path / "sleeper.json").read_text())
    assert (result["header"]["part"], result["header"]["exit"]) == ("sleeper", parts.STOPPED)
    assert (tmp_path / "log.txt").read_text() == "=== sleeper\nasleep\n"
    assert _ended(result["worker"])


def _ended(process: int) -> bool:
    """Or a zombie, where nobody waits for orphans."""
    for _ in range(50):
        status = Path(f"/proc/{process}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_part_that_fails_leaves_its_exit_code_and_its_words(kit, monkeypatch, tmp_path, capsys):
    import parts

    monkeypatch.setenv("COMMIT", "abc")
    script = tmp_path / "failing.py"
    script.write_text("raise SystemExit('it computes something else')\n")
    parts.run(parts.Part("failing", 60, str(script)), tmp_path, get_context("fork"), 60)
    header = json.loads((tmp_path / "failing.json").read_text())["header"]
    assert (header["exit"], header["commit"]) == (1, "abc")
    assert {"device", "driver", "torch", "transformers", "trl", "date", "seconds"} <= header.keys()
    assert "it computes something else" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["gpu_parts", "tiny_parts"])
def test_every_setting_of_every_part_exists(size, kit):
    import parts

    from qwenvl_train.config.compose import compose

    made, composed = getattr(parts, size)(), set()
    assert {part.name for part in made} == PARTS
    for part in made:
        assert (KIT.parent / part.script).is_file()
        recipe = {"zero2": "sft_full", "full": "sft_full", "dpo": "dpo_lora"}.get(part.name, "sft_lora")
        settings = [word for word in part.words if re.match(r"[a-z_.]+=", word)]
        ways = [word.partition(":")[2].split(",") for word in part.words if re.match(r"[a-z]+:", word)]
        composed |= {(f"+recipe={recipe}", *given) for given in (settings, *ways)}
    for words in composed:
        compose(words)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<80, cutlass::bfloat16_t>>(…)", "attention"),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNN", "matrix products"),
        ("void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda(…)>", "copies, casts, fills"),
        ("void multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", "optimizer, gradient norm"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>", "pointwise"),
        ("something new", "other"),
    ],
)
def test_kernels_are_told_by_kind(name, kind, kit):
    from profiling import kind_of

    assert kind_of(name) == kind


def test_a_device_idles_where_no_kernel_runs(kit):
    from profiling import idle_share

    # Busy from 0 to 4 and from 8 to 10, two at a time in places.
    assert idle_share([(8, 10), (0, 3), (1, 2), (2, 4)]) == pytest.approx(0.4)


def test_a_repacked_wheel_holds_the_same(kit, tmp_path):
    from repack import repack

    wheel = tmp_path / "a-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as written:
        written.writestr("a/__init__.py", "x = 1\n" * 1000)
    assert repack(wheel) > 1000
    with ZipFile(wheel) as read:
        assert (read.namelist(), read.read("a/__init__.py")) == (["a/__init__.py"], b"x = 1\n" * 1000)


@pytest.mark.nightly
def test_the_kit_runs_at_its_smallest(tmp_path):
    environment = os.environ | {"SIZE": "tiny", "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", str(KIT / "run.sh")], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in PARTS}
    headers = {name: result["header"] for name, result in results.items()}
    assert {name: header["exit"] for name, header in headers.items()} == dict.fromkeys(PARTS, 0), done.stdout
    assert (
        len({(header["device"], header["torch"], header["trl"], header["commit"]) for header in headers.values()}) == 1
    )
    assert headers["lora"]["commit"] != "unknown"

    assert results["tests"]["failed"] == 0 < results["tests"]["passed"] + results["tests"]["skipped"]
    assert {case["head_size"] for case in results["kernels"]["cases"].values()} == {72, 80, 128}
    for case in results["kernels"]["cases"].values():
        assert case["right"]
        for kernel in ("auto", "sdpa"):
            assert_positive(case[kernel], "milliseconds")
            assert_positive(case[kernel]["errors"], "output", "query", "key", "value")
    assert len(results["packed"]["models"]) == 4
    for model in results["packed"]["models"].values():
        for what in ("log_probs", "gradients"):
            assert model[what]["right"]
            assert_positive(model[what], "bf16_to_float32")
    for name, recipe in (("lora", "sft_lora"), ("full", "sft_full"), ("compile", "sft_lora")):
        assert results[name]["job"]["recipe"] == recipe
        for row in results[name]["ways"].values():
            assert row["right"]
            assert_positive(row, "loss", "grad_norm", "seconds_per_step", "tokens_per_second", "mfu", "planned_gib")
        (profile,) = (row["profile"] for row in results[name]["ways"].values() if "profile" in row)
        assert 0 < profile["idle"] < 1
        assert sum(profile["kinds"].values()) == pytest.approx(1)
    assert results["trl"]["runs"].keys() == {"trl", "ours"}
    assert results["dpo"]["runs"].keys() == {"trl", "ours", "apart"}
    for name in ("trl", "dpo"):
        for row in results[name]["runs"].values():
            assert_positive(row, "tokens_per_second", "mfu", "ours_is_times")
    for name in ("command", "zero2"):
        assert results[name]["summary"]["status"] == "done"
        for row in results[name]["steps"]:
            assert_positive(row, "loss", "tokens_per_second")

    assert told_by_report(tmp_path) in done.stdout
    assert all(f"| {name} | done | " in done.stdout for name in PARTS)


def assert_positive(row: dict[str, Any], *keys: str) -> None:
    for key in keys:
        assert math.isfinite(row[key]), key
        assert row[key] > 0, key
