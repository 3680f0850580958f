"""The whole configuration as typed, documented, frozen models. Every number of a run is a field here.

The contracts between fields stand at the end, in `Config`; they are checked before anything heavy is loaded.
Defaults are those of `configs/tier1.json`. Loading, overriding and printing: `cloudml_tf.config`.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cloudml_tf.data.settings import (
    Data,
    FlightNames,
    LabelDensity,
    Overweight,
    Preprocessing,
    Settings,
    Split,
    Target,
    UnitInterval,
)
from cloudml_tf.swath.contract import check_swath

MOST_WIDTH = 4096  # channels


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


class Model(Settings):
    """The network's sizes; see `cloudml_tf.models.build_regressor`, for a swath `cloudml_tf.dense`."""

    architecture: Literal["attention", "no_attention", "single_frame", "simple_cnn"] = "attention"
    widths: tuple[int, ...] = Field((24, 32, 48), min_length=1, description="Channels of successive convolutions.")
    footprint: int = Field(
        11, ge=1, le=512, description="Side of the nadir neighbourhood kept at full resolution, pixels."
    )
    encoder_features: int = Field(64, ge=1, le=4096)
    heads: int = Field(4, ge=1, le=64, description="Attention heads.")
    head_units: int = Field(64, ge=1, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    head_dropout: float | None = Field(None, ge=0, lt=1, description="Before the last layer; as `dropout` by default.")
    head: Literal["point", "quantile", "histogram"] = Field(
        "point", description="One number, or a distribution whose mean is the prediction."
    )
    quantiles: int = Field(9, ge=3, le=99, description="Of the quantile head.")
    bins: int = Field(32, ge=4, le=512, description="Of the histogram head.")
    bin_range: tuple[float, float] = Field((-4.0, 4.0), description="Its range, in standard deviations of the target.")
    contrast_boxes: tuple[int, ...] = Field(
        (), description="Sides, odd, of squares whose mean is subtracted to give further channels."
    )
    nadir_linear: bool = Field(False, description="Add a straight line from the nadir pixels to the answer.")
    mirror_average: bool = Field(False, description="Average over mirror images outside of training.")
    shift_average: bool = Field(
        False, description="Of a swath network on periodic scenes: average over shifts outside of training too."
    )
    output_init: Literal["default"] | float = Field(
        "default", description="Glorot, or the standard deviation of the output weights (the original: 0.5)."
    )
    output_bias: float = Field(0.0, description="Start of the output bias, in standard deviations of the target.")

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= width <= MOST_WIDTH for width in widths):
            raise ValueError(f"every width must be 1 or more, and {MOST_WIDTH} at most")
        return widths

    @field_validator("contrast_boxes")
    @classmethod
    def _odd(cls, boxes: tuple[int, ...]) -> tuple[int, ...]:
        if any(box < 3 or box % 2 == 0 for box in boxes):
            raise ValueError("every box must be odd and 3 or more, so that it has a middle")
        return boxes

    @field_validator("bin_range")
    @classmethod
    def _rising(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] >= ends[1]:
            raise ValueError("the first end must be below the second")
        return ends

    @field_validator("output_init")
    @classmethod
    def _positive_init(cls, init: str | float) -> str | float:
        if not isinstance(init, str) and init <= 0:
            raise ValueError("must be 'default' or a standard deviation above 0")
        return init


