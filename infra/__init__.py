"""Where processes live, and the only place where things are put together."""
