"""Deeplearning4j: its layouts."""
