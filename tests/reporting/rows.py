"""A small but complete run, as the trainer reports it."""

import math
from pathlib import Path

from PIL import Image, ImageDraw

from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.reporter import Row, RunInfo

COMPONENTS: list[Row] = [
    {
        "component": "vision",
        "mode": "frozen",
        "parameters": 668_697_600,
        "trained": 0,
        "lr": None,
        "where": "patch embedding, 32 blocks",
    },
    {
        "component": "mlp",
        "mode": "full",
        "parameters": 7_881_216,
        "trained": 7_881_216,
        "lr": 2e-4,
        "where": "merger",
    },
    {
        "component": "llm",
        "mode": "lora",
        "parameters": 3_102_404_608,
        "trained": 29_933_568,
        "lr": 1e-4,
        "where": "rank 16 on 252 linear layers",
    },
]
CONFIG = {
    "run_name": "receipts",
    "seed": 0,
    "model": {"path": "Qwen/Qwen2.5-VL-3B-Instruct", "revision": None},
    "data": {"train": [{"path": "receipts/train.jsonl", "format": "auto"}], "max_length": 4096},
    "train": {"lr": 1e-4, "max_steps": 120, "batch_size": 4},
}
SUMMARY: Row = {
    "status": "done",
    "steps": 120,
    "samples": 480,
    "tokens": 614_400,
    "seconds": 222.0,
    "metrics": {
        "before": {"eval_exact_match": 0.05, "eval_loss": 3.1},
        "after": {"eval_exact_match": 0.975, "eval_loss": 0.0213},
    },
    "best": 100,
    "checkpoint": "checkpoints/step-120",
}


def training_row(step: int, loss: float | None = None) -> Row:
    return {
        "step": step,
        "epoch": step / 60,
        "loss": loss if loss is not None else 3.0 * math.exp(-step / 25) + 0.06 + 0.04 * math.sin(step),
        "lr": 1e-4 * math.sin(math.pi * step / 121),
        "lr_mlp": 2e-4 * math.sin(math.pi * step / 121),
        "grad_norm": 1.0 + 0.4 * math.cos(step / 3),
        "tokens": 5120 * step,
        "supervised_tokens": 310 * step,
        "samples": 4 * step,
        "seconds": 1.85 * step,
        "tokens_per_second": 2767.6 + 40 * math.sin(step),
        "samples_per_second": 2.16,
    }


def evaluation_row(step: int, score: float, loss: float = 0.0213) -> Row:
    return {
        "step": step,
        "epoch": step / 60,
        "eval_loss": loss,
        "eval_exact_match": score,
        "eval_token_accuracy": 0.4 + score / 2,
        "eval_samples": 120,
        "eval_seconds": 3.14,
    }


def draw_receipt(path: Path, total: str) -> None:
    picture = Image.new("RGB", (420, 560), "#f5f1e6")
    pen = ImageDraw.Draw(picture)
    for line in range(9):
        pen.rectangle((50, 60 + 45 * line, 250 + 13 * line, 72 + 45 * line), fill="#8a8478")
    pen.text((50, 490), f"TOTAL {total}", fill="black", font_size=44)
    picture.save(path)


def write_run(run: RunInfo, pictures: Path) -> None:
    """Write everything that a finished run leaves in its folder, except checkpoints."""
    folder = RunFolder(run.folder)
    folder.write_config(run.config)
    facts = {"model": {"path": "models/mine"}, "recipe": "sft_lora"}
    folder.write_environment(["NVIDIA H100 80GB HBM3"], {"processes": 1}, facts)
    folder.write_components(run.components)
    metrics = MetricsFile()
    metrics.start(run)
    metrics.log(evaluation_row(0, 0.05, 3.1))
    for step in range(1, 121):
        metrics.log(training_row(step))
        if step % 20 == 0:
            metrics.log(evaluation_row(step, 0.975 * step / 120, 3.1 * math.exp(-step / 24)))
    metrics.finish(SUMMARY)
    predictions = []
    for line, (total, after) in enumerate([("12.80", "12.80"), ("7.35", "7.85"), ("104.00", "104.00")], 1):
        draw_receipt(pictures / f"{total}.png", total)
        predictions.append(
            {
                "id": f"receipt-{line}",
                "source": "receipts/eval.jsonl",
                "line": line,
                "images": [str(pictures / f"{total}.png")],
                "prompt": "What is the total on this receipt?",
                "expected": total,
                "before": "The receipt shows a list of items.",
                "after": after,
            }
        )
    folder.write_predictions(predictions)
    folder.write_summary(SUMMARY)
