"""A run that stores what its frozen tower gives computes the same as one that looks at each step, without looking."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.cli import main
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.media import pictures as decoding
from qwenvl_train.data.media import videos
from qwenvl_train.data.media.feature_cache import FeatureCache, FeatureFile
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import base_model, build_model
from qwenvl_train.model.forward import Scores
from qwenvl_train.run import vision_cache
from qwenvl_train.run.context import RunContext
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.optim import keep_masters
from qwenvl_train.training.skipped import Skipped
from tests.commands import read_lines, rows, train
from tests.conftest import conversation
from tests.loading import assert_same, family_of, renderer_of
from tests.settings import run_config
from tests.videos import write_video

TEXT, MEDIA = [1], [0, 1, 2, 3]
"""Rows of samples: text alone; pictures, clips and text."""


class Setup:
    """A model whose merger trains in full and whose language model through adapters; its rows and its caches."""

    def __init__(self, checkpoint: Path, data: Path, folder: Path, precision: str = "fp32"):
        settings = {
            "model.path": str(checkpoint), "data.cache": str(folder / "cache"), "data.workers": 0,
            "tune_mm_mlp": True, "tune_mm_llm": True, "lora.llm": True, "train.cache_vision": True,
            "train.checkpointing": "none",
        }  # fmt: skip
        self.config, self.precision, self.folder = run_config(**settings), precision, folder
        self.processor, self.family = AutoProcessor.from_pretrained(checkpoint), family_of(checkpoint)
        renderer = renderer_of(self.processor, checkpoint)
        samples = Samples((SourceConfig(path=str(data)),), "data.train", allow_remote=False, cache=folder)
        lengths = lengths_of(samples, renderer, MeasureOptions(folder), lambda done: None)
        self.rows = Rows(samples, lengths, renderer)
        self.model = build_model(self.config, self.family, self.processor, precision)
        keep_masters(self.model)

    def store(self) -> FeatureCache:
        skipped = Skipped([], 0, True, self.folder / "skipped.jsonl", resumed=False)
        context = RunContext(
            self.config, self.family, self.processor, self.rows.renderer, self.precision, PartialState(cpu=True),
            CpuGroup(1),
        )  # fmt: skip
        return vision_cache.store_features([self.rows], base_model(self.model), context, skipped)

    def learn(self, rows: Rows, samples: list[int]) -> tuple[Scores, dict[str, torch.Tensor]]:
        """Scores and gradients of one row."""
        self.model.zero_grad()
        with autocast("cpu", autocast_to(self.config, self.precision)):
            scores = self.model(**rows(samples).batch)
        scores.log_probs.sum().backward()
        trained = ((name, one.grad) for name, one in self.model.named_parameters() if one.requires_grad)
        return scores, {name: gradient.clone() for name, gradient in trained if gradient is not None}


@pytest.fixture
def data(pictures, write_rows, tmp_path) -> Path:
    """The same picture in two samples, and one of them beside a clip."""
    clip = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 48))
    mine = shutil.copy(pictures[1], tmp_path / "mine.png")
    return write_rows(
        [
            conversation(("user", [pictures[0], Path(mine), "What?"]), ("assistant", ["Red."])),
            conversation(("user", ["Who?"]), ("assistant", ["Nobody."])),
            conversation(("user", [clip, pictures[2], "What?"]), ("assistant", ["It moves."])),
            conversation(("user", [pictures[0], "And this?"]), ("assistant", ["Red, too."])),
        ]
    )


@pytest.fixture
def setup(data, checkpoints, tmp_path) -> Callable[..., Setup]:
    def make(model_type: str = "qwen3_vl", precision: str = "fp32") -> Setup:
        return Setup(checkpoints[model_type], data, tmp_path, precision)

    return make


@pytest.fixture
def blind(monkeypatch) -> Callable[[Setup], None]:
    """From then on, neither is anything decoded nor does the tower run."""

    def refuse(*_, **__):
        raise AssertionError("a picture is decoded, or the tower looks at it")

    def make(one: Setup) -> None:
        monkeypatch.setattr(decoding, "load_pixels", refuse)
        monkeypatch.setattr(videos, "load_pixels", refuse)
        monkeypatch.setattr(videos, "read_frames", refuse)
        visual = base_model(one.model).get_submodule(one.family.vision_path)
        for module in (visual, visual.patch_embed, *visual.blocks):
            monkeypatch.setattr(module, "forward", refuse)

    return make


def stored(folder: Path) -> set[Path]:
    return {path for path in (folder / "cache" / "vision").rglob("*") if path.is_file()}


def file_of(one: Setup, features: FeatureCache, index: int, at: int) -> FeatureFile:
    sample = one.rows.samples[index]
    return features.file_of(sample.media[at], one.rows.renderer.layout(sample).media[at])


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 1e-6), ("bf16", 1e-2)])
def test_scores_and_gradients_are_those_of_pixels(model_type, precision, rounding, setup, blind):
    """Measured worst case: scores equal to the last bit, gradients 1.6e-7 apart in Qwen2.5-VL, whose merger is given
    its groups in another order, and equal in the others."""
    one = setup(model_type, precision)
    expected = {key: one.learn(one.rows, samples) for key, samples in (("text", TEXT), ("media", MEDIA))}
    reading = one.rows.with_features(one.store())
    blind(one)
    for key, samples in (("text", TEXT), ("media", MEDIA)):
        scores, gradients = one.learn(reading, samples)
        wanted, wanted_gradients = expected[key]
        assert far(scores.log_probs, wanted.log_probs) < rounding
        # Text reaches the merger, too, so that no process waits for another one's gradients.
        assert gradients.keys() == wanted_gradients.keys()
        assert any("merger" in name for name in gradients)
        for name, gradient in gradients.items():
            assert far(gradient, wanted_gradients[name]) < 5 * rounding, name


def far(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the largest number."""
    largest = theirs.abs().max().item()
    return (mine - theirs).abs().max().item() / largest if largest else mine.abs().max().item()


