"""Image encoders: SAM ViT, MobileSAM's TinyViT, and the compact encoder of the built-in models."""
