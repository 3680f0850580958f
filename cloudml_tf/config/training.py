"""Augmentation, training, pretraining and tracking, as fields of a configuration."""

from typing import Literal

from pydantic import Field, model_validator

from cloudml_tf.config.data import REPRODUCTION, Count, FlightNames, Fraction, Positive, Settings, Share, UpTo1024


class Augmentation(Settings):
    """Random changes of training sequences that keep the label."""

    mirror_across_track: bool = Field(
        True, description="Mirror left and right about nadir, and the sun's azimuth; scenes across the sun's axis."
    )
    mirror_along_track: bool = Field(
        False, description="Mirror fore and aft about nadir, the sun's azimuth and the time order too."
    )
    window: Share | None = Field(None, description="Random-crop size as a fraction of each side (non-periodic scenes).")
    gain_std: float = Field(0.0, ge=0, le=0.5, description="Std of a random factor on a sequence's radiance.")
    noise_std: float = Field(0.0, ge=0, le=1, description="Std of pixel noise, in the channel's training std.")
    height_shift_km: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Largest random shift of camera and cloud together, which leaves images as they are; for a cost "
        "volume, so that it learns no level by heart.",
    )


class Training(Settings):
    """How the network is trained."""

    max_epochs: int = Field(50, ge=1, le=100_000, description="Largest number of passes over the training part.")
    early_stopping_patience: Count = Field(10, description="Epochs without a better score until training stops.")
    early_stopping_monitor: Literal["val_r2", "composite", "val_loss"] = Field(
        "val_r2",
        description="R², the reference recipe's composite val_loss - 2 R², or the loss (warned about).",
        json_schema_extra=REPRODUCTION,
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="The weights that are kept: those of the epoch with the best score, or the last ones, where one "
        "validation flight says little about other flights.",
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="Sequences of a step; for a swath, scenes.")
    order: Literal["shuffled", "flight"] = Field(
        "shuffled",
        description="'flight' keeps neighbours in one batch, and shuffles the batches only (warned about); it needs "
        "run_length 1.",
        json_schema_extra=REPRODUCTION,
    )
    run_length: UpTo1024 = Field(
        1,
        description="Neighbouring sequences that are drawn together; above 1 (order shuffled only), frames that they "
        "share are encoded once.",
    )
    sequences_per_epoch: Count | None = Field(
        None,
        description="Sequences drawn at random each epoch; all by default, as many as labels for coverage track. "
        "It may exceed the number of scenes: each draw is shifted and mirrored at random.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Highest learning rate, at the end of the warm-up.")
    warmup_epochs: float = Field(1.0, ge=0, description="Length of the learning rate's linear rise.")
    warmup_steps: Count | None = Field(
        None, description="Length of the rise in steps, in place of warmup_epochs; both together are refused."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Course of the learning rate after the warm-up, over max_epochs."
    )
    weight_decay: float = Field(
        1e-4, ge=0, le=10, description="AdamW's weight decay, which is multiplied by the learning rate."
    )
    gradient_clip_norm: Positive | None = 1.0
    ema_momentum: Share | None = Field(
        None, description="Momentum of an average of the weights, which is then validated and kept; null for none."
    )
    collapse_threshold: Share = Field(0.05, description="Stop when std(p)/std(t) on validation is below this.")
    collapse_grace_epochs: int = Field(3, ge=0)
    init_from: str | None = Field(
        None, description="Start from a finished run: its best weights, and its scaling of frames and target."
    )
    init_from_rate_factor: Fraction = Field(
        0.3, description="Factor of learning_rate in a run with init_from, which starts near a solution."
    )
    deterministic: bool = Field(True, description="Equal seeds give equal runs on a CPU.")
    mixed_precision: bool = Field(False, description="bfloat16 inside the network, for GPUs that are fast at it.")
    data_threads: int = Field(
        1, ge=1, le=64, description="Threads that prepare training batches; the result is the same bit by bit."
    )
    devices: Literal["one", "mirrored", "workers"] = Field(
        "one",
        description="'mirrored' splits each batch over the GPUs of this machine, 'workers' over the machines of the "
        "environment variable TF_CONFIG; see docs/several-devices.md.",
    )
    replicas: UpTo1024 | None = Field(
        None,
        description="mirrored: number of GPUs instead of all; without a GPU, of virtual CPU devices, to try it out.",
    )

    @property
    def rate(self) -> float:
        """The highest learning rate of the training."""
        return self.learning_rate * (1.0 if self.init_from is None else self.init_from_rate_factor)

    @model_validator(mode="after")
    def _check(self) -> "Training":
        if self.warmup_steps is not None and self.warmup_epochs != 1.0:
            raise ValueError(
                "warmup_steps and warmup_epochs both say how long the learning rate rises. "
                f"Received: {self.warmup_steps} and {self.warmup_epochs:g}. Leave one out"
            )
        if self.order == "flight" and self.run_length > 1:
            raise ValueError(
                f"run_length needs order shuffled. Received: order=flight, run_length={self.run_length}. "
                "'flight' keeps whole batches together already."
            )
        if self.devices != "one" and self.run_length > 1:
            raise ValueError(
                f"run_length needs devices one. Received: devices={self.devices}, run_length={self.run_length}. "
                "A batch that holds shared frames once cannot be split over devices; set run_length to 1."
            )
        if self.devices != "mirrored" and self.replicas is not None:
            raise ValueError(
                f"replicas needs devices mirrored. Received: devices={self.devices}, replicas={self.replicas}"
            )
        return self


