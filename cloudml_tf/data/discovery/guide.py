"""The README beside a starter configuration: the meaning of every field that a user has to decide."""

README = """# {name}

`config.json` says where your flights are and how they are read. `$schema` lets an editor complete and check it.

    cloudml check {folder}/config.json     # data, clocks, split: what is wrong, by name
    cloudml train {folder}/config.json     # training, a report, and an export to savedmodels/{name}
    cloudml predict savedmodels/{name} FLIGHT -o out.nc    # FLIGHT: a flight's name, its camera file, or a folder

Every field and its default: `cloudml config print {folder}/config.json`. Try any of them without editing the file:
`--set KEY=VALUE`.

## What you have to decide

| field | |
|---|---|
| `target.name` | `optical_depth`, `cloud_base_km` or `cloud_top_km` |
| `target.minimum`, `target.maximum` | labels outside are left out; the lidar saturates near an optical depth of 3 |
| `target.transform` | `log` for optical depths over more than one power of ten |
| `data.path` or `data.flights` | a folder with flights, or the files of each flight by name |
| `data.camera.files`, `lidar.files`, `navigation.files` | name patterns, such as `cam_*.nc`. Where flights share |
| | folders, files belong together if the same text matches the one `*` |
| `data.camera.channels` | the images, (frame, row, column), one dataset per channel |
| `data.camera.time`, `time_unit`, `time_since` | the frames' times, their unit, and their reference date |
| `data.camera.rows`, `columns`, `downsample` | cut and shrink large images |
| `data.camera.nadir`, `boresight_offset` | where the lidar looks; the middle by default. `cloudml check` measures it |
| `data.camera.across_track_axis` | the image axis across the flight: `rows` or `columns` |
| `data.lidar.time`, `time_unit`, `year` | the profiles' times: day of the year, seconds since 1970, or CF `units` |
| `data.lidar.optical_depth`, `base`, `top`, `height_unit` | the labels: (profile, layer), top first, or (profile,) |
| `data.lidar.feature_type`, `cloud_types` | which layers are cloud; null where the file does not say |
| `data.lidar.clear_sky`, `opaque_profiles`, `scene` | profiles without cloud, with an opaque one, over land |
| `data.lidar.tolerance_s` | largest time between a frame and its profile |
| `data.navigation.*` | sun and heading, degrees or radians, a row per frame or with times; or `data.sun_angles` false |
| `split` | which flights train, validate and test (`flights`), or `time_blocks` for fewer than three |
"""

FLIGHTS = """Put a folder for each flight here. With the default names, each holds

    *_L1B_*.h5      camera: Product/Signal (frame, row, column), Time/TimeUTC (frame,)
    CPL_L2_*.hdf5   lidar: layer_descriptor/…
    NAV_*.h5        navigation: nav/solarZenith, nav/sunAzGrd, nav/heading, one row per frame

NetCDF-4 (*.nc) works too. For files with other names, datasets or units, have a configuration proposed:

    cloudml init NEW_FOLDER --from FILE…
"""
