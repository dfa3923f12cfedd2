"""TensorFlow 1: its layouts, and the adapter that runs its cells."""
