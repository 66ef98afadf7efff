"""The bundled demo model: corpus, tokenizer, teacher and student recipe, evaluation."""
