"""The data half of a configuration: where labels and frames come from, and how they are read, cut and scaled.

The whole configuration, and the contracts between its fields: `cloudml_tf.config.schema`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cloudml_tf.config.geometry import Geometry
from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.config.targets import QUANTITIES, Quantity, TargetName
from cloudml_tf.utils.errors import DataError

FileRole = Literal["camera", "lidar", "navigation"]
TimeUnit = Literal["attribute", "s", "ms", "us", "ns", "min", "h", "d", "hhmmss", "yyyymmddhhmmss"]
SINCE = "Date from which times count: '2024-06-03', 'file_name' for the date in the name, or a root attribute."
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
UpTo1024 = Annotated[int, Field(ge=1, le=1024)]
LabelCount = Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, lt=1)] | None


def _flight_name(given: Any) -> Any:
    """Take a whole number as text: flights are often named by their date, which JSON and `--set` read as a number."""
    if isinstance(given, str) or given is None:
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise ValueError('needs a flight\'s name as text, such as "20240615"')


def _flight_names(given: Any) -> Any:
    if isinstance(given, str | int | float):
        raise ValueError(f"needs a list, such as '{json.dumps([str(given)])}'")
    return given


def _pattern(given: str) -> str:
    if not given or "\x00" in given or given.startswith(("/", "~")) or {"..", "**"} & set(given.split("/")):
        raise ValueError("needs a name with *, such as 'CPL_L2_*.hdf5', that stays in the flight's folder")
    return given


Pattern = Annotated[str, AfterValidator(_pattern)]
FlightName = Annotated[str, BeforeValidator(_flight_name)]
FlightNames = Annotated[tuple[FlightName, ...], BeforeValidator(_flight_names)]


REPRODUCTION: dict[str, Any] = {"for": "reproduction"}  # marks fields whose other values repeat a mistake of others


class Settings(BaseModel):
    """Base class of all sections: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(Settings):
    """The quantity that the network predicts."""

    name: TargetName = Field("optical_depth", description="Which lidar quantity is the label.")
    further: tuple[TargetName, ...] = Field(
        (),
        description="Lidar quantities that the network learns beside it where they are known, each within its usual "
        "range: what they teach of a cloud serves the target too. For nadir; with a point head, or a cost volume.",
    )
    coverage: Literal["nadir", "track", "swath"] = Field(
        "nadir",
        description="Which locations have labels: nadir; for training also the lidar's track inside the frame; or "
        "every pixel of a scene (data.scenes).",
    )
    track_reach: int | None = Field(
        None,
        ge=2,
        le=512,
        description="With track: largest distance from nadir, pixels; as far as the footprint fits by default.",
    )
    transform: Literal["none", "log"] = Field("none", description="Train on the value or on its natural logarithm.")
    log_offset: float = Field(
        0.0, ge=0, description="With log and swath: added before the logarithm, which is then finite for clear sky."
    )
    minimum: float | None = Field(
        0.1, description="Labels below are left out (in the target's own unit; 0.05 for heights)."
    )
    maximum: float | None = Field(
        2.0, description="Labels above are left out; the lidar saturates near 3 (20 km for heights)."
    )
    smearing: bool = Field(
        False, description="With log: multiply exp(prediction) by the mean of exp(residual) on validation (Duan 1983)."
    )

    @property
    def quantity(self) -> Quantity:
        """What is known of the quantity."""
        return QUANTITIES[self.name]

    def of_further(self) -> "list[Target]":
        """A target for each further quantity."""
        return [Target(name=name) for name in self.further]

    @property
    def limits(self) -> str:
        """The range of labels in words, behind "between"."""
        low = "no minimum" if self.minimum is None else f"{self.minimum:g}"
        return f"{low} and {'no maximum' if self.maximum is None else f'{self.maximum:g}'}"

    @model_validator(mode="before")
    @classmethod
    def _usual_range(cls, given: Any) -> Any:
        """Text alone is the coverage. The default range is the quantity's own."""
        given = {"coverage": given} if isinstance(given, str) else given
        if isinstance(given, dict) and str(given.get("name")) in QUANTITIES:
            low, high = QUANTITIES[str(given["name"])].usual
            return {"minimum": low, "maximum": high, **given}
        return given

    @model_validator(mode="after")
    def _check(self) -> "Target":
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum} must be below maximum {self.maximum}")
        if self.log_offset and (self.transform != "log" or self.coverage != "swath"):
            raise ValueError("log_offset belongs to transform 'log' with coverage 'swath'; leave it 0 elsewhere")
        least = -1.0 if self.minimum is None else self.minimum
        if self.transform == "log" and least + self.log_offset <= 0:
            raise ValueError(
                "a log target needs minimum above 0: the logarithm of 0 does not exist. For a swath log_offset "
                "may lift it: minimum 0 with log_offset 0.01"
            )
        if self.further and self.coverage != "nadir":
            raise ValueError(f"further quantities are learned at nadir; coverage '{self.coverage}' has none. Drop them")
        if len({self.name, *self.further}) < 1 + len(self.further):
            raise ValueError(f"further quantities must differ from one another and from {self.name}")
        if self.smearing and self.transform != "log":
            raise ValueError("smearing belongs to the log transform; set transform to 'log' or smearing to false")
        return self


