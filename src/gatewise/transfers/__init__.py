"""Carries weights between two models that exist: pair their layers, try on a copy, compare outputs, fill."""
