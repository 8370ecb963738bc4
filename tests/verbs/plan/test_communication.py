"""What `plan` says of communication. tests/distributed/test_traffic.py compares it with the bytes of two processes."""

import json

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.families import family_of
from qwenvl_train.model.shapes import architecture
from qwenvl_train.planning.communication import Communication, Exchange, exchanges
from qwenvl_train.planning.memory import sized
from qwenvl_train.verbs.plan.settings import PLAN

ROWS = "data.train=rows.jsonl"


def test_a_ring_sends_a_share_of_the_tensors():
    assert Exchange("all-gather", "weights", "forward", 3, 800).sent(8) == 3 * 700
    assert Exchange("reduce-scatter", "gradients", "backward", 1, 800).sent(8) == 700
    assert Exchange("all-reduce", "gradients", "backward", 2, 800).sent(8) == 2 * 1400
    assert Exchange("all-reduce", "gradients", "backward", 1, 800).sent(1) == 0


def found(*words: str) -> dict[tuple[str, str], tuple[int, int]]:
    config = compose([ROWS, "model=qwen2_5_vl_7b", "train.accumulation=4", *words]).config
    model = architecture(config.model)
    sizes = sized(model, family_of(model.model_type, ""), config)
    told = exchanges(sizes, model, config, "bf16")
    return {(exchange.operation, exchange.phase): (exchange.times, exchange.size) for exchange in told}


def test_what_is_sent_and_how_often():
    weights, table = 8_292_166_656, 152_064 * 3584
    gradients, after = ("all-reduce", "backward"), ("all-gather", "after")
    full = ("+recipe=sft_full",)
    assert found(*full) == {gradients: (1, 4 * weights)}
    assert found(*full, "deepspeed=zero1") == {gradients: (1, 2 * weights), after: (1, 2 * weights)}
    assert found(*full, "deepspeed=zero2") == {gradients: (4, 2 * weights), after: (1, 2 * weights)}
    once = found(*full, "deepspeed=zero2", "deepspeed.communication_dtype=fp32")
    assert once[gradients] == (4, 4 * weights)

    sharded = found(*full, "deepspeed=zero3", "deepspeed.whole_elements=0")
    assert sharded == {
        ("all-gather", "forward"): (4, 2 * weights),
        ("all-gather", "backward"): (4, 2 * (weights - table)),  # the output layer stays
        ("reduce-scatter", "backward"): (4, 2 * weights),
        after: (1, 0),
    }
    whole = found(*full, "deepspeed=zero3", f"deepspeed.whole_elements={weights}")
    assert whole[after] == (1, 2 * weights)
    assert whole["all-gather", "forward"] == (4, 0)


def test_frozen_weights_are_gathered_but_not_reduced():
    sharded = ("deepspeed=zero3", "deepspeed.whole_elements=0")
    full, merger = found("+recipe=sft_full", *sharded), found("+recipe=sft_projector", *sharded)
    assert merger["all-gather", "forward"] == full["all-gather", "forward"]
    assert merger["reduce-scatter", "backward"][1] < full["reduce-scatter", "backward"][1] / 100
    # Gradients do not flow through the frozen tower and embeddings.
    assert merger["all-gather", "backward"][1] < full["all-gather", "backward"][1] - 2 * 152_064 * 3584
    stored = found("+recipe=sft_projector", *sharded, "train.cache_vision=true")
    assert stored["all-gather", "forward"][1] < merger["all-gather", "forward"][1]
    assert stored["all-gather", "backward"] == merger["all-gather", "backward"]


def test_a_reference_is_gathered_too():
    alone = found("+recipe=dpo_full", "deepspeed=zero3", "dpo.reference=none")
    both = found("+recipe=dpo_full", "deepspeed=zero3", "dpo.reference=model")
    assert both["all-gather", "forward"][1] > 1.8 * alone["all-gather", "forward"][1]
    assert both["all-gather", "backward"] == alone["all-gather", "backward"]


