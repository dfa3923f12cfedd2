"""Whether two objects compute the same: what is fed, what is compared, which mistake it is where they differ."""