class Pretraining(Settings):
    """Self-supervised pretraining of the frame encoder on all frames; see `cloudml_tf.nn.masked_reconstruction`."""

    enabled: bool = Field(False, description="Pretrain before training, or transfer the encoder of `from_run`.")
    from_run: str | None = Field(
        None, description="Folder of a finished `cloudml pretrain` to use instead of a new pretraining."
    )
    frames: Literal["all", "middle", "random", "first"] = Field(
        "all",
        description="Frames of a sequence to reconstruct; 'first' is the reference recipe's fault (warned about).",
        json_schema_extra=REPRODUCTION,
    )
    patch: int = Field(4, ge=1, le=256, description="Side of a hidden square, pixels.")
    mask_ratio: Share = Field(0.6, description="Share of the squares that is hidden.")
    patch_weight: float = Field(1.0, gt=0, le=1000, description="Weight of the hidden patches' error in the loss.")
    focus: float | None = Field(
        3.0,
        gt=0,
        le=1000,
        description="How far from nadir the vector has to paint the window, pixels (std of a bell); null leaves hidden "
        "patches as the only task, as in the reference recipe.",
    )
    extra_flights: FlightNames = Field((), description="Flights outside the split whose frames are used too.")
    max_epochs: int = Field(30, ge=1, le=100_000)
    patience: Count = Field(
        6, description="Epochs without a lower validation loss before stopping; the best weights are restored."
    )
    batch_frames: int = Field(64, ge=1, le=65_536, description="Frames per batch.")
    frames_per_epoch: Count | None = Field(4096, description="Frames drawn at random each epoch; all of them if null.")
    learning_rate: float = Field(2e-3, gt=0, le=10)
    weight_decay: float = Field(1e-4, ge=0, le=10)
    decoder_width: UpTo1024 = 24
    transfer: Literal["fine_tune", "probe"] = Field(
        "fine_tune", description="Fine-tune the encoder with the labels, or freeze it."
    )
    control: bool = Field(True, description="Also train the same network from random weights, to compare.")
    force: bool = Field(False, description="Transfer an encoder even if its pretraining did not converge.")


class Tracking(Settings):
    """Weights & Biases and TensorBoard."""

    tensorboard: bool = Field(False, description="Write TensorBoard event files into the run folder.")
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled",
        description="offline writes into the run folder and needs no account; online falls back to it. WANDB_MODE and "
        "WANDB_DISABLED of the environment win where they are more private.",
    )
    project: str = Field("cloudml_tf", min_length=1)
    artefact: bool = Field(True, description="Upload the model to wandb, once, at the end.")
    profile_steps: int = Field(0, ge=0, le=1000, description="Steps that TensorBoard's profile traces; 0 is none.")