class Loss(Settings):
    """The loss, in standard deviations of the training target; see `VariancePreservingLoss` and docs/losses.md."""

    base: Literal["mse", "mae", "huber", "mse_mae", "pinball", "cross_entropy"] = Field(
        "mse", description="pinball belongs to the quantile head, cross_entropy to the histogram head."
    )
    weight: float = Field(0.5, ge=0, le=100, description="λ of the variance penalty; 0 is the plain base loss.")
    form: Literal["variance", "ccc", "log", "std", "hinge"] = Field("variance", description="Of the penalty.")
    target_variance: Literal["training", "batch"] = Field(
        "training",
        description="Divide by the training set's variance (steady) or the batch's (the original).",
    )
    delta: float = Field(1.0, gt=0, description="Where huber turns linear.")
    mae_fraction: UnitInterval = Field(0.5, description="Share of |e| in mse_mae.")
    gamma: float = Field(1.0, gt=0, le=2, description="The ratio s at which hinge ends.")
    clip: float | None = Field(None, gt=0, description="Highest penalty of a batch.")
    pooled_batches: int = Field(1, ge=1, le=1000, description="Batches whose moments the penalty looks at together.")
    schedule: Literal["constant", "ramp", "gate"] = Field(
        "constant", description="λ as it is; rising over `ramp_epochs`; or following the training correlation."
    )
    ramp_epochs: tuple[int, int] = Field((0, 10), description="ramp: λ is 0 up to the first, whole from the second.")
    gate_correlation: tuple[float, float] = Field(
        (0.3, 0.7), description="gate: λ is 0 while the running correlation is below the first, whole from the second."
    )

    @model_validator(mode="after")
    def _rising(self) -> "Loss":
        for name in ("ramp_epochs", "gate_correlation"):
            first, second = getattr(self, name)
            if not 0 <= first < second:
                raise ValueError(f"{name} must be two rising numbers, 0 or more. Received: {first}, {second}")
        return self


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
    """Self-supervised pretraining of the frame encoder on all frames; see `cloudml_tf.pretraining`."""

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
    force: bool = Field(False, description="Hand over an encoder whose pretraining did not converge.")


class Tracking(Settings):
    """Weights & Biases and TensorBoard."""

    tensorboard: bool = Field(False, description="Write event files into the run folder, for `tensorboard --logdir`.")
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled", description="offline writes into the run folder and needs no account; online falls back to it."
    )
    project: str = Field("cloudml_tf", min_length=1)
    artefact: bool = Field(True, description="Give the model to wandb, once, at the end.")
    profile_steps: int = Field(0, ge=0, le=1000, description="Steps that TensorBoard's profile traces; 0 is none.")


class Evaluation(Settings):
    """How a finished model is judged."""

    baselines: bool = Field(True, description="Train mean, ridge and gradient boosting on the same split.")
    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    block_s: float = Field(120.0, gt=0, description="Length of a bootstrap block; blocks end at gaps too.")


class Prediction(Settings):
    """What `cloudml predict` says beside each value; see docs/predict.md."""

    glint_angle_deg: float = Field(
        36.0, ge=0, le=90, description="Sun glint is possible where the glint angle at nadir is smaller (MOD35)."
    )
    level: float = Field(
        0.9, gt=0, lt=1, description="Of the interval from a quantile or histogram head; an ensemble has its own."
    )


class Output(Settings):
    """Where results go."""

    runs: str = "runs"
    savedmodels: str = "savedmodels"
    export: bool = Field(True, description="Export the best weights at the end of training.")
    export_formats: tuple[Literal["savedmodel", "onnx", "litert"], ...] = Field(
        ("savedmodel",), min_length=1, description="What is exported; onnx and litert need the extra `export`."
    )
    report: bool = Field(True, description="Draw the pictures and write report.html.")


