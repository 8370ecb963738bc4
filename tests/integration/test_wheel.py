"""The installed wheel is enough: assets inside, and it runs in an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands import QUIET

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel's content on a path of its own, ahead of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, empty: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_its_assets_and_no_other_top_level(installed):
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"qwenvl_train"}
    assets = installed / "qwenvl_train" / "_assets"
    for name in ("configs/train.yaml", "recipes/sft_lora.yaml", "data/tiny/config.json", "data/shapes/train.jsonl"):
        assert (assets / name).is_file()
    assert (installed / "qwenvl_train" / "reporting" / "pages" / "report.html.j2").is_file()
    assert (installed / "qwenvl_train" / "reporting" / "pages" / "uplot" / "uPlot.iife.min.js").is_file()


def test_the_wheel_trains_in_an_empty_folder(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import qwenvl_train; print(qwenvl_train.__file__)")
    assert where.startswith(str(installed))
    run(
        installed,
        tmp_path,
        "-m",
        "qwenvl_train",
        "+recipe=sft_lora",
        "train.max_steps=2",
        "logging.wandb.mode=disabled",
        QUIET,
    )
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.name != ".cache")
    assert (folder / "checkpoints" / "step-2" / "adapter_model.safetensors").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