def test_a_batch_carries_no_pixels(setup):
    one = setup()
    reading = one.rows.with_features(one.store())
    batch = reading(MEDIA).batch
    assert batch.keys().isdisjoint({"planes", "frame_pairs", "grids", "vision"})
    levels, patches, _ = batch["features"].shape
    assert (levels, patches) == (3, int(one.rows.lengths.patches.sum()))


def test_each_medium_is_stored_once_and_found_by_the_next_run(setup, blind, capsys):
    first = setup()
    features = first.store()
    assert "vision features: 4 images and videos to compute" in capsys.readouterr().out
    files = stored(first.folder)
    assert len(files) == 4
    wanted = first.rows.with_features(features)(MEDIA).batch
    second = setup()
    looked = []
    visual = base_model(second.model).get_submodule(second.family.vision_path)
    visual.register_forward_hook(lambda _, __, seen: looked.append(len(seen.last_hidden_state)))
    found = second.store()
    assert "vision features: all stored" in capsys.readouterr().out
    assert looked == [4]  # the blank picture that tells the width
    blind(second)
    assert_same(second.rows.with_features(found)(MEDIA).batch, wanted)
    assert stored(first.folder) == files


@pytest.mark.parametrize("what", ["picture", "weights", "precision"])
def test_what_was_changed_is_looked_at_again(what, setup, checkpoints, tmp_path, capsys):
    setup().store()
    capsys.readouterr()
    if what == "picture":
        picture = np.asarray(Image.open(tmp_path / "mine.png"))
        Image.fromarray(255 - picture).save(tmp_path / "mine.png")
    one = setup(precision="bf16" if what == "precision" else "fp32")
    if what == "weights":
        with torch.no_grad():
            base_model(one.model).model.visual.blocks[0].norm1.weight[0] += 1
    wanted, _ = one.learn(one.rows, MEDIA)
    features = one.store()
    count = 1 if what == "picture" else 4
    assert f"vision features: {count} image" in capsys.readouterr().out
    scores, _ = one.learn(one.rows.with_features(features), MEDIA)
    assert far(scores.log_probs, wanted.log_probs) < (2e-2 if what == "precision" else 2e-6)


def test_trained_parts_do_not_matter(setup, capsys):
    setup().store()
    one = setup()
    with torch.no_grad():
        for parameter in one.model.parameters():
            if parameter.requires_grad:
                parameter += 1
    capsys.readouterr()
    one.store()
    assert "all stored" in capsys.readouterr().out