class Camera(Settings):
    """The camera file and the geometry of its images."""

    files: tuple[Pattern, ...] = Field(
        ("*_L1B_*.h5", "*_L1B_*.hdf5", "*_L1B_*.nc"), description="Name patterns of the camera file."
    )
    channels: tuple[str, ...] = Field(("Product/Signal",), min_length=1, description="One dataset per channel.")
    frame_axis: Literal["first", "last"] = Field(
        "first", description="Whether a channel is (frame, row, column), or (row, column, frame) with frames last."
    )
    time: str = Field("Time/TimeUTC", description="Dataset of frame times.")
    time_unit: TimeUnit = Field(
        "attribute", description="Unit of the times; 'attribute' reads CF `units`, else seconds."
    )
    time_since: str = Field("1970-01-01", description=SINCE)
    time_offset_s: float = Field(0.0, description="Added to the frame times, for a time zone or a known offset.")
    rows: tuple[int, int] | None = Field(None, description="Swath slice [first, end) of rows, e.g. [40, 480].")
    columns: tuple[int, int] | None = Field(None, description="Slice [first, end) of columns.")
    downsample: int = Field(1, ge=1, le=64, description="Mean over squares of this many pixels, after slicing.")
    nadir: tuple[int, int] | None = Field(
        None,
        description="(row, column) of the lidar's footprint after slicing and down-sampling; the middle by default.",
    )
    boresight_offset: tuple[int, int] = Field(
        (0, 0), description="(rows, columns) added to nadir: a measured error, as `cloudml check` proposes it."
    )
    across_track_axis: Literal["rows", "columns"] = Field(
        "rows", description="The image axis across the flight direction: mirroring it mirrors the sun's azimuth."
    )
    max_gap_s: Positive | None = Field(None, description="A longer step ends a segment; 1.5 median steps by default.")
    saturation: float | None = Field(
        None, description="Radiance at or above which a pixel counts as saturated; the integer type's top by default."
    )
    bad_pixel_fraction: UnitInterval = Field(
        0.5, description="A frame with a larger share of saturated pixels is left out; black ones always are."
    )


