"""Shared by all layers: progress and cancellation, atomic files, disk, devices, threads, translation."""
