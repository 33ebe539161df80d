"""What a user reads about a result: JSON reports, pictures, slices to correct."""
