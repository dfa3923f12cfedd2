"""cuDNN: the layouts of its weight buffer."""
