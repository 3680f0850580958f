"""The whole configuration as typed, documented, frozen models. Every number of a run is a field here.

The contracts between fields are in `Config`, at the end; they are checked before anything heavy is loaded. Defaults are
those of `configs/tier1.json`. Loading, overriding and printing: `cloudml_tf.config.load`.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from cloudml_tf.config.coverage import check_swath
from cloudml_tf.config.data import Data, LabelDensity, Overweight, Preprocessing, Settings, Split, Target
from cloudml_tf.config.model import Loss, Model
from cloudml_tf.config.renamed import renamed
from cloudml_tf.config.targets import QUANTITIES
from cloudml_tf.config.training import Augmentation, Pretraining, Tracking, Training


class Evaluation(Settings):
    """How a trained model is evaluated."""

    baselines: bool = Field(
        True, description="Also score the training mean, ridge regression and gradient boosting on the same split."
    )
    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    block_s: float = Field(120.0, gt=0, description="Length of a bootstrap block; blocks end at gaps too.")


class Prediction(Settings):
    """What `cloudml predict` writes beside each value; see docs/predict.md."""

    glint_angle_deg: float = Field(
        36.0, ge=0, le=90, description="Sun glint is possible where the glint angle at nadir is smaller (MOD35)."
    )
    level: float = Field(
        0.9, gt=0, lt=1, description="Level of the interval from a quantile or histogram head; an ensemble has its own."
    )


class Output(Settings):
    """Where results are written."""

    runs: str = "runs"
    savedmodels: str = "savedmodels"
    export: bool = Field(True, description="Export the best weights at the end of training.")
    export_formats: tuple[Literal["savedmodel", "onnx", "litert"], ...] = Field(
        ("savedmodel",), min_length=1, description="Export formats; onnx and litert need the extra `export`."
    )
    report: bool = Field(True, description="Draw the figures and write report.html.")


def _is_height(target: Any) -> bool:
    name = str(target.get("name")) if isinstance(target, dict) else ""
    return name in QUANTITIES and QUANTITIES[name].is_height


class Config(Settings):
    """The configuration of a whole run."""

    experiment_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run's folders.")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of every random choice.")
    temporal_frames: Literal[1, 3, 5, 7, 9, 11, 13, 15] = Field(3, description="Number of frames in a sequence, odd.")
    frame_spacing_s: float | None = Field(
        None,
        gt=0,
        le=600,
        description="Seconds between the frames of a sequence, found by their times; null takes "
        "neighbours, whatever their interval.",
    )
    overweight: Overweight = Overweight()
    label_density: LabelDensity = LabelDensity()
    target: Target = Target()
    data: Data = Data()
    split: Split = Field(description="The flights or times that train, validate and test; one of three kinds.")
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

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, content: Any) -> Any:
        return renamed(content) if isinstance(content, dict) else content

    @model_validator(mode="before")
    @classmethod
    def _geometry_of_heights(cls, content: Any) -> Any:
        """A height is seen by geometry, so that it is read where nothing is said of it; by a cost volume too."""
        if not isinstance(content, dict) or not _is_height(content.get("target")):
            return content
        data, model = content.get("data", {}), content.get("model", {})
        if not isinstance(data, dict):
            return content
        data = {"geometry": {}, **data}
        reads = isinstance(model, dict) and str(model.get("architecture")).startswith("cost_volume")
        if reads and isinstance(data["geometry"], dict):
            data["geometry"] = {"network_input": True, **data["geometry"]}
        return {**content, "data": data}

    @model_validator(mode="after")
    def _contracts(self) -> "Config":
        for text in self._broken_contracts():
            raise ValueError(text)
        return self

    def _broken_contracts(self) -> Iterator[str]:
        if self.data.lidar.clear_sky == "zero":
            if not self.target.quantity.of_column:
                yield "data.lidar.clear_sky 'zero' makes sense for optical_depth only: clear sky has no cloud base"
            if self.target.minimum is not None and self.target.minimum > 0:
                yield (
                    f"data.lidar.clear_sky 'zero' labels are below target.minimum, {self.target.minimum:g}; "
                    "set target.minimum to 0 or null"
                )
        if self.loss.target_variance == "batch" and self.training.batch_size < 2:
            yield "loss.target_variance 'batch' needs training.batch_size of 2 or more: one has no variance"
        if self.frame_spacing_s is not None and self.data.scenes is not None:
            yield "frame_spacing_s chooses frames of flights; frames of data.scenes are named in its channels"
        yield from self._faults_of_head()
        yield from self._faults_of_track()
        yield from self._faults_of_heights()
        check_swath(self)
        if self.pretraining.enabled and self.training.init_from is not None:
            yield "pretraining.enabled and training.init_from both set the initial weights; keep one"
        apart = self.pretraining.from_run is not None and not self.pretraining.control
        if self.training.devices == "workers" and self.pretraining.enabled and not apart:
            yield (
                "training.devices 'workers' trains one network together. Pretrain first with `cloudml pretrain`, "
                "name that run in pretraining.from_run, and set pretraining.control to false"
            )
        shared: set[str] = set()
        if self.split.kind == "flights":
            shared = {*self.split.train, *self.split.val, *self.split.test}
        elif self.split.kind == "leave_one_out":  # its training flights are known when they are read
            shared = {self.split.test, self.split.val or self.split.test}
        twice = sorted(shared & set(self.pretraining.extra_flights))
        if twice:
            yield f"pretraining.extra_flights must be outside the split. Received: {', '.join(twice)}, which is inside"
        if self.data.lidar.layer == "column" and not self.target.quantity.of_column:
            yield f"data.lidar.layer 'column' is a sum, and {self.target.name} does not add up"

    def _faults_of_track(self) -> Iterator[str]:
        if self.target.coverage != "track":
            return
        for field, value, allowed in (
            ("model.head", self.model.head, ("point",)),
            ("model.architecture", self.model.architecture, ("attention", "no_attention", "single_frame")),
            ("augmentation.mirror_along_track", self.augmentation.mirror_along_track, (False,)),
        ):
            if value not in allowed:
                yield f"target.coverage 'track' needs {field} of {' or '.join(map(str, allowed))}. Received: {value}"

    def _faults_of_heights(self) -> Iterator[str]:
        """Settings that a network which compares frames at heights cannot have."""
        model, geometry = self.model, self.data.geometry
        if geometry is not None and geometry.network_input != model.sees_heights:
            yield (
                "data.geometry.network_input belongs to model.architecture 'cost_volume', which sets it. "
                f"Received: {geometry.network_input} and '{model.architecture}'"
            )
        if not model.sees_heights:
            if self.augmentation.height_shift_km:
                yield "augmentation.height_shift_km needs model.architecture 'cost_volume'; set it to 0"
            return
        for field, value, fits, needed in (
            (
                "target.name",
                self.target.name,
                self.target.quantity.is_height,
                "a height, cloud_base_km or cloud_top_km",
            ),
            ("target.coverage", self.target.coverage, self.target.coverage == "nadir", "nadir"),
            ("target.transform", self.target.transform, self.target.transform == "none", "none"),
            ("data.geometry", geometry, geometry is not None, "a value"),
            ("temporal_frames", self.temporal_frames, self.temporal_frames >= 3, "3 or more"),
            ("model.head", model.head, model.head != "quantile", "point or histogram"),
            ("model.contrast_boxes", model.contrast_boxes, not model.contrast_boxes, "[]"),
            ("model.nadir_linear", model.nadir_linear, not model.nadir_linear, "false"),
            ("target.further", self.target.further, self._heights_come_first(), "heights before other quantities"),
        ):
            if not fits:
                yield f"model.architecture '{model.architecture}' needs {field} of {needed}. Received: {value}"

    def _heights_come_first(self) -> bool:
        heights = [target.quantity.is_height for target in self.target.of_further()]
        return heights == sorted(heights, reverse=True)

    def _faults_of_head(self) -> Iterator[str]:
        head, base = self.model.head, self.loss.base
        if (head == "quantile") != (base == "pinball"):
            yield (
                f"model.head '{head}' and loss.base '{base}' do not fit: the quantile head needs 'pinball', "
                "and no other head takes it. Change one of the two"
            )
        if self.target.further and head != "point" and not (head == "histogram" and self.model.sees_heights):
            yield f"target.further needs model.head 'point', or 'histogram' of a cost volume. Received: '{head}'"
        if self.loss.robustness and base != "cross_entropy":
            yield f"loss.robustness belongs to loss.base 'cross_entropy'; set it to 0. Received base: '{base}'"
        if base == "cross_entropy" and head != "histogram":
            yield f"loss.base 'cross_entropy' needs model.head 'histogram'. Received: '{head}'"
        if head == "histogram" and self.model.nadir_linear:
            yield "model.nadir_linear adds to a number; the histogram head predicts probabilities of bins. Drop one"

    @property
    def distributions(self) -> int:
        """How many quantities a histogram head gives a distribution of: the heights of a cost volume, or the target."""
        return sum(each.quantity.is_height for each in self.targets) if self.model.sees_heights else 1

    @property
    def targets(self) -> list[Target]:
        """The target, and one for each further quantity: the columns of a network's output."""
        return [self.target, *self.target.of_further()]

    def warnings(self) -> list[str]:
        """Warnings about settings that the reference recipe names as causes of collapse."""
        return list(self._doubts())

    def _doubts(self) -> Iterator[str]:
        init = self.model.output_init
        if not isinstance(init, str) and init < 0.1:
            yield f"model.output_init {init}: under 0.1 it made the reference recipe's collapse worse; use 'default'"
        if self.temporal_frames > 7 and not self.model.sees_heights:
            yield f"temporal_frames {self.temporal_frames}: more than 7 frames smooth the signal away; use 3"
        if self.frame_spacing_s is not None and self.temporal_frames == 1:
            yield f"frame_spacing_s {self.frame_spacing_s:g}: a single frame (temporal_frames 1) has no spacing"
        given = "threshold" in self.overweight.model_fields_set
        if self.overweight.factor != 1 and self.target.quantity.is_height and not given:
            yield f"overweight.threshold {self.overweight.threshold:g} km: most clouds are higher; set it for heights"
        if self.loss.weight == 0 and self.model.head == "point":  # a distribution keeps the spread in itself
            yield "loss.weight 0: nothing keeps the variance of the predictions"
        if self.training.early_stopping_monitor == "val_loss":
            yield "training.early_stopping_monitor val_loss: it cannot tell a good run from a collapsed one; use val_r2"
        if self.pretraining.enabled and self.pretraining.frames == "first":
            yield "pretraining.frames first: the other frames of a sequence teach nothing; use 'all'"
        if self.training.order == "flight":
            yield "training.order flight: neighbouring frames have next to no variance in a batch; use 'shuffled'"
