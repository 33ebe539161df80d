"""Compare two segmentations: Dice, HD95, ASD and volumes."""
