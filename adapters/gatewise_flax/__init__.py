"""Flax linen: its layouts, and the adapter that runs it."""
