"""The rules that depend on the machine: installed packages, and files on its disk."""

from importlib.util import find_spec
from pathlib import Path

from qwenvl_train.config.rules.rule import Lines, Rule
from qwenvl_train.config.schema import RunConfig


def quantizing_is_installed(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.model.quantize == "nf4" and not is_installed("bitsandbytes"):
        yield "model.quantize=nf4 needs bitsandbytes: pip install 'qwenvl-train[qlora]'"


def optimizer_is_installed(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.optim.name == "adamw_8bit" and not is_installed("bitsandbytes"):
        yield "optim.name=adamw_8bit needs bitsandbytes: pip install 'qwenvl-train[qlora]'"


def liger_is_installed(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.liger and not is_installed("liger_kernel"):
        yield "train.liger=true needs liger-kernel: pip install 'qwenvl-train[liger]'"


def resumed_checkpoint_exists(config: RunConfig, given: frozenset[str]) -> Lines:
    resume = config.train.resume
    if resume not in ("auto", "never") and not Path(resume).is_dir():
        yield f"train.resume={resume}: must be auto, never or an existing checkpoint folder"


def is_installed(module: str) -> bool:
    return find_spec(module) is not None


MACHINE_RULES: tuple[Rule, ...] = (
    quantizing_is_installed,
    optimizer_is_installed,
    liger_is_installed,
    resumed_checkpoint_exists,
)
