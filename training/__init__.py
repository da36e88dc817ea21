"""The recipe of the bundled model: data, tokenizer, training, export and evaluation.

Not part of the installed package: it needs torch and the training data. See `training/README.md`.
"""
