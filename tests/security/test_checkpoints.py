"""A checkpoint that someone has poisoned runs no code: neither its weights, nor its states, nor its configuration."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from qwenvl_train.cli import main
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.adapters import read_weights, with_stored_adapter
from qwenvl_train.model.load import load_model
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.stored_adapter import stored_adapter
from qwenvl_train.model.weights_only import only_weights
from qwenvl_train.training.checksums import write_checksums
from tests.commands import QUIET, summary, train
from tests.conftest import conversation
from tests.loading import write_adapter
from tests.security.poison import poison
from tests.settings import run_config
from tests.shares import sharded_copy

FAMILY = FAMILIES["qwen2_5_vl"]
FORMS = ("zip", "older", "pickle")


@pytest.mark.parametrize("form", FORMS)
def test_the_poison_works_where_nothing_is_restricted(tmp_path, form):
    poison(tmp_path / "state.pt", tmp_path / "trace", form)
    try:
        torch.load(tmp_path / "state.pt", weights_only=False)
    except Exception:  # the file is not one of torch's, but its code has run
        assert form == "pickle"
    assert (tmp_path / "trace").is_dir()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("user", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
def test_no_library_can_lift_the_restriction(tmp_path, form, user, monkeypatch):
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    poison(tmp_path / "state.pt", tmp_path / "trace", form)
    with only_weights(deepspeed=True), pytest.raises(Exception, match=r"(?i)weights only"):
        torch.load(tmp_path / "state.pt", weights_only=False)
    assert not (tmp_path / "trace").exists()


def config_of(folder: Path):
    return run_config(**{"model.path": str(folder), "model.family": None, "model.shape": None})


@pytest.fixture
def model(checkpoints, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoints["qwen2_5_vl"], tmp_path / "model"))


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_pickles(model, form, tmp_path):
    (model / "model.safetensors").unlink()
    poison(model / "pytorch_model.bin", tmp_path / "trace", form)
    with pytest.raises(UserError, match=r"model\.path .* cannot be loaded: one of its files .* run code"):
        load_model(config_of(model).model, FAMILY, "fp32")
    assert not (tmp_path / "trace").exists()


def test_older_weights_without_code_are_read(model):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    assert load_model(config_of(model).model, FAMILY, "fp32").num_parameters() > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["model", "optim"])
def test_shares_of_weights(model, kind, form, tmp_path):
    """Both kinds of files in which DeepSpeed stores them."""
    weights = load_file(model / "model.safetensors")
    folder = sharded_copy(model, weights, tmp_path / "step-1", set(weights))
    poison(next(folder.glob(f"global_step1/*rank_1_*_{kind}_states.pt")), tmp_path / "trace", form)
    with pytest.raises(UserError, match=r"the weights in .* cannot be put together: "):
        load_model(config_of(folder).model, FAMILY, "fp32")
    assert not (tmp_path / "trace").exists()


@pytest.fixture
def adapter(model, tmp_path) -> Path:
    return write_adapter(model, tmp_path / "adapter")


def load(folder: Path, model: Path) -> None:
    base = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    stored = stored_adapter(config_of(folder).model)
    assert stored is not None
    read_weights(with_stored_adapter(base, stored), stored)


def test_an_adapter_that_is_a_pickle(adapter, model, tmp_path):
    (adapter / "adapter_model.safetensors").unlink()
    poison(adapter / "adapter_model.bin", tmp_path / "trace")
    with pytest.raises(UserError, match=r"does not fit its base model .*: one of its files would run code"):
        load(adapter, model)
    assert not (tmp_path / "trace").exists()


def test_an_adapter_that_names_a_module_to_import(adapter, model, tmp_path, monkeypatch):
    monkeypatch.setattr("peft.tuners.lora.tp_layer.get_default_module_allowlist", lambda: ["poisoned"], raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "poisoned").mkdir()
    (tmp_path / "poisoned" / "__init__.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    (tmp_path / "poisoned" / "core.py").touch()
    file = adapter / "adapter_config.json"
    named = {"megatron_config": {"a": 1}, "megatron_core": "poisoned.core"}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    load(adapter, model)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own(model, file, tmp_path, monkeypatch):
    """It is not run, and nobody is asked on the terminal whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (model / "own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nclass Own: pass\n")
    classes = ("AutoConfig", "AutoProcessor", "AutoModelForImageTextToText", "AutoTokenizer")
    tree = json.loads((model / file).read_text()) | {"auto_map": dict.fromkeys(classes, "own.Own")}
    tree |= dict.fromkeys(tree.keys() & {"model_type", "processor_class", "tokenizer_class"}, "Own")
    (model / file).write_text(json.dumps(tree))
    config = config_of(model).model
    if file == "tokenizer_config.json":  # the other files say which class of transformers it is
        load_processor(config, FAMILY)
    else:
        with pytest.raises(UserError, match=r"model\.path .* cannot be loaded: The repository .* contains custom code"):
            load_family(config) if file == "config.json" else load_processor(config, FAMILY)
    assert not (tmp_path / "trace").exists()


