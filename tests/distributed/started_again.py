"""A run of the real command that is ended by a signal, and started again by the same command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from qwenvl_train.holder import in_use
from tests.commands import summary
from tests.distributed.hosts import BIN, ROOT

SECONDS = 300
ALONE = (sys.executable, "-m", "qwenvl_train")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StartedAgain:
    """A run in a folder.

    Args:
        command: What the settings follow.
        env: Further variables.
    """

    def __init__(
        self,
        folder: Path,
        settings: list[str],
        command: tuple[str, ...] = ALONE,
        env: Mapping[str, str] | None = None,
        name: str = "run",
    ):
        where = [f"output_dir={folder}", "logging.wandb.mode=disabled", f"data.cache={folder / 'cache'}"]
        self._command = [*command, *settings, *where]
        own = {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
        self.env = os.environ | own | (env or {})
        self.folder, self._log = folder / name, folder / "log"
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> subprocess.Popen:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def end(self, when: Callable[[], bool], send: Callable[[subprocess.Popen], None]) -> int:
        """Start the run, send a signal as soon as `when` is true, and return the exit code of the command. Return 0 if
        the run has ended before."""
        process = self.start()
        until = time.monotonic() + SECONDS
        while process.poll() is None and not when():
            assert time.monotonic() < until, self.log()[-3000:]
            time.sleep(0.002)
        if process.poll() is None:
            send(process)
        return process.wait(SECONDS)

    def kill(self, when: Callable[[], bool], whom: Callable[[subprocess.Popen], int] | None = None) -> int:
        """Kill the run, or one of its processes."""
        if whom is None:
            return self.end(when, lambda process: os.killpg(process.pid, signal.SIGKILL))
        return self.end(when, lambda process: os.kill(whom(process), signal.SIGKILL))

    def interrupted(self) -> int:
        """Wait until the processes have saved and ended, which they may do after their launcher, and return the step at
        which they did."""
        until = time.monotonic() + SECONDS
        file = self.folder / "summary.json"
        while in_use(self.folder) or not file.is_file():
            assert time.monotonic() < until, self.log()[-3000:]
            time.sleep(0.1)
        assert not (self.folder / ".lock").exists()
        told = summary(self.folder)
        assert told["status"] == "interrupted", self.log()[-5000:]
        assert told["checkpoint"].endswith(f"/step-{told['steps']}")
        state = json.loads((Path(told["checkpoint"]) / "trainer_state.json").read_text(encoding="utf-8"))
        assert state["global_step"] == told["steps"] >= self.step()
        return told["steps"]

    def finish(self) -> str:
        process = self.start()
        assert process.wait(SECONDS) == 0, self.log()[-5000:]
        return self.log()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def step(self) -> int:
        try:
            found = (self.folder / "metrics.jsonl").read_text().splitlines()
            return json.loads(found[-1])["step"]
        except (OSError, IndexError, ValueError):
            return 0

    def saves(self) -> bool:
        return any(self.folder.glob(".staging/checkpoint-*/*"))

    def caches(self) -> bool:
        return any((self.folder.parent / "cache").rglob("*"))
