"""The scripts in scripts/launch are sound, and give the launchers the arguments that docs/distributed.md promises.

tests/distributed/test_launch.py and test_hosts.py start runs by the launchers themselves.
"""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "launch"
SETTINGS = ("+recipe=sft_lora", "data.train=my rows.jsonl")
JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}

ECHO = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0")" "$@"
"""
SRUN = """#!/usr/bin/env bash
shift
for node in 0 1; do SLURM_NODEID=$node "$@"; done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1" = show ] && printf 'node1\\nnode2\\n' || echo "scontrol $*"
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script with stand-ins for the launchers, which print their arguments, and returns the lines."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"torchrun": ECHO, "deepspeed": ECHO, "srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(name: str, *settings: str, code: int = 0, **variables: str) -> list[str]:
        env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | variables
        done = subprocess.run(["bash", str(SCRIPTS / name), *settings], env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines()

    return run


def test_one_host(script):
    told = script("one_host.sh", *SETTINGS, GPUS="2", PORT="1234")
    assert told == ["torchrun", "--nproc_per_node=2", "--master_port=1234", "-m", "qwenvl_train", *SETTINGS]


def test_a_hostfile(script, tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# ours\n\nnode1 slots=8\nnode2 slots=8\n")
    launcher, *told = script("hostfile.sh", *SETTINGS, HOSTFILE=str(file))
    assert launcher == "deepspeed"
    assert told[:3] == [f"--hostfile={file}", "--master_addr=node1", "--master_port=29500"]
    assert told[-5:] == ["--no_local_rank", "--module", "qwenvl_train", *SETTINGS]


def test_several_hosts_with_and_without_numbers(script):
    where = {"NODES": "2", "MASTER": "node1", "GPUS": "8"}
    fixed = script("torchrun_nodes.sh", *SETTINGS, **where, NODE_RANK="1")
    assert fixed[1:6] == [
        "--nnodes=2", "--nproc_per_node=8", "--node_rank=1", "--master_addr=node1", "--master_port=29500",
    ]  # fmt: skip
    agreed = script("torchrun_nodes.sh", *SETTINGS, **where)
    assert agreed[3:6] == ["--rdzv_backend=c10d", "--rdzv_endpoint=node1:29500", "--rdzv_id=qwenvl"]
    assert fixed[6:] == agreed[6:] == ["-m", "qwenvl_train", *SETTINGS]


def test_a_slurm_job_starts_torchrun_on_each_node(script):
    told = script("slurm.sbatch", *SETTINGS, **JOB)
    half = len(told) // 2
    for node, lines in enumerate((told[:half], told[half:])):
        assert lines == [
            "torchrun", "--nnodes=2", f"--node_rank={node}", "--nproc_per_node=8", "--master_addr=node1",
            "--master_port=24711", "-m", "qwenvl_train", "run_name=job-4711", *SETTINGS,
        ]  # fmt: skip
    named = script("slurm.sbatch", *SETTINGS, "run_name=mine", **JOB)
    assert "run_name=job-4711" not in named


@pytest.mark.parametrize(("code", "asked"), [(1, ["scontrol requeue 4711"]), (0, [])])
def test_a_slurm_job_whose_time_is_up_is_queued_again(code, asked, script, tmp_path):
    """SLURM signals the script alone; srun passes SIGTERM on, and ends when its tasks have. A run that has just reached
    its end, so that they end with 0, is not started again. test_signals.py has a real run."""
    srun = tmp_path / "bin" / "srun"
    waits = "for _ in $(seq 100); do sleep 0.1; done"
    srun.write_text(f"#!/usr/bin/env bash\ntrap 'echo saved; exit {code}' TERM\nsleep 1\nkill -USR1 $PPID\n{waits}\n")
    assert script("slurm.sbatch", *SETTINGS, code=code, **JOB) == ["saved", *asked]
