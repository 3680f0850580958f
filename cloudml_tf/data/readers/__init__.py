"""Readers of instrument files: camera, lidar, navigation, packing, clocks; `hdf5.py` opens every one of the formats."""
