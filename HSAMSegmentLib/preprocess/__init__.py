"""From a volume to the input of a network: intensity rules, slices, resampling."""
