"""A file of states that runs code when it is read as a pickle."""

import os
import pickle
from pathlib import Path

import torch


class Poison:
    """Makes a folder where it is read without restrictions."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def poison(file: Path, trace: Path, form: str = "zip") -> None:
    """Replace a file by one that makes the folder `trace` when it is read, in one of the forms that torch reads."""
    match form:
        case "zip":
            torch.save({"state": Poison(trace)}, file)
        case "older":
            torch.save({"state": Poison(trace)}, file, _use_new_zipfile_serialization=False)
        case "pickle":
            file.write_bytes(pickle.dumps(Poison(trace)))
