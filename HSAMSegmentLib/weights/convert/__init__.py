"""Convert official `.pth` files to networks of this package."""
