"""What a model predicts for a text, stored: for every place its likeliest tokens, and how likely all the others are.

    record_predictions(teacher, text, "teacher.predictions.gguf")
    with Predictions.open("teacher.predictions.gguf") as stored:
        ids, log_p, rest = stored.rows(0)

The file is a GGUF whose `general.type` is "edgert.predictions". Metadata under `edgert.predictions.` say of which
model, text and vocabulary they are, and how the text was cut. Tensors, for windows of `window` tokens of which the
`counted` predictions in the second half are stored, with the `top` likeliest tokens of each and `samples` of the rest
(all logarithms are natural; ids are I16 where the vocabulary has at most 2^15 tokens, else I32):

    tokens                     I32 [windows, window]
    top.ids                    I16 or I32 [windows, counted, top], likeliest first
    top.log_probabilities      F32 [windows, counted, top]
    rest.log_probabilities     F32 [windows, counted], of all other tokens together; -inf if that is 0
    sample.ids                 I16 or I32 [windows, counted, samples], drawn from the others as likely as they are
    sample.log_probabilities   F32 [windows, counted, samples]
    next.log_probabilities     F32 [windows, counted], of the token that does follow

Where every token is listed, nothing is sampled, and both tensors are missing.
"""

from edgert.predictions.layout import SAMPLES, TOP
from edgert.predictions.stored import Predictions, is_predictions
from edgert.predictions.writer import PredictionsWriter, record_predictions

__all__ = ["SAMPLES", "TOP", "Predictions", "PredictionsWriter", "is_predictions", "record_predictions"]
