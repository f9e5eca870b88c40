"""Names of settings and choices in other programs, and what they are called here.

From timm, torchvision's references, Lightning, Hugging Face's Trainer and torch.optim.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.config.kinds import fields_of, kinds_in
from pipeline.config.schema import Config

SETTINGS = {
    "data.dir": "data data_dir data_path dataset dataset_name root train_dir train_data",
    "data.loader.threads": "workers num_workers dataloader_num_workers j threads",
    "data.loader.prefetch_batches": "prefetch_factor prefetch",
    "data.mean": "img_mean image_mean",
    "data.std": "img_std image_std",
    "data.train.size": "img_size image_size input_size train_crop_size crop_size resolution",
    "data.train.flip": "hflip horizontal_flip random_flip",
    "data.eval.size": "val_crop_size eval_size",
    "data.eval.resize": "val_resize_size resize_size crop_pct",
    "data.eval.interpolation": "train_interpolation",
    "model.name": "arch model architecture backbone model_name model_name_or_path network net",
    "model.zero_init_last": "zero_init_residual zero_gamma",
    "model.batch_norm_group": "sync_bn sync_batchnorm syncbn dist_bn bn_group",
    "train.epochs": "num_epochs max_epochs num_train_epochs n_epochs epoch",
    "train.steps": "max_steps num_steps total_steps max_iters iterations train_steps",
    "train.global_batch": "batch_size b bs batch global_batch_size total_batch_size"
    " train_batch_size per_device_train_batch_size per_gpu_batch_size batchsize",
    "train.accumulation": "grad_accum grad_accum_steps gradient_accumulation_steps accum_iter"
    " gradient_accumulation accumulate_grad_batches accumulation_steps accum_steps",
    "train.precision": "amp amp_dtype dtype mixed_precision fp16 bf16 half autocast",
    "train.compile": "torchcompile torch_compile",
    "train.deterministic": "use_deterministic_algorithms cudnn_deterministic",
    "train.label_smoothing": "smoothing label_smoothing_factor",
    "train.clip_norm": "clip_grad clip_grad_norm max_grad_norm gradient_clip_val grad_clip",
    "train.ema.decay": "ema model_ema ema_decay model_ema_decay",
    "train.ema.every_steps": "model_ema_steps",
    "train.log_every_steps": "log_interval print_freq log_every_n_steps logging_steps log_freq",
    "optim.name": "opt optimizer",
    "optim.lr": "learning_rate base_lr max_lr peak_lr init_lr",
    "optim.lr_batch": "lr_base_size",
    "optim.weight_decay": "wd",
    "optim.decay_norm_and_bias": "norm_weight_decay bias_weight_decay filter_bias_and_bn",
    "schedule.name": "sched scheduler lr_scheduler lr_scheduler_type lr_schedule",
    "schedule.warmup_epochs": "warmup lr_warmup_epochs",
    "schedule.warmup_steps": "num_warmup_steps warmup_iters warmup_ratio",
    "schedule.warmup_start": "warmup_lr lr_warmup_decay warmup_start_lr warmup_factor",
    "schedule.end": "min_lr lr_min eta_min",
    "schedule.milestones_epochs": "milestones decay_epochs decay_milestones lr_step_size lr_steps",
    "schedule.factor": "gamma lr_gamma decay_rate",
    "engine.name": "strategy deepspeed fsdp",
    "engine.zero_stage": "zero zero_optimization",
    "evaluate.every_epochs": "check_val_every_n_epoch eval_freq val_interval",
    "evaluate.every_steps": "eval_steps val_check_interval",
    "evaluate.batch_per_rank": "val_batch_size eval_batch_size per_device_eval_batch_size"
    " validation_batch_size",
    "checkpoint.every_epochs": "save_freq save_every",
    "checkpoint.every_steps": "save_steps",
    "checkpoint.keep_last": "checkpoint_hist save_total_limit save_top_k",
    "tracking.experiment": "project wandb_project experiment_name",
    "tracking.uri": "mlflow_uri tracking_uri",
    "tracking.group": "wandb_group",
    "slurm.time_limit": "time timeout walltime",
    "slurm.gpus_per_node": "gpus_per_machine gres",
    "runs_dir": "output output_dir out_dir save_dir log_dir default_root_dir work_dir logdir",
    "run_dir": "resume resume_from resume_from_checkpoint ckpt_path checkpoint_path",
    "name": "run_name experiment_id",
    "seed": "random_seed manual_seed",
}
"""Key -> its names elsewhere."""

OPTIONS = {
    "--ranks N": "gpus devices ngpus nproc nproc_per_node num_gpus world_size ntasks",
    "--nodes N": "num_nodes nnodes n_nodes",
}
"""Option of launch/submit.py -> its names elsewhere."""

CHOICES = {
    "optim.name": {"sgd": "momentum nesterov sgd_nesterov nesterov_sgd sgd_momentum"},
    "schedule.name": {
        "step": "multistep multisteplr steplr step_lr piecewise",
        "cosine": "cosineannealinglr cosine_annealing cosineannealing cos cosine_with_warmup",
        "polynomial": "poly polynomiallr polynomial_decay linear linearlr",
    },
    "engine.name": {
        "ddp": "distributeddataparallel dp dataparallel torch_ddp",
        "deepspeed": "zero zero1 zero2 zero_1 zero_2 deepspeed_stage_1 deepspeed_stage_2",
    },
    "train.precision": {
        "fp32": "32 float32 float fp_32 32_true tf32 none no",
        "bf16": "bfloat16 bf16_mixed bfloat bf16_true",
        "fp16": "16 float16 half 16_mixed fp16_mixed amp mixed",
    },
    "data.train.name": {
        "random_resized_crop": "randomresizedcrop rrc inception imagenet",
        "pad_crop": "randomcrop random_crop cifar",
    },
    "data.loader.name": {"dali": "pytorch torch torchvision dataloader ffcv"},
    "data.order.name": {"shuffled": "random shuffle", "windowed": "webdataset sequential"},
    "data.eval.interpolation": {"bicubic": "cubic", "bilinear": "linear"},
}
"""Key -> choice -> its names elsewhere."""

OPTIMIZERS = (
    "adam adamw adamax adagrad adadelta nadam radam rmsprop rmsproptf lamb lars lion lbfgs muon"
    " sgdp adafactor novograd"
)
"""Optimisers that other programs have and this one does not."""


def setting_named(name: str) -> str | None:
    """Return the key that other programs, or other sections, call `name`; None if unknown."""
    return _known_settings().get(_plain(name.rpartition(".")[2]))


def choice_hint(key: str, name: object, choices: Sequence[str]) -> str:
    """Return advice for a choice of `key` that has this name elsewhere; "" if it is unknown."""
    word = _plain(str(name))
    for choice, names in CHOICES.get(key, {}).items():
        if choice in choices and word in names.split():
            return f"here it is {choice}"
    return (
        "this optimiser is not included"
        if key == "optim.name" and word in OPTIMIZERS.split()
        else ""
    )


def option_hint(option: str) -> str:
    """Return advice for an option such as `lr` or `optim.lr=0.1` that stands for a setting."""
    name, equals, value = option.partition("=")
    if name in _keys():
        key: str | None = name
    else:
        known = {_plain(each): ours for ours, names in OPTIONS.items() for each in names.split()}
        if ours := known.get(_plain(name)):
            return f"here it is {ours}"
        key = setting_named(name)
    if key is None:
        return ""
    return f"settings have no dashes: {key}={value if equals and name in _keys() else '...'}"


def _known_settings() -> dict[str, str]:
    """Return every name -> key, ours before others'; ours only if a single section has it."""
    theirs = {name: key for key, names in SETTINGS.items() for name in names.split()}
    ours: dict[str, list[str]] = {}
    for key in _keys():
        ours.setdefault(key.rpartition(".")[2], []).append(key)
    return theirs | {name: keys[0] for name, keys in ours.items() if len(keys) == 1}


def _keys(kind: type = Config, prefix: str = "") -> list[str]:
    """Return the dotted keys of all settings, of all kinds of each section."""
    return list(dict.fromkeys(_every_key(kind, prefix)))


def _every_key(kind: type, prefix: str) -> Iterator[str]:
    for name, field in fields_of(kind).items():
        inner = kinds_in(field.annotation).values()
        if not inner:
            yield f"{prefix}{name}"
        for each in inner:
            yield from _every_key(each, f"{prefix}{name}.")


def _plain(name: str) -> str:
    return re.sub(r"[-\s.]", "_", name).lower().strip("_")
