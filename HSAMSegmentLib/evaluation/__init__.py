"""Compare: Dice, HD95, ASD and volumes of two segmentations."""
