"""Convert a volume to network input: intensity rules, slices, resampling."""