class Config(Settings):
    """A whole run."""

    experiment_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run's folders.")
    seed: int = Field(1, ge=0, le=2**31 - 1)
    temporal_frames: Literal[1, 3, 5, 7, 9, 11, 13, 15] = Field(3, description="Frames of a sequence, odd.")
    overweight_factor: float = Field(1.0, gt=0, le=100, description="Sample weight of the samples in `overweight`.")
    overweight: Overweight = Overweight()
    label_density: LabelDensity = LabelDensity()
    target: Target = Target()
    data: Data = Data()
    split: Split
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    model: Model = Model()
    loss: Loss = Loss()
    training: Training = Training()
    pretraining: Pretraining = Pretraining()
    evaluation: Evaluation = Evaluation()
    prediction: Prediction = Prediction()
    tracking: Tracking = Tracking()
    output: Output = Output()

    @model_validator(mode="after")
    def _contracts(self) -> "Config":
        if self.data.lidar.clear_sky == "zero":
            if self.target.name != "optical_depth":
                raise ValueError(
                    "data.lidar.clear_sky 'zero' has a meaning for optical_depth only: no cloud has no base"
                )
            if self.target.minimum is not None and self.target.minimum > 0:
                raise ValueError(
                    "data.lidar.clear_sky 'zero' labels are below target.minimum; set target.minimum to 0 or null"
                )
        if self.loss.target_variance == "batch" and self.training.batch_size < 2:
            raise ValueError("loss.target_variance 'batch' needs training.batch_size of 2 or more: one has no variance")
        self._check_head()
        self._check_track()
        check_swath(self)
        if self.pretraining.enabled and self.training.init_from is not None:
            raise ValueError("pretraining.enabled and training.init_from are two ways to begin; keep one")
        apart = self.pretraining.from_run is not None and not self.pretraining.control
        if self.training.devices == "workers" and self.pretraining.enabled and not apart:
            raise ValueError(
                "training.devices 'workers' trains one network together. Pretrain before it with `cloudml pretrain`, "
                "name that in pretraining.from_run, and set pretraining.control to false"
            )
        shared = {name for part in ("train", "val", "test") for name in getattr(self.split, part, None) or ()}
        twice = sorted(shared & set(self.pretraining.extra_flights))
        if twice:
            raise ValueError(f"pretraining.extra_flights must be in no part of the split: {', '.join(twice)} is")
        if self.data.lidar.layer == "column" and self.target.name != "optical_depth":
            raise ValueError(f"data.lidar.layer 'column' is a sum, and {self.target.name} does not add up")
        return self

    def _check_track(self) -> None:
        if self.target.coverage != "track":
            return
        for field, value, allowed in (
            ("model.head", self.model.head, ("point",)),
            ("model.architecture", self.model.architecture, ("attention", "no_attention", "single_frame")),
            ("augmentation.mirror_along_track", self.augmentation.mirror_along_track, (False,)),
        ):
            if value not in allowed:
                raise ValueError(
                    f"target.coverage 'track' needs {field} of {' or '.join(map(str, allowed))}. Received: {value}"
                )

    def _check_head(self) -> None:
        head, base = self.model.head, self.loss.base
        if (head == "quantile") != (base == "pinball"):
            raise ValueError(
                f"model.head '{head}' and loss.base '{base}' do not fit: the quantile head is trained by 'pinball', "
                "and nothing else is. Set both, or neither"
            )
        if base == "cross_entropy" and head != "histogram":
            raise ValueError(f"loss.base 'cross_entropy' needs model.head 'histogram'. Received: '{head}'")
        if head == "histogram" and self.model.nadir_linear:
            raise ValueError("model.nadir_linear adds to a number; the histogram head gives shares of bins. Drop one")

    def warnings(self) -> list[str]:
        """What the original document says not to do, and this configuration does."""
        init = self.model.output_init
        found = [
            (
                not isinstance(init, str) and init < 0.1,
                f"model.output_init {init}: output weights under 0.1 made the original's collapse worse; use 'default'",
            ),
            (
                self.temporal_frames > 7,
                f"temporal_frames {self.temporal_frames}: more than 7 frames smooth the signal away; 3 is the advice",
            ),
            (self.loss.weight == 0, "loss.weight 0: nothing keeps the variance of the predictions"),
            (
                self.training.early_stopping_monitor == "val_loss",
                "training.early_stopping_monitor val_loss: it cannot tell a good run from a collapsed one; use val_r2",
            ),
            (
                self.pretraining.enabled and self.pretraining.frames == "first",
                "pretraining.frames first: the other frames of a sequence teach nothing; use 'all'",
            ),
            (
                self.training.order == "flight",
                "training.order flight: neighbouring frames have next to no variance in a batch; use 'shuffled'",
            ),
        ]
        return [text for applies, text in found if applies]