class Lidar(Settings):
    """The lidar file, and how a label is made from its layers."""

    files: tuple[Pattern, ...] = Field(
        ("CPL_L2_*.hdf5", "CPL_L2_*.h5", "CPL_L2_*.nc", "*_CPL_L2*.h5", "*_CPL_L2*.hdf5"),
        description="Name patterns of the lidar file.",
    )
    time: str = Field(
        "layer_descriptor/Profile_Decimal_Julian_Day",
        description="(profile, 3): start, middle, end; (profile, 2): start, end; or (profile,).",
    )
    time_unit: TimeUnit | Literal["day_of_year"] = Field(
        "attribute",
        description="'attribute' reads CF `units` with a date ('hours since …'), else a decimal day of year.",
    )
    time_since: str = Field("1970-01-01", description=SINCE)
    year: int | None = Field(
        None,
        ge=1970,
        le=2100,
        description="Year of the first profile, for a day of year; if unset metadata_parameters/File_Year, or the file "
        "name's date or last two digits.",
    )
    time_offset_s: float = Field(0.0, description="Added to the profile times.")
    optical_depth: str = Field(
        "layer_descriptor/Feature_Optical_Depth_532", description="(profile, layer) or (profile,), unitless."
    )
    base: str = Field("layer_descriptor/Layer_Base_Altitude", description="(profile, layer) or (profile,).")
    top: str = Field("layer_descriptor/Layer_Top_Altitude", description="(profile, layer) or (profile,).")
    height_unit: Literal["attribute", "km", "m", "ft"] = Field(
        "attribute", description="Unit of base and top; 'attribute' reads `units`, km without one. Labels are in km."
    )
    number_layers: str = Field(
        "layer_descriptor/Number_Layers", description="Number of layers (profile,), optional: 0 is clear sky."
    )
    feature_type: str | None = Field(
        "layer_descriptor/Feature_Type",
        description="Type of each layer, shaped like the layers, optional: keeps aerosol out of the clouds.",
    )
    cloud_types: tuple[int, ...] = Field((3,), description="Feature types that are cloud.")
    opaque: str | None = Field(
        "layer_descriptor/Opacity",
        description="Opacity (profile,) or (profile, layer), optional: 1 where the beam ended.",
    )
    opaque_profiles: Literal["drop", "keep"] = Field(
        "drop", description="The optical depth of an opaque column is censored: a lower limit, not a value."
    )
    beam_ended: Literal["drop", "keep"] = Field(
        "drop",
        description="For cloud_base_km: what to do with a column without a return of the surface, where the beam ended "
        "in the cloud: it has no base.",
    )
    surface: str = Field(
        "layer_descriptor/Lidar_Surface_Altitude", description="Height of the surface seen by the lidar (profile,), m."
    )
    dem: str = Field("layer_descriptor/DEM_Surface_Altitude", description="Height of the terrain (profile,), m.")
    scene: Literal["any", "ocean"] = Field(
        "any", description="'ocean' keeps profiles with DEM 0 and a lidar surface within 900 m; drops opaque columns."
    )
    latitude: str = Field("geolocation/CPL_Latitude", description="(profile, 3), degrees, optional.")
    longitude: str = Field("geolocation/CPL_Longitude", description="(profile, 3), degrees, optional.")
    layer: Literal["default", "column", "top", "bottom"] = Field(
        "default",
        description="Which layer is the label; by default the column sum for optical depth, the top layer for heights.",
    )
    clear_sky: Literal["unlabelled", "zero"] = Field("unlabelled", description="Label of a profile without layers.")
    match: Literal["nearest", "average"] = Field(
        "nearest", description="Label the frame nearest to a profile's middle, or every frame within the profile."
    )
    tolerance_s: float = Field(0.5, gt=0, le=60, description="Largest time between a frame and its profile.")


class Navigation(Settings):
    """The navigation file: one row per camera frame, or a clock of its own."""

    files: tuple[Pattern, ...] = Field(
        ("NAV_*.h5", "*_nav.hdf", "*_nav.h5", "NAV_*.nc", "*_nav.nc", "*_MetNav_*.ict", "*.ict"),
        description="Name patterns of the navigation file; one of a suffix alone counts where no other matches.",
    )
    time: str | None = Field(None, description="Dataset of the rows' times; null for one row per camera frame.")
    time_unit: TimeUnit = Field(
        "attribute", description="Unit of the times; 'attribute' reads CF `units`, else seconds."
    )
    time_since: str = Field("1970-01-01", description=SINCE)
    time_offset_s: float = Field(0.0, description="Added to the rows' times.")
    tolerance_s: Positive = Field(1.0, description="With `time`: largest time between a frame and its row.")
    solar_zenith: str | None = Field(
        "nav/solarZenith",
        description="Angle of the sun from the vertical; null computes the sun's place from time and position.",
    )
    elevation: bool = Field(False, description="`solar_zenith` holds the sun's elevation above the horizon instead.")
    solar_azimuth: str = Field("nav/sunAzGrd", description="Angle from north.")
    heading: str | None = Field(
        "nav/heading",
        description="Angle from north; null where `solar_azimuth` is relative to the heading. Where the sun is "
        "computed, null takes the course over ground from the positions.",
    )
    angle_unit: Literal["attribute", "deg", "rad"] = Field(
        "attribute", description="Unit of the three angles; 'attribute' reads `units`, degrees without one."
    )
    latitude: str | None = Field(
        "nav/latitude", description="Latitude of the frame, degrees north, optional; copied into predictions."
    )
    longitude: str | None = Field("nav/longitude", description="Longitude of the frame, degrees east, optional.")
    max_filled_frames: int = Field(10, ge=0, description="NaN runs up to this long are interpolated.")


