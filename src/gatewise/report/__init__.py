"""Facts come in, text goes out."""