def test_a_killed_start_goes_on(setup, monkeypatch, capsys):
    one = setup()
    monkeypatch.setattr(vision_cache, "_PASS", 1)
    write, done = FeatureCache.write, []

    def killed(self, place, features):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(place)
        write(self, place, features)

    with monkeypatch.context() as patched:
        patched.setattr(FeatureCache, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            one.store()
    assert stored(one.folder) == {place.path for place in done}
    capsys.readouterr()
    one.store()
    assert "vision features: 2 images and videos to compute" in capsys.readouterr().out
    assert len(stored(one.folder)) == 4


def test_a_damaged_file_is_not_trained_on(setup):
    one = setup()
    features = one.store()
    path = file_of(one, features, 0, 1).path
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    row = one.rows.with_features(features)([0])
    assert row.contents.lengths == ()
    assert "mine.png has no features in" in row.problems[0].reason
    assert "Start the run again" in row.problems[0].reason
    assert one.rows.with_features(one.store())([0]).contents.lengths


def test_a_small_disk_is_refused(setup, monkeypatch):
    one = setup()
    usage = shutil.disk_usage(one.folder)._replace(free=11 * 2**30)
    monkeypatch.setattr(vision_cache.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(vision_cache, "KEEP_FREE", 11 * 2**30)
    with pytest.raises(UserError, match=r"needs 0\.0 GiB in .* for 4 images and videos, but 11\.0 GiB are free"):
        one.store()
    assert not stored(one.folder)


def test_a_full_disk_ends_the_start(setup, monkeypatch):
    one = setup()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureCache, "write", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        one.store()


SHORT = (
    "+recipe=sft_lora", "data.packing=false", "train.batch_size=2", "train.accumulation=1", "train.log_steps=1",
    "train.max_steps=6", "train.warmup=0",
)  # fmt: skip


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_run_has_the_same_curve(workers, data, checkpoints, tmp_path):
    """Three epochs, and the held-out score."""
    given = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", f"data.eval={data}")
    common = (*SHORT, *given, f"data.workers={workers}", "logging.predictions=1", "train.eval_batch_size=2")
    looking = train(tmp_path, *common, name="looking")
    stored = train(tmp_path, *common, "train.cache_vision=true", name="stored")
    assert len(rows(stored)) == 6
    for mine, theirs in zip(rows(stored), rows(looking), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-6)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    for mine, theirs in zip(rows(stored, "eval_loss"), rows(looking, "eval_loss"), strict=True):
        assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=2e-6)
    told = [read_lines(run / "predictions.jsonl") for run in (stored, looking)]
    assert told[0] == told[1]


def broken(data: Path, tmp_path: Path, pictures: list[Path]) -> Path:
    """Its header is whole, its pixels are not."""
    (tmp_path / "cut.png").write_bytes(pictures[3].read_bytes()[:300])
    asked = conversation(("user", [tmp_path / "cut.png", pictures[3], "What?"]), ("assistant", ["Red."]), id="cut")
    with data.open("a") as file:
        file.write(json.dumps(asked) + "\n")
    return data


def test_a_broken_picture_ends_the_run_before_it(data, pictures, checkpoints, tmp_path, capsys):
    path = broken(data, tmp_path, pictures)
    given = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}", f"output_dir={tmp_path / 'runs'}")
    assert main([*SHORT, *given, "train.cache_vision=true", "data.workers=0", "logging.wandb.mode=disabled"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"qwenvl-train: {path}:5 (id cut): the image")
    assert "cannot be decoded" in told
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [".cache"]


def test_a_broken_picture_is_left_out_once(data, pictures, checkpoints, tmp_path):
    """And not what another sample shares with it."""
    path = broken(data, tmp_path, pictures)
    asked = conversation(("user", [pictures[3], "What?"]), ("assistant", ["Red."]), id="whole")
    with path.open("a") as file:
        file.write(json.dumps(asked) + "\n")
    given = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}", "data.on_error=skip")
    run = train(tmp_path, *SHORT, *given, "train.cache_vision=true", "data.max_skipped=1")
    (left_out,) = read_lines(run / "skipped.jsonl")
    assert left_out["line"] == 5
    assert "cannot be decoded" in left_out["reason"]
