"""Decoder heads: H-SAM, SAMed, AutoSAM (ViT, CNN, linear), and the parts that they share."""
