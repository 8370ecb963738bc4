"""The flags of the command line, in Hydra's spelling: those arguments that are no settings."""

from dataclasses import dataclass
from pathlib import Path

from qwenvl_train.errors import UserError

_FOLDER = ("--config-dir", "-cd")
_SEVERAL = ("--multirun", "-m")


@dataclass(frozen=True)
class Flags:
    several: bool
    """Whether to start one run for each value of a setting: -m or --multirun."""
    folder: Path | None
    """The folder of --config-dir, in which recipes and options are found by their names."""


def read_flags(arguments: list[str]) -> tuple[Flags, list[str]]:
    """Return the flags and the other arguments."""
    several, folder, rest = False, None, []
    words = iter(arguments)
    for word in words:
        flag, sign, value = word.partition("=")
        if word in _SEVERAL:
            several = True
        elif flag in _FOLDER:
            value = value if sign else next(words, "")
            if not value:
                raise UserError(f"{flag}: give a folder, such as {flag} my_configs")
            if folder is not None:
                raise UserError(f"{flag} is given twice; give one folder")
            folder = Path(value).expanduser()
        else:
            rest.append(word)
    return Flags(several, folder), rest
