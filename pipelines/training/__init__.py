"""Training by Model Garden. Importing what is here takes seconds, as TensorFlow does."""