class Feature(Settings):
    """One more number per frame, from any dataset of the three files (terrain, weather, …).

    Mirror images do not change its sign.
    """

    name: str = Field(min_length=1, description="Name of the feature in reports.")
    file: FileRole = Field(description="The file that holds it.")
    dataset: str = Field(min_length=1, description="Dataset (frame,) or, for the lidar, (profile,): nearest in time.")


class FlightFiles(Settings):
    """The three files of a flight, each in one piece or in parts, for folders that do not follow the name patterns."""

    camera: str = Field(
        description="A file; or a folder or a pattern: cam/*.png of one file a frame, cam_part*.h5 of its parts."
    )
    lidar: str | None = Field(None, description="Source of the labels, a file or its parts; a prediction needs none.")
    navigation: str | None = Field(None, description="A file or its parts, as of the camera.")

    def lidar_path(self) -> Path:
        """The lidar file. Raises `DataError` where the flight has none."""
        if self.lidar is None:
            raise DataError(
                f"{self.camera}: this flight has no lidar file, which labels or features need. "
                "Name one in data.flights."
            )
        return Path(self.lidar)


class Limits(Settings):
    """Limits of a flight file; beyond them it is refused before memory is allocated or another file is opened."""

    column_values: int = Field(
        2**24, ge=1, le=2**31, description="Largest dataset that is read whole, in numbers: times, angles, layers."
    )
    read_mb: float = Field(512.0, gt=0, le=65_536, description="Largest frame, and chunk of frames, MB.")
    expansion: float = Field(
        2000.0, ge=1, description="Largest compression ratio of a dataset above 16 MB; gzip reaches 1032."
    )
    other_files: bool = Field(
        False, description="Follow external links, external storage and virtual datasets into other files."
    )
    try_first: bool = Field(
        True, description="Read a flight's structure in a subprocess first: a corrupt file can crash HDF5."
    )
    try_s: Positive = Field(120.0, description="Time limit of that subprocess, s.")


class SceneFile(Settings):
    """Gridded scenes with a label at every pixel, in one HDF5 or NetCDF-4 file: datasets (scene, row, column)."""

    path: str = Field(description="Path of the file; ${NAME:-default} reads the environment.")
    channels: tuple[str, ...] = Field(
        min_length=1,
        description="One dataset per channel; (scene,) for a number of the whole scene, such as the sun's direction.",
    )
    label: str = Field("cloud_optical_thickness", description="Dataset of the truth; NaN where there is none.")
    test_label: str | None = Field(
        None, description="Truth for the test split, where one better than `label` is known."
    )
    name: str | None = Field("profile", description="Whole numbers (scene,) that name the scenes; 1, 2, … by default.")
    group: str | None = Field(
        None, description="Whole numbers (scene,): the split then names groups of scenes, such as flights."
    )
    retrieval: str | None = Field(None, description="Another retrieval of the same scenes, scored beside the network.")
    periodic: bool = Field(True, description="Periodic boundaries: circular padding and random shifts.")
    sun_axis: Literal["rows", "columns"] | None = Field(
        "columns",
        description="Image axis of the sun's direction, which mirror images keep; null for any direction, without "
        "mirror images.",
    )
    line_spacing: Count = Field(
        1, description="Above 1, only every n-th row is labelled, like a lidar's track; the test split is complete."
    )