def test_computing_hides_what_is_sent_meanwhile():
    """Micro-batches of 3 s each, of which 2 s are the backward pass, on 2 devices that send 100 bytes a second."""

    def waiting(*exchanges: Exchange, speed: float = 100, overlaps: bool = True) -> float:
        return Communication(exchanges, 2, speed, overlaps, 3.0).waiting

    gradients, weights = ("all-reduce", "gradients", "backward"), ("all-gather", "weights", "after")
    assert waiting(Exchange(*gradients, 1, 300)) == pytest.approx(1)  # 3 s behind one backward pass
    assert waiting(Exchange(*gradients, 3, 300)) == pytest.approx(3)  # and behind each of three
    assert waiting(Exchange(*gradients, 1, 300), speed=150) == pytest.approx(0)
    assert waiting(Exchange(*gradients, 1, 300), overlaps=False) == pytest.approx(3)
    assert waiting(Exchange(*gradients, 1, 100), Exchange(*weights, 1, 100)) == pytest.approx(0.5)
    both = (Exchange("all-gather", "weights", "backward", 3, 400), Exchange("reduce-scatter", *gradients[1:], 3, 400))
    assert waiting(*both) == pytest.approx(6)
    assert Communication(both, 2, 100, True, 3.0).hidden_from == pytest.approx(200)
    assert Communication(both, 2, 100, False, 3.0).hidden_from is None


def test_the_slowest_connection_counts(plan):
    words = ("+recipe=sft_full", "deepspeed=zero3", "train.accumulation=2", "plan.devices=16", "output=json")
    one, two = (json.loads(plan(*words, *more)[0]) for more in ((), ("plan.nodes=2", "plan.network_gbits=80")))
    assert one["communication"]["speed"] == 450e9
    assert two["communication"]["speed"] == 10e9
    sent = one["communication"]["sent"]
    assert two["communication"]["sent"] == sent
    assert two["communication"]["seconds"] == pytest.approx(sent / 10e9)
    for each in (one, two):
        assert each["seconds_per_step"] == each["computing_per_step"] + each["communication"]["waiting"]
    assert two["communication"]["waiting"] > 0.5 * two["seconds_per_step"]
    # The tiny model fits with any stage.
    assert two["lower_stage"]["words"] in ("deepspeed=zero1", "deepspeed=zero2")
    assert two["lower_stage"]["waiting"] < 0.9 * two["communication"]["waiting"]


def test_the_terminal_says_where_communication_is_the_limit(plan):
    words = ("+recipe=sft_full", "plan.devices=16", "plan.nodes=2", "plan.network_gbits=0.01", "train.accumulation=2")
    out, _ = plan(*words, "deepspeed=zero1")
    assert "on 16 × h100 with 79 GiB on 2 nodes" in out
    assert "gradients, in the last backward pass of a step" in out
    assert "weights, after the step" in out
    assert (
        "450 GB/s (plan.link_gbytes) between devices of a node, and 0.01 Gbit/s (plan.network_gbits) between nodes"
        in out
    )
    assert "communication is the limit: devices wait longer than they compute" in out
    assert "with train.accumulation=" in out
    out, _ = plan(*words, "deepspeed=zero3")
    assert "ZeRO-3 sends in each micro-batch" in out
    assert "deepspeed=zero1 fits, too" in out
    out, _ = plan("+recipe=sft_full")
    assert "\nCommunication" not in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["plan.devices=6", "plan.nodes=4"], "plan.devices=6 is the number on all nodes, and no multiple of plan.n"),
        (["plan.devices=8", "plan.network_gbits=400"], "plan.network_gbits has no effect with plan.nodes=1"),
        (["plan.link_gbytes=300"], "plan.link_gbytes has no effect with plan.devices=1"),
    ],
)  # fmt: skip
def test_connections_without_effect_are_refused(words, line):
    with pytest.raises(UserError, match=line):
        compose(["+recipe=sft_full", ROWS, *words], PLAN)
