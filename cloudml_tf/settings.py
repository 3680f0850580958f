"""The whole configuration as typed, documented, frozen models. Every number of a run is a field here.

The contracts between fields stand at the end, in `Config`; they are checked before anything heavy is loaded.
Defaults are those of `configs/tier1.json`. Loading, overriding and printing: `cloudml_tf.config`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cloudml_tf.simulation.settings import SimulationConfig

TargetName = Literal["optical_depth", "cloud_base_km", "cloud_top_km"]
FileRole = Literal["camera", "lidar", "navigation"]
UnitInterval = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all sections: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(Settings):
    """What the network is to read."""

    name: TargetName = Field("optical_depth", description="Which lidar quantity is the label.")
    transform: Literal["none", "log"] = Field("none", description="Train on the value or on its natural logarithm.")
    minimum: float | None = Field(
        0.1, description="Labels below are left out (in the target's own unit; 0.05 for heights)."
    )
    maximum: float | None = Field(
        2.0, description="Labels above are left out; the lidar saturates near 3 (20 km for heights)."
    )
    smearing: bool = Field(
        False,
        description="With log: multiply exp(prediction) by the mean of exp(residual) on validation (Duan 1983).",
    )

    @model_validator(mode="before")
    @classmethod
    def _range_of_heights(cls, given: Any) -> Any:
        """The default range is that of an optical depth; a height has its own."""
        if isinstance(given, dict) and given.get("name") in ("cloud_base_km", "cloud_top_km"):
            return {"minimum": 0.05, "maximum": 20.0, **given}
        return given

    @model_validator(mode="after")
    def _check(self) -> "Target":
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum} must be below maximum {self.maximum}")
        if self.transform == "log" and (self.minimum is None or self.minimum <= 0):
            raise ValueError("a log target needs minimum above 0: the logarithm of 0 does not exist")
        if self.smearing and self.transform != "log":
            raise ValueError("smearing belongs to the log transform; set transform to 'log' or smearing to false")
        return self


class Camera(Settings):
    """The camera file and the geometry of its images."""

    files: tuple[str, ...] = Field(("*_L1B_*.h5", "*_L1B_*.hdf5"), description="Name patterns in a flight's folder.")
    channels: tuple[str, ...] = Field(("Product/Signal",), min_length=1, description="One dataset a channel.")
    time: str = Field("Time/TimeUTC", description="Dataset of frame times.")
    time_unit: Literal["attribute", "s", "ms", "min", "h", "d"] = Field(
        "attribute",
        description="Unit of the times since 1970; 'attribute' reads CF `units`, seconds without one.",
    )
    time_offset_s: float = Field(0.0, description="Added to the frame times, for another zone or a known offset.")
    rows: tuple[int, int] | None = Field(None, description="Swath slice [first, end) of rows, e.g. [40, 480].")
    columns: tuple[int, int] | None = Field(None, description="Slice [first, end) of columns.")
    downsample: int = Field(1, ge=1, le=64, description="Mean over squares of this many pixels, after slicing.")
    nadir: tuple[int, int] | None = Field(
        None,
        description="(row, column) of the lidar's spot after slicing and down-sampling; the middle by default.",
    )
    boresight_offset: tuple[int, int] = Field((0, 0), description="(rows, columns) added to the nadir pixel.")
    across_track_axis: Literal["rows", "columns"] = Field(
        "rows",
        description="The image axis across the flight direction: mirroring it mirrors the sun's azimuth.",
    )
    max_gap_s: float | None = Field(None, gt=0, description="A longer step ends a piece; 1.5 median steps by default.")
    saturation: float | None = Field(
        None,
        description="Radiance at or above which a pixel counts as saturated; the integer type's top by default.",
    )
    bad_pixel_fraction: UnitInterval = Field(
        0.5,
        description="A frame with more saturated pixels than this share is left out; black ones always are.",
    )


class Lidar(Settings):
    """The lidar file and how a label is made from its layers."""

    files: tuple[str, ...] = Field(("CPL_L2_*.hdf5", "CPL_L2_*.h5"), description="Name patterns.")
    time: str = Field("layer_descriptor/Profile_Decimal_Julian_Day", description="(profile, 3): start, middle, end.")
    year: int | None = Field(
        None,
        ge=1970,
        le=2100,
        description="Year of the first profile; from the file name's last two digits if unset.",
    )
    time_offset_s: float = Field(0.0, description="Added to the profile times.")
    optical_depth: str = Field("layer_descriptor/Feature_Optical_Depth_532", description="(profile, layer), unitless.")
    base: str = Field("layer_descriptor/Layer_Base_Altitude", description="(profile, layer), km.")
    top: str = Field("layer_descriptor/Layer_Top_Altitude", description="(profile, layer), km.")
    number_layers: str = Field("layer_descriptor/Number_Layers", description="(profile,), optional: 0 is clear sky.")
    feature_type: str | None = Field(
        "layer_descriptor/Feature_Type",
        description="(profile, layer), optional: keeps aerosol out of the clouds.",
    )
    cloud_types: tuple[int, ...] = Field((3,), description="Feature types that are cloud.")
    opaque: str | None = Field(
        "layer_descriptor/Opacity",
        description="(profile,) or (profile, layer), optional: 1 where the beam ended.",
    )
    opaque_profiles: Literal["drop", "keep"] = Field(
        "drop", description="Optical depth of an opaque column is censored: a lower limit, not a value."
    )
    surface: str = Field("layer_descriptor/Lidar_Surface_Altitude", description="(profile,), m.")
    dem: str = Field("layer_descriptor/DEM_Surface_Altitude", description="(profile,), m.")
    scene: Literal["any", "ocean"] = Field(
        "any",
        description="'ocean' keeps profiles with DEM 0 and a lidar surface within 900 m; drops opaque columns.",
    )
    latitude: str = Field("geolocation/CPL_Latitude", description="(profile, 3), degrees, optional.")
    longitude: str = Field("geolocation/CPL_Longitude", description="(profile, 3), degrees, optional.")
    layer: Literal["default", "column", "top", "bottom"] = Field(
        "default",
        description="Which layer is the label: the column sum for optical depth, the top-most for heights.",
    )
    clear_sky: Literal["unlabelled", "zero"] = Field("unlabelled", description="What a profile without layers is.")
    match: Literal["nearest", "average"] = Field(
        "nearest",
        description="Label the frame nearest to a profile's middle, or every frame inside its span.",
    )
    tolerance_s: float = Field(0.5, gt=0, le=60, description="Largest time between a frame and its profile.")


class Navigation(Settings):
    """The navigation file: one row a camera frame."""

    files: tuple[str, ...] = Field(("NAV_*.h5", "*_nav.hdf", "*_nav.h5"), description="Name patterns.")
    solar_zenith: str = Field("nav/solarZenith", description="Degrees.")
    solar_azimuth: str = Field("nav/sunAzGrd", description="Degrees from north.")
    heading: str = Field("nav/heading", description="Degrees from north.")
    max_filled_frames: int = Field(10, ge=0, description="NaN runs up to this long are interpolated.")


class Feature(Settings):
    """A further number a frame, from any dataset of the three files (terrain, weather, roll ...)."""

    name: str = Field(min_length=1, description="Its name in reports.")
    file: FileRole = Field(description="The file that holds it.")
    dataset: str = Field(min_length=1, description="(frame,) or, for the lidar, (profile,): nearest in time.")


class FlightFiles(Settings):
    """The three files of a flight, where a folder does not follow the name patterns."""

    camera: str
    lidar: str
    navigation: str | None = None


class Data(Settings):
    """Where flights come from: a folder, named files, or the simulator where neither is set."""

    path: str | None = Field(None, description="A folder of flight folders. ${NAME:-default} reads the environment.")
    flights: dict[str, FlightFiles] | None = Field(None, description="Flights by name, file by file.")
    simulation: SimulationConfig = SimulationConfig()
    camera: Camera = Camera()
    lidar: Lidar = Lidar()
    navigation: Navigation = Navigation()
    sun_angles: bool = Field(True, description="Give the network the sun's direction; off needs no navigation file.")
    features: tuple[Feature, ...] = Field((), description="Further numbers a frame.")
    cache: str = Field("~/.cache/cloudml_tf", description="Simulated flights, and decoded frames that exceed memory.")
    memory_gb: float = Field(4.0, gt=0, description="Decoded frames above this are kept in a file and mapped.")

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if self.path is not None and self.flights is not None:
            raise ValueError("path and flights both name the input; keep one")
        names = [feature.name for feature in self.features]
        if len(set(names)) < len(names):
            raise ValueError(f"two features share a name: {names}")
        return self


class FlightSplit(Settings):
    """Whole flights, by name."""

    kind: Literal["flights"] = "flights"
    train: tuple[str, ...] = Field(min_length=1)
    val: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> "FlightSplit":
        names = [*self.train, *self.val, *self.test]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a flight can be in one part only; named twice: {', '.join(twice)}")
        return self


class LeaveOneOut(Settings):
    """One flight tests, the next one (cyclic, by name) validates, the others train."""

    kind: Literal["leave_one_out"] = "leave_one_out"
    test: str
    val: str | None = Field(None, description="The next flight by default.")
    exclude: tuple[str, ...] = Field((), description="Flights in no part.")

    @model_validator(mode="after")
    def _distinct(self) -> "LeaveOneOut":
        if self.val == self.test or {self.test, self.val} & set(self.exclude):
            raise ValueError("test, val and exclude must name different flights")
        return self


class TimeBlocks(Settings):
    """Each flight cut in time: training first, then validation, then test, with a gap between."""

    kind: Literal["time_blocks"] = "time_blocks"
    val_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.15, gt=0, lt=1)
    gap_s: float = Field(60.0, ge=0, description="Time left out between parts.")

    @model_validator(mode="after")
    def _room_for_training(self) -> "TimeBlocks":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave room for training (below 1)")
        return self


Split = Annotated[FlightSplit | LeaveOneOut | TimeBlocks, Field(discriminator="kind")]


class Overweight(Settings):
    """Which samples `overweight_factor` multiplies."""

    threshold: float | None = Field(1.0, description="Labels at or above, in the target's own unit; none if null.")
    flights: tuple[str, ...] = Field((), description="All samples of these flights.")


class LabelDensity(Settings):
    """Weights for rare labels: label distribution smoothing (Yang et al. 2021, arXiv 2102.09554)."""

    enabled: bool = Field(False, description="Weigh training samples by the inverse density of their label.")
    bins: int = Field(50, ge=5, le=1000, description="Of the histogram of training labels.")
    smoothing: float = Field(2.0, gt=0, le=50, description="Std of the Gaussian over it, in bins.")
    exponent: float = Field(0.5, gt=0, le=1, description="1 is the inverse density, 0.5 its square root.")
    largest: float = Field(5.0, gt=1, description="Highest weight, where the mean is 1.")


class Preprocessing(Settings):
    """What the model does to raw radiance; all of it inside the exported model."""

    log_offset: float | None = Field(None, gt=0, description="Take log(radiance + this) first.")
    flat_field: bool = Field(False, description="Divide by the mean training frame (vignetting).")
    per_frame: bool = Field(False, description="Standardise each frame by itself: loses absolute radiance.")


class Augmentation(Settings):
    """Random changes of training sequences that leave the label as it is."""

    mirror_across_track: bool = Field(True, description="Mirror left and right about nadir, and the sun with it.")
    mirror_along_track: bool = Field(False, description="Mirror fore and aft about nadir, sun and time order with it.")
    gain_std: float = Field(0.0, ge=0, le=0.5, description="Std of a random factor on a sequence's radiance.")
    noise_std: float = Field(0.0, ge=0, le=1, description="Std of pixel noise, in the channel's training std.")


class Model(Settings):
    """The network's sizes; see `cloudml_tf.models.build_regressor`."""

    architecture: Literal["attention", "single_frame", "simple_cnn"] = "attention"
    widths: tuple[int, ...] = Field((24, 32, 48), min_length=1, description="Channels of successive convolutions.")
    footprint: int = Field(11, ge=1, description="Side of the nadir neighbourhood kept at full resolution, pixels.")
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
    mirror_average: bool = Field(False, description="Average over across-track mirror images outside of training.")
    output_init: Literal["default"] | float = Field(
        "default", description="Glorot, or the standard deviation of the output weights (the original: 0.5)."
    )
    output_bias: float = Field(0.0, description="Start of the output bias, in standard deviations of the target.")

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(width < 1 for width in widths):
            raise ValueError("every width must be 1 or more")
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
    learning_rate: float = Field(1e-3, gt=0, le=10)
    warmup_epochs: float = Field(1.0, ge=0, description="Linear rise of the learning rate.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="After the warm-up, over max_epochs.")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="AdamW's, times the learning rate.")
    gradient_clip_norm: float | None = Field(1.0, gt=0)
    ema_momentum: float | None = Field(None, gt=0, lt=1, description="Average the weights; validate the average.")
    collapse_threshold: float = Field(0.05, gt=0, lt=1, description="Abort when std(p)/std(t) is below.")
    collapse_grace_epochs: int = Field(3, ge=0)
    deterministic: bool = Field(True, description="Equal seeds give equal runs on a CPU.")
    mixed_precision: bool = Field(False, description="bfloat16 inside the network, for GPUs that are fast at it.")


class Pretraining(Settings):
    """Self-supervised pretraining. Not part of this version; the switch is there so that configurations can say so."""

    enabled: Literal[False] = False


class Tracking(Settings):
    """Weights & Biases and TensorBoard."""

    tensorboard: bool = Field(False, description="Write event files into the run folder, for `tensorboard --logdir`.")
    wandb: Literal["online", "offline", "disabled"] = Field(
        "disabled", description="offline writes into the run folder and needs no account; online falls back to it."
    )
    project: str = Field("cloudml_tf", min_length=1)


class Evaluation(Settings):
    """How a finished model is judged."""

    baselines: bool = Field(True, description="Train mean, ridge and gradient boosting on the same split.")
    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    block_s: float = Field(120.0, gt=0, description="Length of a bootstrap block; blocks end at gaps too.")


class Output(Settings):
    """Where results go."""

    runs: str = "runs"
    savedmodels: str = "savedmodels"
    export: bool = Field(True, description="Write the SavedModel at the end of training.")
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
        if self.data.lidar.layer == "column" and self.target.name != "optical_depth":
            raise ValueError(f"data.lidar.layer 'column' is a sum, and {self.target.name} does not add up")
        return self

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
                self.training.order == "flight",
                "training.order flight: neighbouring frames have next to no variance in a batch; use 'shuffled'",
            ),
        ]
        return [text for applies, text in found if applies]