class Data(Settings):
    """The input: a folder of flights, named files, or the simulator where neither is set; or gridded scenes."""

    path: str | None = Field(None, description="Folder of flight folders; ${NAME:-default} reads the environment.")
    flights: dict[str, FlightFiles] | None = Field(None, description="Flights by name, file by file.")
    scenes: SceneFile | None = Field(None, description="Gridded scenes instead of flights, for target.coverage swath.")
    simulation: SimulationConfig = SimulationConfig()
    camera: Camera = Camera()
    lidar: Lidar = Lidar()
    navigation: Navigation = Navigation()
    geometry: Geometry | None = Field(
        None, description="Where the camera is and how it moves; of a height it is read by default, else not."
    )
    sun_angles: bool = Field(True, description="Give the network the sun's direction; false needs no navigation file.")
    features: tuple[Feature, ...] = Field((), description="Further numbers per frame.")
    labels: LabelCount = Field(
        None, description="Use only this many training labels, or this share of them, spread evenly in time."
    )
    val_labels: LabelCount = Field(None, description="The same for the validation split.")
    bad_flights: Literal["stop", "skip"] = Field(
        "stop",
        description="A flight that is missing, damaged or without a usable label: stop with an error, or leave it out.",
    )
    limits: Limits = Limits()
    cache: str = Field(
        "~/.cache/cloudml_tf", description="Folder for simulated flights, and for decoded frames that exceed memory_gb."
    )
    memory_gb: Positive = Field(4.0, description="Decoded frames above this are kept in a memory-mapped file.")

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        named = [name for name in ("path", "flights", "scenes") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both name the input; keep one")
        names = [feature.name for feature in self.features]
        if len(set(names)) < len(names):
            raise ValueError(f"two features share a name: {names}")
        return self


class FlightSplit(Settings):
    """A split by whole flights, by name."""

    kind: Literal["flights"] = "flights"
    train: FlightNames = Field(min_length=1)
    val: FlightNames = Field(min_length=1)
    test: FlightNames = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> "FlightSplit":
        names = [*self.train, *self.val, *self.test]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a flight can be in one split only; named twice: {', '.join(twice)}")
        return self


class LeaveOneOut(Settings):
    """One flight is the test split, the next one (cyclic, by name) the validation split, the others train."""

    kind: Literal["leave_one_out"] = "leave_one_out"
    test: FlightName
    val: FlightName | None = Field(None, description="Validation flight; the next one by default.")
    exclude: FlightNames = Field((), description="Flights outside all splits.")

    @model_validator(mode="after")
    def _distinct(self) -> "LeaveOneOut":
        if self.val == self.test or {self.test, self.val} & set(self.exclude):
            raise ValueError("test, val and exclude must name different flights")
        return self


class TimeBlocks(Settings):
    """Each flight is cut in time: training first, then validation, then test, with a gap between."""

    kind: Literal["time_blocks"] = "time_blocks"
    val_fraction: Share = 0.15
    test_fraction: Share = 0.15
    gap_s: float = Field(60.0, ge=0, description="Time left out between splits, s.")

    @model_validator(mode="after")
    def _room_for_training(self) -> "TimeBlocks":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave room for training (below 1)")
        return self


Split = Annotated[FlightSplit | LeaveOneOut | TimeBlocks, Field(discriminator="kind")]


class Overweight(Settings):
    """The training samples that count more than others: high labels, and whole flights."""

    factor: float = Field(1.0, gt=0, le=100, description="Sample weight of these samples; 1 leaves all alike.")
    threshold: float | None = Field(
        1.0, description="Smallest overweighted label, in the target's own unit; none if null."
    )
    flights: FlightNames = Field((), description="Flights whose samples are all overweighted.")


class LabelDensity(Settings):
    """Weights for rare labels: label distribution smoothing (Yang et al. 2021, arXiv 2102.09554)."""

    enabled: bool = Field(False, description="Weigh training samples by the inverse density of their label.")
    bins: int = Field(50, ge=5, le=1000, description="Number of bins of the histogram of training labels.")
    smoothing: float = Field(2.0, gt=0, le=50, description="Std of the Gaussian that smooths the histogram, in bins.")
    exponent: Fraction = Field(
        0.5, description="Exponent of the inverse density: 1 is the density itself, 0.5 its square root."
    )
    largest: float = Field(5.0, gt=1, description="Largest weight; the mean is 1.")


class Preprocessing(Settings):
    """What the model does to raw radiance; all of it is inside the exported model."""

    log_offset: Positive | None = Field(
        None, description="Offset of log(radiance + offset), taken first; no logarithm if null."
    )
    flat_field: bool = Field(False, description="Divide by the mean training frame (vignetting).")
    per_frame: bool = Field(
        False, description="Standardise each frame by itself: loses absolute radiance.", json_schema_extra=REPRODUCTION
    )
