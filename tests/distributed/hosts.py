"""Two network namespaces of this machine, which are to each other as two hosts: each with its own address and ports."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INTERFACE = "eth0"


class Hosts:
    """Two namespaces that are joined by a virtual cable.

    Raises:
        OSError: If this machine does not permit them. It says why.
    """

    addresses = ("10.77.0.1", "10.77.0.2")
    env: Mapping[str, str] = {}
    """Further variables for the commands."""

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise OSError("the command ip (iproute2) is not installed")
        id = uuid4().hex[:6]
        self.names = [f"qwenvl-{id}-{number}" for number in (1, 2)]
        ends = [f"q{id}{number}" for number in (1, 2)]
        try:
            for name in self.names:
                _ip("netns", "add", name)
            _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for name, end, address in zip(self.names, ends, self.addresses, strict=True):
                _ip("link", "set", end, "netns", name, "name", INTERFACE)
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", INTERFACE, "up")
        except OSError:
            self.close()
            raise

    def start(self, number: int, *command: str) -> subprocess.Popen:
        """Start a command on a host, 0 or 1. Its output can be read from `stdout`."""
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE, "PATH": f"{BIN}:{os.environ['PATH']}"}
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[number], *command],
            cwd=ROOT,
            env=os.environ | own | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def cut(self) -> None:
        """Pull the cable. What is sent is lost, and nobody is told."""
        _ip("-n", self.names[1], "link", "set", INTERFACE, "down")

    def join(self) -> None:
        """Put the cable back."""
        _ip("-n", self.names[1], "link", "set", INTERFACE, "up")

    def kill(self, number: int) -> None:
        """Kill all processes of a host."""
        found = subprocess.run(["ip", "netns", "pids", self.names[number]], capture_output=True, text=True).stdout
        for pid in found.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        for number, name in enumerate(self.names):
            self.kill(number)
            with suppress(OSError):
                _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class SshHosts(Hosts):
    """Two hosts whose commands can be started over SSH, as DeepSpeed's launcher does with a hostfile.

    Args:
        folder: A new folder for keys and settings.
    """

    def __init__(self, folder: Path) -> None:
        for program in ("sshd", "ssh-keygen", "pdsh"):
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
                raise OSError(f"the command {program} is not installed")
        super().__init__()
        folder.mkdir(mode=0o700)
        key, authorized = folder / "key", folder / "authorized_keys"
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(key)], check=True)
        shutil.copy(f"{key}.pub", authorized)
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [f"AuthorizedKeysFile={authorized}", "StrictModes=no", "PidFile=none", "UsePAM=no"]
        sshd = ["/usr/sbin/sshd", "-D", "-h", str(key), *(word for option in options for word in ("-o", option))]
        for number, _ in enumerate(self.names):
            self.start(number, *sshd)
        self._wait_for_sshd()
        config = folder / "config"
        config.write_text(
            f"Host *\n IdentityFile {key}\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
        )
        self.hostfile, variables = folder / "hostfile", folder / "environment"
        self.hostfile.write_text("".join(f"{address} slots=1\n" for address in self.addresses))
        # DeepSpeed passes these to the processes that it starts over SSH.
        variables.write_text(f"GLOO_SOCKET_IFNAME={INTERFACE}\nOMP_NUM_THREADS=1\n")
        self.env = {"PDSH_SSH_ARGS_APPEND": f"-F {config}", "DS_ENV_FILE": str(variables)}

    def _wait_for_sshd(self) -> None:
        for name, address in zip(self.names, self.addresses, strict=True):
            probe = f"import socket; socket.create_connection(('{address}', 22), 5).close()"
            for _ in range(100):
                command = ["ip", "netns", "exec", name, sys.executable, "-c", probe]
                if subprocess.run(command, capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
