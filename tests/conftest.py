"""Tiny checkpoints of every family and small data files, built once per session; nothing is downloaded."""

import gc
import json
import os
from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# pytest-xdist sets it for its workers. Output that is not on a terminal is wrapped only if it is set.
os.environ.pop("COLUMNS", None)

import numpy as np
import pytest
from PIL import Image

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")


LONG = (
    "test_preferences", "test_learning", "test_liger", "test_invariance", "test_recipes", "test_rehearsal",
    "test_task_samples", "test_interrupt", "test_vision_cache", "test_streaming", "test_rows", "test_memory",
    "test_plan", "test_wheel", "test_compiled",
)  # fmt: skip
"""The modules that take longest, which start first, so that no process of `make test` ends with one of them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from the libraries, which collecting has imported. The trainer of transformers calls
    it for each run, and it takes half of the time of a short one to look at them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries that look for leaks at exit would find what is kept from the collector."""
    gc.unfreeze()


def by_pairs(one: object, other: object) -> list:
    """Parameters of a family and a way each: every day four families have one way each and each way two families, which
    are not alike; the others are for the nightly tests."""
    daily = {"qwen2_5_vl": other, "qwen3_vl": one, "qwen3_vl_moe": other, "qwen3_5": one}
    return [
        pytest.param(family, way, marks=() if family in daily and daily[family] is way else pytest.mark.nightly)
        for family in FAMILIES
        for way in (one, other)
    ]


def in_rotation(ways: Iterable[object]) -> list:
    """Parameters of a family and one of many ways each: every day each way has two families and each family a third of
    the ways; the others are for the nightly tests."""
    return [
        pytest.param(family, way, marks=() if (row + column) % 3 == 0 else pytest.mark.nightly)
        for row, family in enumerate(FAMILIES)
        for column, way in enumerate(ways)
    ]


BY_DAY = [pytest.param(family, marks=pytest.mark.nightly) if family == "qwen3_5_moe" else family for family in FAMILIES]
"""The families, without the one whose layers two others have, too, except at night."""


@pytest.fixture(params=BY_DAY)
def model_type(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    from qwenvl_train.families.tiny import save_tiny

    root = tmp_path_factory.mktemp("checkpoints")
    return {model_type: Path(save_tiny(model_type, root / model_type)) for model_type in FAMILIES}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Noise of several shapes: every pixel counts, nothing is square."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for index, (width, height) in enumerate([(84, 84), (130, 61), (57, 142), (200, 120)]):
        paths.append(folder / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture
def write_rows(tmp_path):
    def write(rows: list[dict], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def composed_once():
    """Hydra reads and merges the same shipped files for each command, which takes most of the time of a short one. Here
    it does so once for each choice of their options; what the command line says comes later."""
    module = import_module("qwenvl_train.config.compose")
    compose, made = module.hydra_compose, {}

    def once(name: str, options: list[str]):
        key = (name, *options)
        if key not in made:
            made[key] = compose(name, options)
        return deepcopy(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hydra_compose", once)
        yield


@pytest.fixture
def compiler(monkeypatch):
    """Everything but the last stage, which writes C++ for minutes and is torch's own affair."""
    import torch

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


two_families_by_day = pytest.mark.parametrize(
    "model_type",
    [
        "qwen2_5_vl",
        "qwen3_vl_moe",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("qwen2_vl", "qwen3_vl", "qwen3_5", "qwen3_5_moe")),
    ],
)
"""For a long test of what does not depend on the family: the two that differ most, and the others at night."""


def conversation(*turns: tuple[str, list], id: str = "a") -> dict:
    """`("user", [path, "text"])`: paths become pictures, or clips where they end in .mp4; strings text."""
    return {
        "id": id,
        "messages": [{"role": role, "content": [_part(part) for part in parts]} for role, parts in turns],
    }


def _part(part: Path | str) -> dict:
    if not isinstance(part, Path):
        return {"type": "text", "text": part}
    kind = "video" if part.suffix == ".mp4" else "image"
    return {"type": kind, kind: str(part)}


def sample_of(row: dict):
    """The Sample of a row in messages form, with absolute paths."""
    from qwenvl_train.data.formats import to_sample
    from qwenvl_train.data.media.locate import Locator

    return to_sample(row, "rows", 1, Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/")), "messages")


@pytest.fixture
def no_wandb_user(tmp_path, monkeypatch):
    """A user without W&B settings or login."""
    import wandb

    os.environ.pop("WANDB_SERVICE", None)  # it would come back after the process that it names has ended
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()