SETTINGS = (
    "data.packing=false", "data.workers=0", "train.max_steps=2", "train.save_steps=1", "train.warmup=0", QUIET,
)  # fmt: skip


@pytest.fixture(scope="module")
def halfway(pictures, checkpoints, tmp_path_factory) -> tuple[Path, tuple[str, ...]]:
    """A run that was killed after the first of its two steps, and the settings to go on with."""
    folder = tmp_path_factory.mktemp("halfway")
    sample = conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))
    (folder / "rows.jsonl").write_text(json.dumps(sample) + "\n", encoding="utf-8")
    rows = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={folder / 'rows.jsonl'}", *SETTINGS)
    settings = ("+recipe=sft_lora", *rows)
    shutil.rmtree(train(folder, *settings) / "checkpoints" / "step-2")
    return folder, settings


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin", "adapter_model.bin"]
)
def test_a_run_does_not_resume_from_poisoned_states(halfway, name, tmp_path, capsys):
    stored, settings = halfway
    folder = Path(shutil.copytree(stored / "run", tmp_path / "run"))
    checkpoint = folder / "checkpoints" / "step-1"
    if name == "adapter_model.bin":
        (checkpoint / "adapter_model.safetensors").unlink()
    poison(checkpoint / name, tmp_path / "trace")
    write_checksums(checkpoint)
    assert main([*settings, f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"qwenvl-train: train.resume: {checkpoint} was not read: one of its files would run code (")
    assert said.endswith("mkdir). Resume from another checkpoint, or choose another run_name.")
    assert summary(folder)["status"] == "failed"
    assert not (tmp_path / "trace").exists()


def test_files_that_no_resumed_run_reads(halfway, tmp_path):
    """The arguments of the trainer are a pickle, and DeepSpeed adds programs."""
    stored, settings = halfway
    folder = Path(shutil.copytree(stored / "run", tmp_path / "run"))
    for name in ("training_args.bin", "optimizer.bin", "zero_to_fp32.py"):
        poison(folder / "checkpoints" / "step-1" / name, tmp_path / "trace")
    write_checksums(folder / "checkpoints" / "step-1")
    train(tmp_path, *settings)
    assert not (tmp_path / "trace").exists()


@pytest.mark.distributed
def test_a_run_does_not_resume_from_poisoned_states_of_deepspeed(pictures, checkpoints, tmp_path):
    """Both kinds of files, each in the form that DeepSpeed writes; a run whose files are as written resumes."""
    sample = conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))
    (tmp_path / "rows.jsonl").write_text(json.dumps(sample) + "\n", encoding="utf-8")
    rows = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={tmp_path / 'rows.jsonl'}", *SETTINGS)
    where = (f"output_dir={tmp_path}", "logging.wandb.mode=disabled")
    settings = ["+recipe=sft_full", "deepspeed=zero2", *rows, *where]
    assert _codes([[*settings, "run_name=clean"]])[0] == [0]
    shutil.rmtree(tmp_path / "clean" / "checkpoints" / "step-2")
    names = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    for number, name in enumerate(names):
        shutil.copytree(tmp_path / "clean", tmp_path / f"poisoned{number}")
        states = tmp_path / f"poisoned{number}" / "checkpoints" / "step-1" / "global_step1"
        poison(states / name, tmp_path / "trace", "older")
        write_checksums(states.parent)
    runs = ("clean", "poisoned0", "poisoned1")
    codes, said = _codes([[*settings, f"run_name={name}"] for name in runs])
    assert codes == [0, 2, 2], said
    assert said.count("was not read: one of its files would run code (") == 2
    assert summary(tmp_path / "clean")["status"] == "done"
    assert not (tmp_path / "trace").exists()


def _codes(commands: list[list[str]]) -> tuple[list[int], str]:
    """The exit codes of commands that one process of its own runs, since DeepSpeed makes it a process group."""
    program = (
        "import json, sys; from qwenvl_train.cli import main\n"
        "print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr
