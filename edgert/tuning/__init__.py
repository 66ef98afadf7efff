"""Quantization that is measured on the model itself: which tensor gets which type under a budget of bytes, rounding
that makes up for its own errors, and scales tuned on what the unquantized model, or its teacher, predicts.

`pipeline.convert` is the whole of it. Everything here runs plans layer by layer (`edgert_runtimes.layerwise`) over a
calibration text; the part of the text that is held out decides.
"""
