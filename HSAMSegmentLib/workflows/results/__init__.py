"""Process finished results: statistics, reports, conversions."""
