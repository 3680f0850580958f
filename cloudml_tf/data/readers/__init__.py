"""Readers of instrument files: HDF5, packing, clocks, camera, lidar, navigation."""
