"""Images, their geometry, their slices and their labels: what goes into a network and what comes out of it."""
