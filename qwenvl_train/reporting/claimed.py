"""A folder of results that belongs to certain settings, so that a job that was killed goes on there, and no other job
does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.folder import write_json_atomic

SETTINGS = "settings.json"


def claim_folder(path: Path, key: str, settings: Mapping[str, Any]) -> None:
    """Make a folder for results that follow from these settings, or find it again.

    Args:
        key: The setting that names the folder, for error messages.

    Raises:
        UserError: If it holds results of other settings, or other files.
    """
    stored = _stored(path, key)
    if stored is None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{key}={path} has other files in it; name a new folder.")
    if stored is not None and stored != settings:
        changed = [name for name in {**settings, **stored} if stored.get(name) != settings.get(name)]
        raise UserError(
            f"{key}={path} holds results of other settings ({', '.join(changed)}); name another folder, or delete it."
        )
    if stored is None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json_atomic(path / SETTINGS, settings)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"{key}={path} cannot be made a folder: {error.strerror}; name another one.") from None


def _stored(path: Path, key: str) -> Any:
    try:
        return json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        raise UserError(f"{key}={path}: its {SETTINGS} is damaged; name another folder.") from None
