"""Where labels and frames come from and how they are read, cut and scaled: the data half of a configuration.

The whole configuration, and the contracts between its fields: `cloudml_tf.config.schema`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.utils.errors import DataError

TargetName = Literal["optical_depth", "cloud_base_km", "cloud_top_km"]
FileRole = Literal["camera", "lidar", "navigation"]
TimeUnit = Literal["attribute", "s", "ms", "us", "ns", "min", "h", "d"]
SINCE = "The date that times without one count from: '2024-06-03', 'file_name' for the one in it, or a root attribute."
UnitInterval = Annotated[float, Field(ge=0, le=1)]
LabelCount = Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, lt=1)] | None


def _flight_name(given: Any) -> Any:
    """Flights are often named by their date: a whole number, as JSON and `--set` read it, is that text."""
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


class Settings(BaseModel):
    """Base of all sections: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(Settings):
    """What the network is to read."""

    name: TargetName = Field("optical_depth", description="Which lidar quantity is the label.")
    coverage: Literal["nadir", "track", "swath"] = Field(
        "nadir",
        description="What is predicted, and labelled: the value at nadir; for training, all that the lidar meets along "
        "the nadir line inside the frame; or the value at every pixel of a scene (data.scenes).",
    )
    track_reach: int | None = Field(
        None,
        ge=2,
        le=512,
        description="With track: how far from nadir, pixels; as far as the footprint fits by default.",
    )
    transform: Literal["none", "log"] = Field("none", description="Train on the value or on its natural logarithm.")
    log_offset: float = Field(
        0.0, ge=0, description="With log and swath: added before the logarithm, so that clear sky has one."
    )
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
        """A word alone is the coverage. The default range is that of an optical depth; a height has its own."""
        given = {"coverage": given} if isinstance(given, str) else given
        if isinstance(given, dict) and given.get("name") in ("cloud_base_km", "cloud_top_km"):
            return {"minimum": 0.05, "maximum": 20.0, **given}
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
        if self.smearing and self.transform != "log":
            raise ValueError("smearing belongs to the log transform; set transform to 'log' or smearing to false")
        return self


