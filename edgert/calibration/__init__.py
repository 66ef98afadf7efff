"""Calibration: what enters each matrix of a model while it reads a text; and texts that another model writes."""

from edgert.calibration.run import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
