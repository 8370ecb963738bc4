"""A run with a local model and local data asks no host for anything, whatever the libraries would like to tell."""

import json
import os
import subprocess
import sys

from qwenvl_train.cli import SILENCED, main
from tests.commands import QUIET
from tests.conftest import conversation

GUARDED = """
import json, socket, sys

asked = []

def guarded(method):
    def call(self, address, *arguments):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            asked.append(str(address))
            raise OSError("there is no network")
        return method(self, address, *arguments)
    return call

def resolve(name, *arguments, **options):
    if name not in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
        asked.append(str(name))
        raise socket.gaierror("there is no network")
    return getaddrinfo(name, *arguments, **options)

getaddrinfo, socket.getaddrinfo = socket.getaddrinfo, resolve
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))

from qwenvl_train.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, asked]))
"""


def test_nothing_leaves_the_machine_unasked(pictures, checkpoints, write_rows, tmp_path):
    sample = conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))
    words = [
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={write_rows([sample])}",
        "data.packing=false", "data.workers=0", "train.max_steps=1", f"output_dir={tmp_path}", "run_name=run",
        "logging.wandb.mode=offline", QUIET,
    ]  # fmt: skip
    # As a user starts it, without what the tests set to keep libraries off the network.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "WANDB_")) and name not in SILENCED
    }
    done = subprocess.run([sys.executable, "-c", GUARDED, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_what_the_user_has_set_stays(monkeypatch):
    for name in SILENCED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    assert main(["train.nothing=1"]) == 2
    assert {name: os.environ[name] for name in SILENCED} == SILENCED | {"WANDB_ERROR_REPORTING": "true"}
