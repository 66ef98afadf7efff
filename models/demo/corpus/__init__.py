"""Seeded program that writes the demo model's training and held-out data. Needs the standard library only."""