class Camera(Settings):
    """The camera file and the geometry of its images."""

    files: tuple[Pattern, ...] = Field(
        ("*_L1B_*.h5", "*_L1B_*.hdf5", "*_L1B_*.nc"), description="Name patterns in a flight's folder."
    )
    channels: tuple[str, ...] = Field(("Product/Signal",), min_length=1, description="One dataset a channel.")
    time: str = Field("Time/TimeUTC", description="Dataset of frame times.")
    time_unit: TimeUnit = Field("attribute", description="Of the times; 'attribute' reads CF `units`, else seconds.")
    time_since: str = Field("1970-01-01", description=SINCE)
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

    files: tuple[Pattern, ...] = Field(("CPL_L2_*.hdf5", "CPL_L2_*.h5", "CPL_L2_*.nc"), description="Name patterns.")
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
        description="Of the first profile, for a day of year; the file name's date or last two digits if unset.",
    )
    time_offset_s: float = Field(0.0, description="Added to the profile times.")
    optical_depth: str = Field(
        "layer_descriptor/Feature_Optical_Depth_532", description="(profile, layer) or (profile,), unitless."
    )
    base: str = Field("layer_descriptor/Layer_Base_Altitude", description="(profile, layer) or (profile,).")
    top: str = Field("layer_descriptor/Layer_Top_Altitude", description="(profile, layer) or (profile,).")
    height_unit: Literal["attribute", "km", "m"] = Field(
        "attribute", description="Of base and top; 'attribute' reads `units`, km without one. Labels are in km."
    )
    number_layers: str = Field("layer_descriptor/Number_Layers", description="(profile,), optional: 0 is clear sky.")
    feature_type: str | None = Field(
        "layer_descriptor/Feature_Type",
        description="As the layers, optional: keeps aerosol out of the clouds.",
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
    """The navigation file: one row a camera frame, or a clock of its own."""

    files: tuple[Pattern, ...] = Field(
        ("NAV_*.h5", "*_nav.hdf", "*_nav.h5", "NAV_*.nc", "*_nav.nc"), description="Name patterns."
    )
    time: str | None = Field(None, description="Dataset of the rows' times; null for one row a camera frame.")
    time_unit: TimeUnit = Field("attribute", description="Of the times; 'attribute' reads CF `units`, else seconds.")
    time_since: str = Field("1970-01-01", description=SINCE)
    time_offset_s: float = Field(0.0, description="Added to the rows' times.")
    tolerance_s: float = Field(1.0, gt=0, description="With `time`: largest time between a frame and its row.")
    solar_zenith: str = Field("nav/solarZenith", description="Angle of the sun from the vertical.")
    elevation: bool = Field(False, description="`solar_zenith` holds the sun's elevation above the horizon instead.")
    solar_azimuth: str = Field("nav/sunAzGrd", description="Angle from north.")
    heading: str | None = Field(
        "nav/heading", description="Angle from north; null where `solar_azimuth` is relative to the heading."
    )
    angle_unit: Literal["attribute", "deg", "rad"] = Field(
        "attribute", description="Of the three angles; 'attribute' reads `units`, degrees without one."
    )
    latitude: str | None = Field("nav/latitude", description="Degrees north, optional: where a prediction holds.")
    longitude: str | None = Field("nav/longitude", description="Degrees east, optional.")
    max_filled_frames: int = Field(10, ge=0, description="NaN runs up to this long are interpolated.")


class Feature(Settings):
    """A further number a frame, from any dataset of the three files (terrain, weather, roll ...)."""

    name: str = Field(min_length=1, description="Its name in reports.")
    file: FileRole = Field(description="The file that holds it.")
    dataset: str = Field(min_length=1, description="(frame,) or, for the lidar, (profile,): nearest in time.")


class FlightFiles(Settings):
    """The three files of a flight, where a folder does not follow the name patterns."""

    camera: str
    lidar: str | None = Field(None, description="Where labels come from; a prediction needs none.")
    navigation: str | None = None

    def lidar_path(self) -> Path:
        """The lidar file. Raises `DataError` where the flight has none."""
        if self.lidar is None:
            raise DataError(
                f"{self.camera}: this flight has no lidar file, and labels or features are read from it. "
                "Name one in data.flights."
            )
        return Path(self.lidar)


class Limits(Settings):
    """What a flight file may ask for; beyond, it is refused before memory is taken or another file is opened."""

    column_values: int = Field(
        2**24, ge=1, le=2**31, description="Most numbers of a dataset that is read whole: times, angles, layers."
    )
    read_mb: float = Field(512.0, gt=0, le=65_536, description="Largest frame, and chunk of frames, MB.")
    expansion: float = Field(
        2000.0,
        ge=1,
        description="Most bytes that a stored byte of a dataset above 16 MB may unfold to; gzip reaches 1032.",
    )
    other_files: bool = Field(
        False, description="Follow external links, external storage and virtual datasets into other files."
    )
    try_first: bool = Field(
        True, description="Read a flight's structure in a process of its own first: HDF5 may die of a damaged file."
    )
    try_s: float = Field(120.0, gt=0, description="Longest time that this may take, s.")


class SceneFile(Settings):
    """Gridded scenes with a label at every pixel, in one HDF5 or NetCDF-4 file: datasets (scene, row, column)."""

    path: str = Field(description="The file. ${NAME:-default} reads the environment.")
    channels: tuple[str, ...] = Field(
        min_length=1,
        description="One dataset a channel; (scene,) for a number of the whole scene, such as the sun's direction.",
    )
    label: str = Field("cloud_optical_thickness", description="The truth; NaN where there is none.")
    test_label: str | None = Field(
        None, description="What the test part is judged by, where that is better known than `label`."
    )
    name: str | None = Field("profile", description="(scene,) whole numbers that name the scenes; 1, 2, … by default.")
    group: str | None = Field(
        None, description="(scene,) whole numbers: the split then names groups of scenes, such as flights."
    )
    retrieval: str | None = Field(None, description="Another retrieval of the same scenes, judged beside the network.")
    periodic: bool = Field(
        True, description="What leaves a scene at one side comes in at the other: circular padding, random shifts."
    )
    sun_axis: Literal["rows", "columns"] | None = Field(
        "columns",
        description="The image axis along which sunlight comes in; mirror images keep it. Null: from anywhere, and no "
        "mirror images.",
    )
    line_spacing: int = Field(
        1, ge=1, description="Above 1 only one row in so many, as a lidar's track, is labelled; the test part is whole."
    )


class Data(Settings):
    """Where flights come from: a folder, named files, or the simulator where neither is set; or gridded scenes."""

    path: str | None = Field(None, description="A folder of flight folders. ${NAME:-default} reads the environment.")
    flights: dict[str, FlightFiles] | None = Field(None, description="Flights by name, file by file.")
    scenes: SceneFile | None = Field(None, description="Gridded scenes instead of flights, for target.coverage swath.")
    simulation: SimulationConfig = SimulationConfig()
    camera: Camera = Camera()
    lidar: Lidar = Lidar()
    navigation: Navigation = Navigation()
    sun_angles: bool = Field(True, description="Give the network the sun's direction; off needs no navigation file.")
    features: tuple[Feature, ...] = Field((), description="Further numbers a frame.")
    labels: LabelCount = Field(
        None, description="Use only this many training labels, or this share of them, spread evenly in time."
    )
    val_labels: LabelCount = Field(None, description="The same for the validation part.")
    bad_flights: Literal["stop", "skip"] = Field(
        "stop",
        description="A flight that is missing, damaged or without a usable label: stop with an error, or leave it out.",
    )
    limits: Limits = Limits()
    cache: str = Field("~/.cache/cloudml_tf", description="Simulated flights, and decoded frames that exceed memory.")
    memory_gb: float = Field(4.0, gt=0, description="Decoded frames above this are kept in a file and mapped.")

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
    """Whole flights, by name."""

    kind: Literal["flights"] = "flights"
    train: FlightNames = Field(min_length=1)
    val: FlightNames = Field(min_length=1)
    test: FlightNames = Field(min_length=1)

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
    test: FlightName
    val: FlightName | None = Field(None, description="The next flight by default.")
    exclude: FlightNames = Field((), description="Flights in no part.")

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
    flights: FlightNames = Field((), description="All samples of these flights.")


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
