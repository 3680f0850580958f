"""Augmentation, training, pretraining and tracking, as fields of a configuration."""

from typing import Literal

from pydantic import Field, model_validator

from cloudml_tf.config.data import FlightNames, Settings


class Augmentation(Settings):
    """Random changes of training sequences that leave the label as it is."""

    mirror_across_track: bool = Field(
        True, description="Mirror left and right about nadir, and the sun with it; scenes across the sun's axis."
    )
    mirror_along_track: bool = Field(False, description="Mirror fore and aft about nadir, sun and time order with it.")
    window: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Of scenes that end: the share of rows and columns that a training image keeps, at a random place.",
    )
    gain_std: float = Field(0.0, ge=0, le=0.5, description="Std of a random factor on a sequence's radiance.")
    noise_std: float = Field(0.0, ge=0, le=1, description="Std of pixel noise, in the channel's training std.")


class Training(Settings):
    """How the weights are found."""

    max_epochs: int = Field(50, ge=1, le=100_000)
    early_stopping_patience: int = Field(10, ge=1)
    early_stopping_monitor: Literal["val_r2", "composite", "val_loss"] = Field(
        "val_r2", description="R², the original's composite val_loss - 2 R², or the loss (warned about)."
    )
    batch_size: int = Field(32, ge=1, le=65_536)
    order: Literal["shuffled", "flight"] = Field(
        "shuffled", description="'flight' keeps neighbours in one batch, and only mixes the batches (warned about)."
    )
    run_length: int = Field(
        1,
        ge=1,
        le=1024,
        description="Neighbouring sequences drawn together; above 1 the frames that they share are encoded once.",
    )
    sequences_per_epoch: int | None = Field(
        None,
        ge=1,
        description="Drawn anew each epoch; all by default, with target.coverage track as many as labels. Of scenes "
        "there may be more than there are: each draw is shifted and mirrored anew.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=10)
    warmup_epochs: float = Field(1.0, ge=0, description="Linear rise of the learning rate.")
    warmup_steps: int | None = Field(None, ge=1, description="The same in steps, instead of epochs.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="After the warm-up, over max_epochs.")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="AdamW's, times the learning rate.")
    gradient_clip_norm: float | None = Field(1.0, gt=0)
    ema_momentum: float | None = Field(None, gt=0, lt=1, description="Average the weights; validate the average.")
    collapse_threshold: float = Field(0.05, gt=0, lt=1, description="Abort when std(p)/std(t) is below.")
    collapse_grace_epochs: int = Field(3, ge=0)
    init_from: str | None = Field(
        None, description="A finished run to go on from: its best weights, and its scaling of frames and target."
    )
    deterministic: bool = Field(True, description="Equal seeds give equal runs on a CPU.")
    mixed_precision: bool = Field(False, description="bfloat16 inside the network, for GPUs that are fast at it.")
    data_threads: int = Field(
        1, ge=1, le=64, description="Threads that draw training batches; what is trained is the same bit by bit."
    )
    devices: Literal["one", "mirrored", "workers"] = Field(
        "one",
        description="'mirrored' shares each batch out to the GPUs of this machine, 'workers' to the machines of the "
        "environment variable TF_CONFIG; see docs/several-devices.md.",
    )
    replicas: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="mirrored: so many GPUs instead of all; without a GPU so many parts of the CPU, to try it out.",
    )

    @model_validator(mode="after")
    def _one_order(self) -> "Training":
        if self.order == "flight" and self.run_length > 1:
            raise ValueError(
                f"run_length needs order shuffled. Received: order=flight, run_length={self.run_length}. "
                "'flight' keeps whole batches together already."
            )
        return self

    @model_validator(mode="after")
    def _shared_out(self) -> "Training":
        if self.devices != "one" and self.run_length > 1:
            raise ValueError(
                f"run_length needs devices one. Received: devices={self.devices}, run_length={self.run_length}. "
                "A batch that holds shared frames once cannot be shared out; set run_length to 1."
            )
        if self.devices != "mirrored" and self.replicas is not None:
            raise ValueError(
                f"replicas needs devices mirrored. Received: devices={self.devices}, replicas={self.replicas}"
            )
        return self


class Pretraining(Settings):
    """Self-supervised pretraining of the frame encoder on all frames; see `cloudml_tf.nn.masked_reconstruction`."""

    enabled: bool = Field(False, description="Pretrain before training, or hand over what `from_run` holds.")
    from_run: str | None = Field(None, description="Folder of a finished `cloudml pretrain`, instead of a new one.")
    frames: Literal["all", "middle", "random", "first"] = Field(
        "all",
        description="Which frames of a sequence are reconstructed; 'first' is the original's fault (warned about).",
    )
    patch: int = Field(4, ge=1, le=256, description="Side of a hidden square, pixels.")
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="Share of the squares that is hidden.")
    patch_weight: float = Field(1.0, gt=0, le=1000, description="Of the hidden patches' error in the loss.")
    focus: float | None = Field(
        3.0,
        gt=0,
        le=1000,
        description="How far from nadir the vector has to paint the window, pixels (std of a bell); null leaves hidden "
        "patches as the only task, as the original does.",
    )
    extra_flights: FlightNames = Field((), description="Flights in no part of the split whose frames serve too.")
    max_epochs: int = Field(30, ge=1, le=100_000)
    patience: int = Field(6, ge=1, description="Epochs without a lower validation loss; the best weights come back.")
    batch_frames: int = Field(64, ge=1, le=65_536, description="Frames a batch.")
    frames_per_epoch: int | None = Field(4096, ge=1, description="Drawn anew each epoch; all of them if null.")
    learning_rate: float = Field(2e-3, gt=0, le=10)
    weight_decay: float = Field(1e-4, ge=0, le=10)
    decoder_width: int = Field(24, ge=1, le=1024)
    transfer: Literal["fine_tune", "probe"] = Field(
        "fine_tune", description="Train the encoder on with the labels, or keep it as it is (frozen)."
    )
    control: bool = Field(True, description="Train the same network from random weights beside it, to compare.")
    force: bool = Field(False, description="RayPredictor over an encoder whose pretraining did not converge.")


class Tracking(Settings):
    """Weights & Biases and TensorBoard."""

    tensorboard: bool = Field(False, description="Write event files into the run folder, for `tensorboard --logdir`.")
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled", description="offline writes into the run folder and needs no account; online falls back to it."
    )
    project: str = Field("cloudml_tf", min_length=1)
    artefact: bool = Field(True, description="Give the model to wandb, once, at the end.")
    profile_steps: int = Field(0, ge=0, le=1000, description="Steps that TensorBoard's profile traces; 0 is none.")
