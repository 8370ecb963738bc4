"""A program of its own that loads an export in the way of its readers, without this package: it computes logits and
greedy answers for prepared inputs, and says which weights were not taken.

    python -P reload.py job.json
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

MEDIA = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


@torch.no_grad()
def main(job: dict) -> list[str]:
    """Return what is wrong with the weights."""
    disable_progress_bar()
    # Products in TF32 would hide differences between weights.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, taken = AutoModelForImageTextToText.from_pretrained(
        job["model"], dtype=torch.float32, device_map=job["device"], output_loading_info=True
    )
    problems = [f"{name} {kind.removesuffix('_keys')}" for kind, names in taken.items() for name in map(str, names)]
    if job["adapter"]:
        from peft import PeftModel

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(model, job["adapter"])
        problems += [str(one.message) for one in told if "adapter key" in str(one.message)]
    model.eval()
    AutoProcessor.from_pretrained(job["processor"])
    inputs = {name: tensor.to(job["device"]) for name, tensor in load_file(job["inputs"]).items()}
    outputs = {}
    for row in range(job["rows"]):
        given = {name.split(".", 1)[1]: inputs[name] for name in inputs if name.startswith(f"{row}.")}
        outputs[f"{row}.logits"] = logits(model, given)
        outputs[f"{row}.answer"] = answer(model, given, job["new_tokens"])[0]
    save_file({name: tensor.cpu().contiguous() for name, tensor in outputs.items()}, job["outputs"])
    return problems


def logits(model, given: dict) -> torch.Tensor:
    """Return the logits that predict the tokens of the answers."""
    media = {name: given[name] for name in MEDIA if name in given and name != "second_per_grid_ts"}
    found = model(
        input_ids=given["input_ids"],
        position_ids=given["position_ids"],
        mm_token_type_ids=given["mm_token_type_ids"],
        use_cache=False,
        **media,
    ).logits
    return found[0, given["predictors"]]


def answer(model, given: dict, new_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most likely tokens after the prompt, one after the other, and their logits. The pictures of later
    turns are left out."""
    start = int(given["start"])
    ids = given["input_ids"][:, :start]
    media = {name.removeprefix("prompt."): given[name] for name in given if name.startswith("prompt.")}
    produced = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=given["mm_token_type_ids"][:, :start],
        **media,
        max_new_tokens=new_tokens,
        # Published generation configs sample, and set a repetition penalty.
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return produced.sequences[0, start:], torch.cat(produced.logits)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
