"""The network and its loss, as fields of a configuration."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cloudml_tf.config.data import REPRODUCTION, Positive, Settings, UnitInterval

MOST_WIDTH = 4096  # channels
Architecture = Literal[
    "attention", "no_attention", "single_frame", "simple_cnn", "cost_volume", "cost_volume_no_attention"
]


class Model(Settings):
    """The network's sizes; see `models.build_regressor`, for heights `nn.height_network`, for a swath `nn.unet`."""

    architecture: Architecture = Field(
        "attention",
        description="How frames are combined: by attention, by their mean, or the middle one alone; simple_cnn pools "
        "whole frames. For heights, cost_volume compares the frames at each height, by attention over their pairs or "
        "by their mean.",
    )
    widths: tuple[int, ...] = Field((24, 32, 48), min_length=1, description="Channels of successive convolutions.")
    footprint: int = Field(
        11, ge=1, le=512, description="Side of the nadir neighbourhood kept at full resolution, pixels."
    )
    encoder_features: int = Field(64, ge=1, le=4096, description="Size of the vector that encodes a frame.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads.")
    head_units: int = Field(64, ge=1, le=4096, description="Size of the hidden layer before the output.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout inside the network.")
    head_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout before the last layer; equal to `dropout` by default."
    )
    head: Literal["point", "quantile", "histogram"] = Field(
        "point", description="One number, or a distribution whose mean is the prediction."
    )
    quantiles: int = Field(9, ge=3, le=99, description="Number of quantiles that the quantile head predicts.")
    bins: int = Field(32, ge=4, le=512, description="Number of bins of the histogram head.")
    bin_range: tuple[float, float] = Field(
        (-4.0, 4.0), description="Range of the histogram head's bins, in standard deviations of the target."
    )
    contrast_boxes: tuple[int, ...] = Field(
        (), description="Sides, odd, of squares whose mean is subtracted to give further channels."
    )
    nadir_linear: bool = Field(False, description="Add a linear path from the nadir pixels to the prediction.")
    mirror_average: bool = Field(False, description="Average over mirror images outside of training.")
    shift_average: bool = Field(
        False, description="For a swath network on periodic scenes: average over shifts, too, outside of training."
    )
    output_init: Literal["default"] | float = Field(
        "default",
        description="Glorot, or the standard deviation of the output weights (0.5 in the reference recipe).",
        json_schema_extra=REPRODUCTION,
    )
    output_bias: float = Field(0.0, description="Initial output bias, in standard deviations of the target.")

    @property
    def sees_heights(self) -> bool:
        """Whether the network compares frames at candidate heights, and so reads the geometry."""
        return self.architecture.startswith("cost_volume")

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
    form: Literal["variance", "ccc", "log", "std", "hinge"] = Field("variance", description="Form of the penalty.")
    target_variance: Literal["training", "batch"] = Field(
        "training", description="Divide by the training set's variance (steady) or the batch's (the reference recipe)."
    )
    delta: Positive = Field(1.0, description="Error at which huber turns linear.")
    mae_fraction: UnitInterval = Field(0.5, description="Share of |e| in mse_mae.")
    robustness: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="cross_entropy: 0 is the plain one; towards 1, labels that the images cannot explain count less.",
    )
    gamma: float = Field(1.0, gt=0, le=2, description="The ratio s at which hinge ends.")
    clip: Positive | None = Field(None, description="Highest penalty of a batch.")
    pooled_batches: int = Field(
        1, ge=1, le=1000, description="Number of batches whose moments the penalty uses together."
    )
    schedule: Literal["constant", "ramp", "gate"] = Field(
        "constant", description="λ is constant, rises over `ramp_epochs`, or follows the training correlation."
    )
    ramp_epochs: tuple[int, int] = Field(
        (0, 10), description="ramp: λ is 0 up to the first epoch, complete from the second."
    )
    gate_correlation: tuple[float, float] = Field(
        (0.3, 0.7),
        description="gate: λ is 0 while the running correlation is below the first value, complete from the second.",
    )

    @model_validator(mode="after")
    def _rising(self) -> "Loss":
        for name in ("ramp_epochs", "gate_correlation"):
            first, second = getattr(self, name)
            if not 0 <= first < second:
                raise ValueError(f"{name} must be two rising numbers, 0 or more. Received: {first}, {second}")
        return self
