"""Reports on results: JSON reports, pictures, slices to correct."""
