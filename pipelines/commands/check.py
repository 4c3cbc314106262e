"""Validates an experiment on its data before anything expensive starts.    make check EXP=retinanet DATA=coco

Builds the Model Garden configuration strictly: unknown keys, wrong leaf types, combinations that cannot train.
"""

import tasks
from pipelines import config
from pipelines.config import Config
from pipelines.data import manifest


def run(cfg: Config) -> int:
    """Prints what the run would be; raises `UsageError` with the first thing to change."""
    dataset = config.chosen_dataset(cfg)
    task = tasks.load(dataset.task)
    data = manifest.find(cfg.data_dir, dataset, task.VERSION)
    from pipelines.training import parameters  # TensorFlow, only once the spelling is right.

    params = parameters.build(cfg, task, data)
    trainer, batch = params.trainer, params.task.train_data.global_batch_size
    print(f"{cfg.name}: {cfg.garden} on {dataset.name}, runtime {params.runtime.distribution_strategy}")
    if data is None:
        print(f"the data are not built yet, so sizes are unchecked: make data DATA={dataset.name}")
    else:
        sizes = ", ".join(f"{split.examples} {name}" for name, split in data.splits.items())
        print(f"data: {sizes} examples, {len(data.labels)} classes ({data.fingerprint[:12]})")
        print(f"{trainer.train_steps} steps at batch {batch}, an evaluation every {trainer.validation_interval} steps")
    print(f"headline metric: {trainer.best_checkpoint_eval_metric}\nok")
    return 0
