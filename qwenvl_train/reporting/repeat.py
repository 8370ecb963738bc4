"""What is needed to repeat a run: the command that started it, and how the report shows it."""

import os
import shlex
import sys
from pathlib import Path

from qwenvl_train.reporting.reporter import Row

_LAUNCHERS = ("torchrun", "torch.distributed", "deepspeed", "accelerate", "srun", "mpirun")


def command() -> list[str]:
    """Return the command that started this process. If a launcher started it, return the launcher's command, since that
    starts all processes of the run."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and (parent := _launcher()):
        return parent
    return _without_interpreter(sys.orig_argv)


def _launcher() -> list[str] | None:
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").rstrip("\0").split("\0")
    except (OSError, UnicodeDecodeError):  # not Linux, or the process of another user
        return None
    known = any(name in word for word in words[:4] for name in _LAUNCHERS)
    return _without_interpreter(words) if known else None


def _without_interpreter(words: list[str]) -> list[str]:
    """Return the words of a command as the user types it: an executable script is started without its interpreter."""
    script = len(words) > 1 and not words[1].startswith("-") and os.access(words[1], os.X_OK)
    return words[1:] if script else words


def commands(folder: Path) -> list[tuple[str, str]]:
    """Return the commands that go on from a run folder, each with what it does."""
    path = shlex.quote(str(folder.resolve()))
    config = shlex.quote(str(folder.resolve() / "config.yaml"))
    return [
        ("train with the same settings again", f"qwenvl-train +recipe={config}"),
        ("score it", f"qwenvl-train eval run={path}"),
        ("ask it", f"qwenvl-train chat run={path}"),
        ("export it", f"qwenvl-train export run={path}"),
    ]


def repeat_rows(environment: Row) -> list[tuple[str, str]]:
    """Return the name and the value of each thing that is needed to repeat the run."""
    words, checkout = environment.get("command"), environment.get("checkout") or {}
    packages = {"Python": environment.get("python"), **(environment.get("packages") or {})}
    changes = " with uncommitted changes" if checkout.get("uncommitted_changes") else ""
    found = [
        ("command", shlex.join(words) if words else None),
        ("working directory", environment.get("working_directory")),
        ("recipe", environment.get("recipe")),
        ("started from", _origin(environment.get("model") or {})),
        ("commit", checkout["commit"] + changes if checkout.get("commit") else None),
        ("versions", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
    ]
    return [(name, value) for name, value in found if value]


def _origin(lineage: Row) -> str | None:
    """Return the adapter that the run started from, or None for a run that started from a whole model."""
    if "adapter" not in lineage:
        return None
    return f"LoRA adapter {lineage['path']} for {lineage['base_model']}, {lineage['adapter']}"
