"""The private names of libraries that the package relies on: an upgrade that drops one fails here."""

import ast
import inspect
import re
import tomllib
from importlib import import_module
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PRIVATE = {
    # Modules, and what is in them.
    "torch._subclasses": "torch",
    "torch.utils._python_dispatch": "torch.utils",
    "torch.utils._pytree": "torch.utils",
    "_grouped_mm": "torch.ops:aten",
    "_flash_attention_forward": "transformers.modeling_flash_attention_utils",
    # What classes and their instances have.
    "_buffers": "torch.nn:Module",
    "_is_view": "torch:Tensor",
    "_modules": "torch.nn:Module",
    "_parameters": "torch.nn:Module",
    "_apply_gate": "transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe:Qwen3VLMoeTextExperts",
    "_attn_implementation": "transformers:PreTrainedConfig",
    "_commit_hash": "transformers:PreTrainedConfig",
    "_deepstack_process": "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLTextModel",
    "_experts_implementation": "transformers:PreTrainedConfig",
    "_gradient_checkpointing_func": "transformers.modeling_layers:GradientCheckpointingLayer",
    "_n_gpu": "transformers:TrainingArguments",
    "_set_gradient_checkpointing": "transformers:PreTrainedModel",
    "_weight_conversions": "transformers.core_model_loading:revert_weight_conversion",
    "_globalstep_last_logged": "transformers:Trainer",
    "_tr_loss": "transformers:Trainer",
    # What the package overrides.
    "_get_grad_norm": "transformers:Trainer",
    "_maybe_log_save_evaluate": "transformers:Trainer",
    "_load_from_checkpoint": "transformers:Trainer",
    "_prepare_inputs": "transformers:Trainer",
    "_save_checkpoint": "transformers:Trainer",
}
"""Each with its owner."""
DOCUMENTED = {"_asdict", "_current_frames", "_exit", "_open", "_replace"}
"""Python's own names that begin with an underscore and are public."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def used(tree: ast.Module) -> set[str]:
    """The private names that a module imports, and those of attributes and of strings."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                parts = module.split(".")
                found |= {".".join(parts[: at + 1]) for at, part in enumerate(parts) if is_private(part)}
                found |= {name.name for name in names if is_private(name.name)}
            case ast.Attribute(attr=name) if is_private(name):
                full = ast.unparse(node)
                found.add(full if full.startswith("torch.utils.") else name)
            case ast.Constant(value=str(name)) if name in PRIVATE:
                found.add(name)
    return found


def defined(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, value=ast.Name(id="self" | "cls"), ctx=ast.Store())
            ):
                found.add(name)
    return found


def overridden() -> set[str]:
    """The private methods of libraries' classes that classes of the package define anew."""
    found = set()
    for file in (ROOT / "qwenvl_train").rglob("*.py"):
        if any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(ast.parse(file.read_text()))):
            module = import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
            for one in (one for one in vars(module).values() if inspect.isclass(one)):
                if one.__module__ == module.__name__:
                    theirs = [base for base in one.__mro__ if not base.__module__.startswith("qwenvl_train.")]
                    mine = {name for name, value in vars(one).items() if is_private(name) and inspect.isfunction(value)}
                    found |= {name for name in mine if any(name in vars(base) for base in theirs)}
    return found


def test_the_package_relies_on_these_and_no_others():
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "qwenvl_train").rglob("*.py")]
    own = set().union(*map(defined, trees))
    foreign = set().union(*map(used, trees)) - own
    assert (foreign | overridden()) - DOCUMENTED == set(PRIVATE)


@pytest.mark.parametrize("name", PRIVATE)
def test_the_installed_version_has_it(name):
    owner = resolve_name(PRIVATE[name])
    if inspect.isclass(owner) or inspect.isfunction(owner):
        bases = getattr(owner, "__mro__", ())
        kept = name in chain.from_iterable(getattr(base, "__annotations__", ()) for base in bases)
        assert kept or hasattr(owner, name) or re.search(rf"[.\"]{name}\b", inspect.getsource(owner))
    else:
        assert hasattr(owner, name.removeprefix(f"{PRIVATE[name]}."))


def test_the_next_minor_version_of_their_libraries_is_not_installed_by_itself():
    """Except for torch, which has no upper bound on purpose, since users choose it to fit their driver."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    for library in {re.split(r"[.:]", owner)[0] for owner in PRIVATE.values()} - {"torch"}:
        assert any(bound.operator == "<" for bound in bounds[library]), library
