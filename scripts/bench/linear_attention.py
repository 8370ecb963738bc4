"""Measure what Gated DeltaNet layers cost without kernels: python scripts/bench/linear_attention.py [--output f.json]

The language models of a Qwen3.5 and of a Qwen3-VL with equally many weights, random and in float32, compute the forward
and the backward pass of the same packed row of samples on one core, in turns. Without flash-linear-attention, each of
the Gated DeltaNet layers is computed by transformers' own functions, with the samples in groups of equally many chunks.
"""

import argparse
import random
import statistics
import time
from typing import Any

import results
import torch

from qwenvl_train.batch import Piece
from qwenvl_train.data.render.segments import segments_of_samples
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.linear_attention import use_packed_linear_attention

LAYERS, HIDDEN, ROUNDS = 8, 512, 7
TEXT: dict[str, Any] = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 8, "head_dim": 64}
STATES: dict[str, Any] = {
    "layer_types": [*["linear_attention"] * 3, "full_attention"] * (LAYERS // 4),
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
}
INTERMEDIATE = {"qwen3_vl": 1750, "qwen3_5": 1536}
"""The widths with which both have equally many weights."""


def language_model(model_type: str) -> torch.nn.Module:
    own = STATES if model_type == "qwen3_5" else {}
    model = build_model(model_type, text=TEXT | own | {"intermediate_size": INTERMEDIATE[model_type]})
    use_packed_attention(model)
    if own:
        use_packed_linear_attention(model.model.language_model)
    return model.model.language_model.train()


def seconds(model: torch.nn.Module, lengths: list[int], states: bool) -> float:
    segments = segments_of_samples([(Piece(length),) for length in lengths], states)
    embeddings = torch.randn(1, sum(lengths), HIDDEN, requires_grad=True)
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(4, 1, -1)
    started = time.perf_counter()
    output = model(
        inputs_embeds=embeddings,
        position_ids=positions,
        use_cache=False,
        cu_seq_lens_q=segments,
        cu_seq_lens_k=segments,
        max_length_q=segments.longest,
        max_length_k=segments.longest,
    ).last_hidden_state
    output.sum().backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    results.add_output(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(0)
    lengths: list[int] = []
    while sum(lengths) < given.tokens:
        lengths.append(draw.randint(40, 600))
    models = {name: language_model(name) for name in INTERMEDIATE}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS + 1):
        for name, model in models.items():
            taken[name].append(seconds(model, lengths, states=name == "qwen3_5"))
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}  # the first one warms up
    found = {
        "parameters": {name: sum(one.numel() for one in model.parameters()) for name, model in models.items()},
        "samples": len(lengths),
        "tokens": sum(lengths),
        "tokens_per_second": {name: sum(lengths) / median for name, median in medians.items()},
        "times_as_long": medians["qwen3_5"] / medians["qwen3_vl"],
    }
    for name, value in found.items():
        print(f"{name:20}{value}")
    surroundings = results.surroundings(("torch", "transformers"), ("cpu", "cores"), [])
    results.write(surroundings | found, given.output)


if __name__ == "__main__":
    main()
