"""Builds the models of published recipes as the installed Model Garden does, and counts their trainable parameters.

    python -m tests.reproduction.building published/coco/detr_r50_300ep published/imagenet/maxvit_tiny_i224

A process of its own, whose memory grows with each; nothing is trained, and no data are needed.
"""

import sys
import time

from pipelines import config
from pipelines.training import parameters


def millions(name: str) -> float:
    """Trainable parameters of a recipe's model, built anew."""
    from official.core import task_factory

    params = parameters.build(config.compose([f"experiment={name}"]))
    if hasattr(params.task, "quantization"):
        params.task.quantization.pretrained_original_checkpoint = None
    model = task_factory.get_task(params.task).build_model()
    count: int = sum(variable.shape.num_elements() for variable in model.trainable_variables)
    return count / 1e6


if __name__ == "__main__":
    for option in sys.argv[1:]:
        began = time.process_time()
        built = millions(option)
        print(f"{option} {built:.6f} M, {time.process_time() - began:.0f} CPU s", flush=True)
