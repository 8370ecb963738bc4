"""Packing, mixtures, skipped rows and clips, through the whole command."""

import json
import shutil
from itertools import pairwise

import pytest

from qwenvl_train.cli import main
from tests.commands import QUIET, rows, summary, train
from tests.conftest import conversation

SETTINGS = ("+recipe=sft_lora", "train.log_steps=1", "train.warmup=0", "data.workers=0", "train.accumulation=2")


@pytest.fixture
def uneven(pictures, write_rows):
    return write_rows(
        [
            conversation(
                ("user", [pictures[index % 4], "What? " * (index % 9)] if index % 3 else ["Who? " * (index + 1)]),
                ("assistant", ["Red. " * (index % 7 + 1)]),
                id=str(index),
            )
            for index in range(30)
        ]
    )


def skipped(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


def test_packed_rows_are_filled_and_an_epoch_holds_each_sample_once(uneven, checkpoints, tmp_path, capsys):
    common = (*SETTINGS, f"model.path={checkpoints['qwen3_vl']}", f"data.train={uneven}")
    folder = train(tmp_path, *common, "data.pack_length=256", "train.epochs=2")
    found = rows(folder)
    assert found[-1]["epoch"] >= 2
    assert found[-1]["samples"] >= 60
    # Two rows in a step: all but the last of an epoch are nearly full.
    of_steps = [row["tokens"] - before["tokens"] for before, row in pairwise(found)]
    assert 0.9 * 512 < max(of_steps) <= 512
    assert "% filled" in capsys.readouterr().out


def test_a_packed_run_resumes_on_the_same_curve(uneven, checkpoints, tmp_path):
    common = (*SETTINGS, f"model.path={checkpoints['qwen2_vl']}", f"data.train={uneven}")
    settings = (*common, "train.max_steps=6", "train.save_steps=3")
    whole = train(tmp_path, *settings)
    shutil.copytree(whole, tmp_path / "killed" / "run")
    shutil.rmtree(tmp_path / "killed" / "run" / "checkpoints" / "step-6")
    resumed = train(tmp_path / "killed", *settings)
    keys = ("step", "loss", "grad_norm", "tokens", "samples", "supervised_tokens", "epoch")
    assert [[row[key] for key in keys] for row in rows(resumed)] == [[row[key] for key in keys] for row in rows(whole)]


def test_rows_that_cannot_be_used_are_left_out_and_listed(uneven, pictures, checkpoints, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole, its pixels are not
    bad = uneven.with_name("bad.jsonl")
    bad.write_text(
        "\n".join(
            [
                json.dumps(conversation(("user", [broken, "What?"]), ("assistant", ["Red."]), id="cut")),
                "{",
                json.dumps(conversation(("user", [tmp_path / "gone.png"]), ("assistant", ["Red."]), id="gone")),
                *uneven.read_text().splitlines()[:5],
            ]
        )
    )
    settings = (
        *SETTINGS,
        f"model.path={checkpoints['qwen2_5_vl']}",
        f"data.train={bad}",
        "data.packing=false",
        "train.batch_size=2",
    )
    assert main([*settings, f"output_dir={tmp_path}", "logging=local"]) == 2
    assert "bad.jsonl:2 is not valid JSON" in capsys.readouterr().err
    folder = train(tmp_path, *settings, f"data.eval={bad}", "data.on_error=skip", "train.epochs=3", QUIET)
    listed = skipped(folder)
    assert sorted(row["line"] for row in listed) == [1, 2, 3]
    assert all(f"bad.jsonl:{row['line']}" in row["reason"] and row["kind"] == "broken" for row in listed)
    assert summary(folder)["status"] == "done"
    assert summary(folder)["skipped"] == 3
    # The one whose pixels are cut is counted as held out until it is decoded.
    assert rows(folder, "eval_loss")[0]["eval_samples"] == 5
    assert main([*settings, f"output_dir={tmp_path}", "logging=local", "data.on_error=skip", "data.max_skipped=1"]) == 2
    assert "2 rows cannot be used, but data.max_skipped is 1" in capsys.readouterr().err


def test_a_row_of_nothing_but_broken_samples_teaches_nothing(uneven, pictures, checkpoints, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:300])
    bad = uneven.with_name("bad.jsonl")
    cut = conversation(("user", [broken, "What?"]), ("assistant", ["Red."]), id="cut")
    bad.write_text(json.dumps(cut) + "\n" + uneven.read_text().splitlines()[0])
    settings = (*SETTINGS, f"model.path={checkpoints['qwen3_vl']}", f"data.train={bad}", "data.packing=false")
    folder = train(tmp_path, *settings, "data.on_error=skip", "train.epochs=2")
    assert all(row["loss"] > 0 for row in rows(folder))


def test_mixtures_take_their_shares(uneven, checkpoints, tmp_path, capsys):
    lines = uneven.read_text().splitlines()
    few, many = uneven.with_name("few.jsonl"), uneven.with_name("many.jsonl")
    few.write_text("\n".join(lines[:4]))
    many.write_text("\n".join(lines[4:]))
    settings = (
        *SETTINGS,
        f"model.path={checkpoints['qwen2_5_vl']}",
        "data.packing=false",
        "train.batch_size=7",
        "train.epochs=1",
    )
    folder = train(tmp_path, *settings, f"data.train=[{{path: {few}, repeats: 3}}, {{path: {many}, repeats: 0.5}}]")
    assert f"an epoch has 12 samples of {few}, 13 samples of {many}\n" in capsys.readouterr().out
    # 3 × 4 and 0.5 × 26 samples are 25, in steps of 14
    assert rows(folder)[-1]["samples"] == 28
    assert rows(folder)[-1]["epoch"] == pytest.approx(28 / 25)
