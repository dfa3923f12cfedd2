"""Keras 3: its layouts, and the adapter that runs it."""
