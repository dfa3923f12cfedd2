"""Apple MLX: its layouts, and the adapter that runs it."""
