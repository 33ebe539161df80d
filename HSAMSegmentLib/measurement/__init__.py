"""What is measured of structures: size, place, intensity, and what is unusual about them."""
