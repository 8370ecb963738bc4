"""Two hosts train as one, and when one of them is lost, the other ends and the run goes on where it was.

The hosts are network namespaces of this machine, which share its disk. Where they are not permitted, these tests are
skipped, and say why.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.commands import QUIET, rows, summary, train
from tests.distributed.curves import SHORT, assert_same_curve, figures
from tests.distributed.hosts import Hosts, SshHosts

pytestmark = pytest.mark.distributed

QUICK = (*SHORT, QUIET, "data.train={mixed}", "data.eval={mixed}", "train.lr=1e-3", "train.lr_mlp=3e-3")
WHERE = ("run_name=run", "logging.wandb.mode=disabled")
STAGES = ("zero2", "zero3")
STEPS = 24
SILENCE = 60
"""Seconds after which a process that is not heard of counts as lost."""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    yield from opened(Hosts)


@pytest.fixture
def ssh_hosts(tmp_path) -> Iterator[SshHosts]:
    yield from opened(lambda: SshHosts(tmp_path / "ssh"))


def opened(make: Callable) -> Iterator:
    try:
        found = make()
    except OSError as error:
        pytest.skip(f"no two hosts here: {error}")
    yield found
    found.close()


def settings(files, checkpoints, family: str, recipe: str, steps: int) -> list[str]:
    words = [f"+recipe={recipe}", f"model.path={checkpoints[family]}", f"train.max_steps={steps}", *QUICK]
    return [word.format(**files) for word in words]


def finished(process: Popen, seconds: int = 600) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    told, _ = process.communicate(timeout=seconds)
    return process.returncode, told


def test_a_hostfile_trains_on_both_hosts_as_on_one(ssh_hosts, files, checkpoints, tmp_path):
    """By DeepSpeed's own launcher, over SSH and TCP, text and pictures mixed."""
    common = settings(files, checkpoints, "qwen2_5_vl", "sft_full", 3)
    sharded = {"zero2": (), "zero3": ("deepspeed.whole_elements=0",)}
    commands = [
        [*common, "train.batch_size=2", f"deepspeed={stage}", *sharded[stage], *WHERE, f"output_dir={tmp_path / stage}"]
        for stage in STAGES
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    options = [f"--hostfile={ssh_hosts.hostfile}", f"--master_addr={ssh_hosts.addresses[0]}", "--no_ssh_check"]
    code, told = finished(
        ssh_hosts.start(
            0, "deepspeed", *options, "--no_local_rank", "--module", "tests.distributed.several",
            str(tmp_path / "commands.json"),
        )
    )  # fmt: skip
    assert code == 0, told[-5000:]
    assert all(f"{address}: " in told for address in ssh_hosts.addresses)
    one = train(tmp_path, *common, "train.batch_size=4")
    for stage in STAGES:
        assert len(figures(tmp_path / stage / "run")) == 3
        assert_same_curve(figures(tmp_path / stage / "run"), figures(one))


@pytest.mark.nightly
def test_a_run_outlives_the_loss_of_a_host(hosts, files, checkpoints, tmp_path):
    """First the processes of one host are killed, then its cable is pulled. Each time the other host ends and says what
    has happened, and the same command goes on."""
    common = settings(files, checkpoints, "qwen3_vl", "sft_lora", STEPS)
    command = [*common, "train.batch_size=2", "train.save_steps=2", *WHERE, f"output_dir={tmp_path}"]

    def start() -> list[Popen]:
        options = ["--nnodes=2", "--nproc_per_node=1", f"--master_addr={hosts.addresses[0]}", "--master_port=29500"]
        return [
            hosts.start(rank, "torchrun", *options, f"--node_rank={rank}", "-m", "qwenvl_train", *command)
            for rank in (0, 1)
        ]

    first, _ = start()
    reach(tmp_path / "run", 5, first)
    hosts.kill(1)
    killed = time.monotonic()
    code, told = finished(first, 300)
    assert code != 0
    assert time.monotonic() - killed < 60
    assert re.search(
        r"qwenvl-train: The connection to another process was lost\. .+ run_name=run to go on from step-4", told
    )
    assert summary(tmp_path / "run")["status"] == "failed"

    first, second = start()
    reach(tmp_path / "run", 11, first)
    hosts.cut()
    lost = time.monotonic()
    outputs = [finished(process, 300) for process in (first, second)]
    assert time.monotonic() - lost < 2 * SILENCE
    assert all(code != 0 for code, _ in outputs)
    assert re.search(
        r"process 1 on host .+ has not been heard of for 1m 00s: it was killed, or a host is down", outputs[0][1]
    )
    assert re.search(r"process 0 cannot be reached any more from process 1 on host", outputs[1][1])

    hosts.join()
    for process in start():
        code, told = finished(process)
        assert code == 0, told[-5000:]
    one = train(tmp_path / "one", *common, "train.batch_size=4")
    assert len(figures(one)) == STEPS
    assert_same_curve(figures(tmp_path / "run"), figures(one))


def reach(run: Path, step: int, process: Popen) -> None:
    """Wait until a run has reached a step, which its first process writes down."""
    until = time.monotonic() + 300
    while not (run / "metrics.jsonl").is_file() or not (done := rows(run)) or done[-1]["step"] < step:
        assert process.poll() is None, process.communicate()[0][-5000:]
        assert time.monotonic() < until, f"{run} has not reached step {step}"
        time.sleep(0.05)
