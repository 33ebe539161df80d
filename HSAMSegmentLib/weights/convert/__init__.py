"""Official `.pth` files as networks of this package."""
